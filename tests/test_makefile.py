"""What ``make`` would do: which variables of whom reach the command line. Nothing is run."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXPORTED = {"ENV": "/etc/profile", "GPU": "7", "ARGS": "--seed 7", "PYTHON": "no-such-python"}


@pytest.fixture
def make(tmp_path):
    for file in (ROOT / "Makefile", *ROOT.glob("requirements*.txt")):
        shutil.copy(file, tmp_path)

    def dry_run(*args: str, **env: str) -> list[str]:
        inherited = {
            name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
        }
        done = subprocess.run(["make", "-n", *args], cwd=tmp_path, env=inherited | env,
                              capture_output=True, text=True, timeout=60)  # fmt: skip
        assert done.returncode == 0, done
        return done.stdout.splitlines()

    return dry_run


GIVEN = {  # on make's command line: the flags
    (): "",
    ("ENV=Breakout-v0",): "--env Breakout-v0",
    ("ENV=Breakout-v0", "GPU=0,1", "ARGS=--seed 1 --num-envs 8"): "--env Breakout-v0 --gpu 0,1 --seed 1 --num-envs 8",
    ("GPU=-1",): "--gpu -1",
    ("ARGS=",): "",
    ("PYTHON=python3",): "",
}


@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize("exported", [{}, EXPORTED, EXPORTED | {"MAKEFLAGS": "e"}], ids=["none", "all", "all, -e"])
def test_only_the_command_line_counts(given, exported, make):
    lines = make("train", *given, **exported)
    assert lines[-1].split() == ["exec", ".venv/bin/python", "train-atari.py", *GIVEN[given].split()]
    assert any(line.split() == ["python3", "-m", "venv", ".venv"] for line in lines)


def test_environment_variables_do_not_override_by_e(make):
    assert make("-e", "train", "GPU=0", **EXPORTED)[-1].split()[3:] == ["--gpu", "0"]


@pytest.mark.parametrize("target", ["faults", "bench-train"])
def test_the_benchmarks_take_none_from_the_shell(target, make):
    assert "--seed 7" not in "\n".join(make(target, **EXPORTED))
    assert make(target, "ARGS=--seed 8", **EXPORTED)[-1].endswith("--seed 8")


def test_another_python_makes_the_environment(make):
    assert any(line.split() == ["other", "-m", "venv", ".venv"] for line in make("train", "PYTHON=other", **EXPORTED))
