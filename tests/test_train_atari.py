"""The script's way into its environment; what it does from there on is tested end to end."""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from config import Config, UsageError

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "train-atari.py"


@pytest.fixture
def script(tmp_path):
    spec = importlib.util.spec_from_file_location("train_atari", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.HERE = tmp_path
    return module


def refusal(script, capsys) -> str:
    with pytest.raises(SystemExit) as caught:
        script.enter_environment()
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_windows_is_refused(script, capsys, monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    assert "Windows is not supported" in refusal(script, capsys)


def test_an_old_python_is_refused(script, capsys, monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 10, 9))
    assert "3.11" in refusal(script, capsys)


def test_missing_packages_are_named(script, capsys, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "zmq" else find_spec(name))
    line = refusal(script, capsys)
    assert "zmq" in line
    assert "tensorflow" not in line
    assert "make train" in line


@pytest.mark.parametrize(
    ("active", "made", "entered"), [(False, True, True), (True, True, False), (False, False, False)]
)
def test_the_projects_environment_is_entered_if_none_is_active(script, monkeypatch, active, made, entered):
    python = script.HERE / ".venv" / "bin" / "python"
    if made:
        python.parent.mkdir(parents=True)
        python.touch()
    monkeypatch.setattr(sys, "prefix", "/an/environment" if active else sys.base_prefix)
    monkeypatch.setattr(sys, "argv", ["train-atari.py", "--help"])
    calls = []
    monkeypatch.setattr(script.os, "execv", lambda *args: calls.append(args))
    script.enter_environment()
    assert calls == ([(python, [str(python), "train-atari.py", "--help"])] if entered else [])


# What is printed, and to whom


def shell(command: str, **env: str) -> subprocess.CompletedProcess:
    """Have a shell run a command, in which ``$run`` is the suite's; its status is the last failure in a pipe."""
    script = f"set -o pipefail; run='{sys.executable} {SCRIPT}'; {command}"
    options = {"capture_output": True, "text": True, "timeout": 120}
    return subprocess.run(["bash", "-c", script], env={**os.environ, **env}, check=False, **options)


@pytest.fixture
def a_run(tmp_path):
    """A run that can be drawn, where there is no picture yet."""
    Config(env="Pong-v0").save(tmp_path / "config.json")
    (tmp_path / "stats.json").write_text(json.dumps([{"steps": 1000, "entropy": 1.5}]))
    return tmp_path


MODEL = SCRIPT.parent / "models" / "Pong-v0.npz"


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_it_works_with_closed_streams(a_run, closed):
    done = shell(f"$run --task plot --output {a_run} {closed}")
    assert done.returncode == 0, done
    assert (a_run / "learning_curve.png").exists()
    assert done.stdout == ("" if ">&-" in closed.split() else f"written to {a_run}/learning_curve.png\n")
    assert done.stderr == ""


def test_tensorflow_is_loaded_with_closed_streams():
    done = shell(f"$run --task info --load {MODEL} <&- 2>&-")
    assert done.returncode == 0
    assert "Pong-v0" in done.stdout


def test_an_error_that_nobody_can_read_has_its_status_still():
    done = shell("$run --task nothing 2>&-")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


def test_closed_streams_are_opened_for_those_that_follow(script):
    code = f"""
import importlib.util, os, sys
spec = importlib.util.spec_from_file_location("train_atari", {str(SCRIPT)!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
module.open_streams()
assert None not in (sys.stdin, sys.stdout, sys.stderr)
assert os.open(os.devnull, os.O_RDONLY) == 3
os.execv("/bin/sh", ["sh", "-c", "[ -e /dev/fd/0 ] && [ -e /dev/fd/1 ] && [ -e /dev/fd/2 ]"])
"""
    done = subprocess.run(["bash", "-c", '"$0" -c "$1" <&- >&- 2>&-', sys.executable, code],
                          cwd=SCRIPT.parent, check=False)  # fmt: skip
    assert done.returncode == 0


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_it_ends_quietly_when_its_reader_leaves(a_run, unbuffered):
    done = shell(f"$run --task plot --output {a_run} | true", PYTHONUNBUFFERED=unbuffered)
    assert (done.returncode, done.stderr) == (141, "")
    assert (a_run / "learning_curve.png").exists()
    done = shell("$run --help | head -1", PYTHONUNBUFFERED=unbuffered)
    assert done.returncode in (0, 141)  # it has written all, or not
    assert (done.stdout.count("\n"), done.stderr) == (1, "")
    done = shell(f"$run --task info --load {MODEL} | true", PYTHONUNBUFFERED=unbuffered)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_output_that_is_full_is_told(a_run, unbuffered):
    done = shell(f"$run --task plot --output {a_run} > /dev/full", PYTHONUNBUFFERED=unbuffered)
    assert done.returncode == 1
    assert done.stderr == "train-atari.py: the output cannot be written: No space left on device\n"


# Temporary files


def test_without_a_directory_for_temporary_files_nothing_begins(script, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/missing/tmp"])
    for task in ("train", "play", "eval", "dump_video", "info"):
        with pytest.raises(
            UsageError, match=r"No usable temporary directory .*'/missing/tmp'.* export TMPDIR=DIRECTORY"
        ):
            script.run(Config(task=task), None)


def test_without_room_for_sockets_no_simulation_begins(script, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("x" * 100)))
    (tmp_path / ("x" * 100)).mkdir()
    for config in (Config(task="train"), Config(task="eval"), Config(task="play"), Config(task="train", watch=8080)):
        with pytest.raises(UsageError, match=r"sockets cannot be made in .* path too long: export TMPDIR=/tmp"):
            script.run(config, None)
    script.check_temporary(simulates=False)
