# make train  sets up .venv and trains:  make train ENV=Breakout-v0 GPU=0 ARGS="--num-envs 64"
#             on a Ray cluster, for which it installs what that needs:  make train RAY=10.0.0.1:6379
# make test   sets up .venv, checks the style and runs the tests;  make test-quick  those that take no training
# make bench-simulators (-transport, -train, -scaling)  measures speed;  make bench-learning  what is learned
# make bench-gpu  measures a machine with a GPU, in under 8 minutes
# make bench-peers, make bench-learning-peers  the same of others, in .venv-bench
# make bench-watch  measures what --watch costs;  make bench-soak  an hour's memory, files and threads
# make bench-pictures, bench-screenshot, bench-animation  the README's pictures
# make faults     kills, stops, starves and fuzzes runs, and tells what was lost

# Only what stands on the command line counts: a shell may export variables of these names for others.
$(foreach name,ENV GPU RAY ARGS PYTHON,$(if $(findstring command line,$(origin $(name))),,$(eval override $(name) :=)))
override PYTHON := $(or $(PYTHON),python3)
BIN := .venv/bin

# Where uv is installed it makes the environments: faster, and with another Python, as pyproject.toml says, where PYTHON
# does not fit.
UV := $(shell command -v uv 2>/dev/null)
FITS := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
fitting = $(shell $(PYTHON) -c '$(FITS)' 2>/dev/null && echo $(PYTHON))
unfit = $(error Python 3.11, 3.12 or 3.13 is needed, $(PYTHON) is $(or $(shell $(PYTHON) -V 2>/dev/null),not there): \
  type make PYTHON=python3.13 ..., or install uv, which brings one)
# Their commands, for the environment in the directory $(1): with pip in it, which the doctor names.
ifdef UV
make_environment = uv venv --quiet --seed --allow-existing $(fitting:%=--python %) $(1)
install = uv pip install --quiet --python $(1)/bin/python
else
make_environment = $(or $(fitting),$(unfit)) -m venv $(1) || { rm -rf $(1); exit 1; }  # not half of it: no pip
install = $(1)/bin/python -m pip install --quiet --disable-pip-version-check
endif
FLAGS := $(if $(ENV),--env $(ENV)) $(if $(GPU),--gpu $(GPU)) $(if $(RAY),--ray $(RAY)) $(ARGS)

.PHONY: train test test-quick lint faults clean

train: .venv/installed $(if $(RAY),.venv/installed-ray)
	@exec $(BIN)/python train-atari.py $(FLAGS)

# What the tests start again and again is compiled once, also where the environment says that Python keeps nothing.
# Three at a time keep two cores busy: now and then a test waits.
PYTEST = PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --numprocesses=3 --dist=worksteal

test: .venv/installed-dev lint
	$(PYTEST)

test-quick: .venv/installed-dev lint
	$(PYTEST) -m "not long"

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.venv/bin/python .venv-bench/bin/python:
	$(call make_environment,$(@:/bin/python=))

.venv/installed: .venv/bin/python requirements.txt
	@echo "installing into .venv: TensorFlow alone is 600 MB, this takes some minutes"
	$(call install,.venv) -r requirements.txt
	@if nvidia-smi >/dev/null 2>&1; then $(call install,.venv) 'tensorflow[and-cuda]>=2.21,<2.22'; fi
	@$(call install,.venv) python-prctl >/dev/null 2>&1 || \
	  echo "python-prctl cannot be built here (no compiler or no libcap headers): ctypes does its work"
	@touch $@

.venv/installed-ray: .venv/installed requirements-ray.txt
	$(call install,.venv) -r requirements-ray.txt
	@touch $@

.venv/installed-dev: .venv/installed requirements-dev.txt requirements-ray.txt
	$(call install,.venv) -r requirements-dev.txt
	@touch $@

faults: .venv/installed
	@$(BIN)/python -m tests.faults $(ARGS)

bench-peers bench-learning-peers: bench-%: .venv-bench/installed
	@.venv-bench/bin/python -m bench.$(subst -,_,$*) $(ARGS)

# Its table of games is tested for chance, with SciPy.
bench-learning: .venv/installed-dev
bench-%: .venv/installed
	@$(BIN)/python -m bench.$* $(ARGS)

.venv-bench/installed: .venv-bench/bin/python requirements.txt bench/requirements.txt
	$(call install,.venv-bench) -r bench/requirements.txt
	@touch $@

clean:
	rm -rf .venv .venv-bench .pytest_cache .ruff_cache __pycache__ tests/__pycache__
