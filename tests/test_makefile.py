"""What ``make`` would do: which variables of whom reach the command line, which Python it takes. Nothing is run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXPORTED = {"ENV": "/etc/profile", "GPU": "7", "RAY": "10.0.0.7:6379", "ARGS": "--seed 7", "PYTHON": "no-such-python"}


@pytest.fixture
def programs(tmp_path):
    """All programs that make finds: Pythons of a version, by their names; uv if it is among them."""
    directory = tmp_path / "bin"
    directory.mkdir()

    def install(**versions: str) -> None:
        for name, version in versions.items():
            program = directory / name
            info = tuple(map(int, version.split(".")))
            code = f"import sys; sys.version_info = {info}; exec(sys.argv[2])"
            program.write_text(f"""#!/bin/sh
[ "$1" = -V ] && echo "Python {version}" && exit
exec {sys.executable} -c "{code}" "$@"
""")
            program.chmod(0o755)

    install.path = str(directory)
    install(python3="3.12.4")
    return install


@pytest.fixture
def make(tmp_path, programs):
    for file in (ROOT / "Makefile", *ROOT.glob("requirements*.txt")):
        shutil.copy(file, tmp_path)
    shutil.copytree(ROOT / "bench", tmp_path / "bench")
    program = shutil.which("make")

    def dry_run(*args: str, status: int = 0, **env: str) -> list[str]:
        inherited = {
            name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
        }
        done = subprocess.run([program, "-n", *args], cwd=tmp_path, env=inherited | {"PATH": programs.path} | env,
                              capture_output=True, text=True, timeout=60)  # fmt: skip
        assert done.returncode == status, done
        return (done.stderr if status else done.stdout).splitlines()

    return dry_run


GIVEN = {  # on make's command line: the flags
    (): "",
    ("ENV=Breakout-v0",): "--env Breakout-v0",
    ("ENV=Breakout-v0", "GPU=0,1", "ARGS=--seed 1 --num-envs 8"): "--env Breakout-v0 --gpu 0,1 --seed 1 --num-envs 8",
    ("GPU=-1",): "--gpu -1",
    ("RAY=10.0.0.1:6379", "ARGS=--hosts 4"): "--ray 10.0.0.1:6379 --hosts 4",
    ("ARGS=",): "",
    ("PYTHON=python3",): "",
}


@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize("exported", [{}, EXPORTED, EXPORTED | {"MAKEFLAGS": "e"}], ids=["none", "all", "all, -e"])
def test_only_the_command_line_counts(given, exported, make):
    lines = make("train", *given, **exported)
    assert lines[-1].split() == ["exec", ".venv/bin/python", "train-atari.py", *GIVEN[given].split()]
    assert any(line.startswith("python3 -m venv .venv ") for line in lines)


def test_environment_variables_do_not_override_by_e(make):
    assert make("-e", "train", "GPU=0", **EXPORTED)[-1].split()[3:] == ["--gpu", "0"]


@pytest.mark.parametrize(("given", "installed"), [((), False), (("RAY=local",), True)])
def test_ray_is_installed_for_who_asks_for_it(given, installed, make):
    assert any("-r requirements-ray.txt" in line for line in make("train", *given, **EXPORTED)) == installed


@pytest.mark.parametrize("target", ["faults", "bench-train"])
def test_the_benchmarks_take_none_from_the_shell(target, make):
    assert "--seed 7" not in "\n".join(make(target, **EXPORTED))
    assert make(target, "ARGS=--seed 8", **EXPORTED)[-1].endswith("--seed 8")


def test_another_python_makes_the_environment(make, programs):
    programs(other="3.11.0")
    assert any(line.startswith("other -m venv .venv ") for line in make("train", "PYTHON=other", **EXPORTED))


# Which Python, and by whom. The fake uv needs no version.

FITTING, UNFIT = ("3.11.0", "3.11.9", "3.12.4", "3.13.9"), ("2.7.18", "3.9.2", "3.10.14", "3.14.0", "3.15.1", "4.0.0")


@pytest.mark.parametrize(("target", "directory"), [("train", ".venv"), ("bench-peers", ".venv-bench")])
@pytest.mark.parametrize("version", FITTING)
def test_a_python_that_fits_is_taken(version, target, directory, make, programs):
    programs(python3=version)
    lines = make(target)
    assert lines[0].startswith(f"python3 -m venv {directory} || ")
    assert not any("uv" in line.split() for line in lines)
    programs(uv="0")
    lines = make(target)
    assert lines[0].startswith("uv venv ")
    assert lines[0].endswith(f" --python python3 {directory}")


@pytest.mark.parametrize("target", ["train", "test", "bench-peers"])
@pytest.mark.parametrize("version", UNFIT)
def test_a_python_that_does_not_fit_is_told_in_one_line(version, target, make, programs):
    programs(python3=version)
    (line,) = make(target, status=2)
    assert f"3.11, 3.12 or 3.13 is needed, python3 is Python {version}: type make PYTHON=python3.13" in line


def test_a_python_that_is_not_there_is_told_in_one_line(make):
    (line,) = make("train", "PYTHON=python3.99", status=2)
    assert "3.11, 3.12 or 3.13 is needed, python3.99 is not there" in line


@pytest.mark.parametrize("python", ["python3", "python3.99"])
@pytest.mark.parametrize("version", UNFIT)
def test_where_it_does_not_fit_uv_finds_or_brings_one(version, python, make, programs):
    programs(python3=version, uv="0")
    assert make("train", f"PYTHON={python}")[0].split() == [
        "uv",
        "venv",
        "--quiet",
        "--seed",
        "--allow-existing",
        ".venv",
    ]


def test_an_environment_that_is_there_is_kept(make, tmp_path, programs):
    programs(python3="3.14.0")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").touch()
    assert not any("venv" in line.split() for line in make("train"))


@pytest.mark.parametrize("installer", [".venv/bin/python -m pip install", "uv pip install"])
def test_all_is_installed_by_one_program(installer, make, programs):
    if installer.startswith("uv"):
        programs(uv="0")
    installs = [line for line in make("test") if " install " in line]
    assert len(installs) == 4  # what is required, TensorFlow for GPUs, python-prctl, the tests' packages
    assert all(installer in line for line in installs)
    assert all("--python .venv/bin/python" in line for line in installs if "uv" in installer)


@pytest.mark.parametrize("bundled", [False, True])
def test_half_an_environment_is_not_left(bundled, make, tmp_path, programs):
    """Without python3-venv Debian's Python makes one, and then finds no pip to put there."""
    program = Path(programs.path) / "python3"
    ends = "" if bundled else "\nexit 1"
    program.write_text(f"#!/bin/sh\n[ $1 = -c ] && exit\nmkdir -p .venv/bin && touch .venv/bin/python{ends}\n")
    environment = {"PATH": f"{programs.path}:{os.defpath}"}
    done = subprocess.run([shutil.which("make"), ".venv/bin/python"], cwd=tmp_path, env=environment,
                          capture_output=True, timeout=60)  # fmt: skip
    assert (done.returncode == 0) == (tmp_path / ".venv").exists() == bundled, done


def test_what_fits_is_what_the_project_declares():
    from packaging.specifiers import SpecifierSet

    declared = SpecifierSet(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"])
    assert all(version in declared for version in FITTING)
    assert not any(version in declared for version in UNFIT)
