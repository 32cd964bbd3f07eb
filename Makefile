# make train  sets up .venv and trains:  make train ENV=Breakout-v0 GPU=0 ARGS="--num-envs 64"
# make test   sets up .venv, checks the style and runs the tests
# make bench-simulators (-transport, -train, -scaling)  measures speed;  make bench-learning  what is learned
# make bench-peers, make bench-learning-peers  the same of others, in .venv-bench
# make bench-watch  measures what --watch costs;  make bench-soak  an hour's memory, files and threads
# make bench-pictures, bench-screenshot, bench-animation  the README's pictures
# make faults     kills, stops, starves and fuzzes runs, and tells what was lost

# Only what stands on the command line counts: a shell may export variables of these names for others.
$(foreach name,ENV GPU ARGS PYTHON,$(if $(findstring command line,$(origin $(name))),,$(eval override $(name) :=)))
override PYTHON := $(or $(PYTHON),python3)
BIN := .venv/bin
FLAGS := $(if $(ENV),--env $(ENV)) $(if $(GPU),--gpu $(GPU)) $(ARGS)

.PHONY: train test lint faults clean

train: .venv/installed
	@exec $(BIN)/python train-atari.py $(FLAGS)

test: .venv/installed-dev lint
# Most of a fault's time is start-up, so two at a time.
	$(BIN)/python -m pytest --ignore=tests/test_faults.py
	$(BIN)/python -m pytest --numprocesses=2 --dist=worksteal tests/test_faults.py

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed, $(PYTHON) is older: make PYTHON=python3.11 ..."; exit 1; }
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python requirements.txt
	@echo "installing into .venv: TensorFlow alone is 600 MB, this takes some minutes"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@if nvidia-smi >/dev/null 2>&1; then \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check 'tensorflow[and-cuda]>=2.21,<2.22'; fi
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check python-prctl >/dev/null 2>&1 || \
	  echo "python-prctl cannot be built here (no compiler or no libcap headers): ctypes does its work"
	@touch $@

.venv/installed-dev: .venv/installed requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

faults: .venv/installed
	@$(BIN)/python -m bench.faults $(ARGS)

bench-peers bench-learning-peers: bench-%: .venv-bench/installed
	@.venv-bench/bin/python -m bench.$(subst -,_,$*) $(ARGS)

bench-%: .venv/installed
	@$(BIN)/python -m bench.$* $(ARGS)

.venv-bench/installed: requirements.txt bench/requirements.txt
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check -r bench/requirements.txt
	@touch $@

clean:
	rm -rf .venv .venv-bench .pytest_cache .ruff_cache __pycache__ tests/__pycache__
