"""The script's way into its environment; what it does from there on is tested end to end."""

import importlib.util
import sys
from pathlib import Path

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
