"""The script's way into its environment; what it does from there on is tested end to end."""

import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

from a3c.config import Config
from a3c.doctor import checks
from a3c.errors import UsageError
from a3c.weights.model_file import read_model

import pytest
import tensorflow as tf
from tensorpack import tfv1

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "train-atari.py"
PACKAGES = Path(sysconfig.get_path("purelib"))
REQUIRED = list(checks._read(checks.REQUIREMENTS))


@pytest.fixture
def script(tmp_path):
    spec = importlib.util.spec_from_file_location("train_atari", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.HERE, module.PYTHON = tmp_path, tmp_path / ".venv" / "bin" / "python"
    return module


def refusal(script, capsys) -> str:
    def enter() -> None:
        script.enter_environment()
        script.require_packages()

    with pytest.raises(SystemExit) as caught:
        enter()
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_windows_is_refused(script, capsys, monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    assert "Windows is not supported" in refusal(script, capsys)


@pytest.mark.parametrize("version", [(3, 10, 9), (3, 14, 0)])
def test_a_python_that_does_not_fit_is_refused(script, capsys, monkeypatch, version):
    monkeypatch.setattr(sys, "version_info", version)
    line = refusal(script, capsys)
    assert f"3.11, 3.12 or 3.13 is needed, this is {'.'.join(map(str, version))}: type 'make train PYTHON=" in line


@pytest.mark.parametrize(("marked_s", "is_installed"), [(None, False), (99, False), (100, True)])
def test_the_projects_environment_of_another_python_is_to_be_deleted(
    script, tmp_path, capsys, monkeypatch, marked_s, is_installed
):
    """The system's Python was replaced: the environment's is the new one, and has none of the packages."""
    script.PYTHON.parent.mkdir(parents=True)
    script.PYTHON.touch()
    script.INSTALLED = script.PYTHON.parents[1] / "installed"
    requirements = tmp_path / "requirements.txt"
    requirements.touch()
    os.utime(requirements, (100, 100))
    if marked_s is not None:  # else a package was added, and make installs it
        script.INSTALLED.touch()
        os.utime(script.INSTALLED, (marked_s, marked_s))
    monkeypatch.setattr(sys, "prefix", str(script.PYTHON.parents[1]))
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: None)
        line = refusal(script, capsys)
    assert ("delete .venv and type 'make train'" in line) == is_installed
    assert "type 'make train'" in line
    monkeypatch.setattr(sys, "version_info", (3, 14, 0))
    assert "delete .venv and type 'make train PYTHON=" in refusal(script, capsys)


@pytest.mark.parametrize("version", [(3, 11, 0), (3, 12, 4), (3, 13, 9)])
def test_a_python_that_fits_goes_on(script, monkeypatch, version):
    monkeypatch.setattr(sys, "version_info", version)
    script.enter_environment()


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
    python = script.PYTHON
    if made:
        python.parent.mkdir(parents=True)
        python.touch()
    monkeypatch.setattr(sys, "prefix", "/an/environment" if active else sys.base_prefix)
    monkeypatch.setattr(sys, "argv", ["train-atari.py", "--help"])
    calls = []
    monkeypatch.setattr(script.os, "execv", lambda *args: calls.append(args))
    script.enter_environment()
    assert calls == ([(python, [str(python), "train-atari.py", "--help"])] if entered else [])


# In processes, with environments of their own.


@pytest.fixture
def suite(tmp_path) -> Path:
    """A copy of the suite, without a .venv."""
    (tmp_path / "suite").mkdir()
    for file in (*ROOT.glob("*.py"), ROOT / "requirements.txt"):
        shutil.copy(file, tmp_path / "suite")
    shutil.copytree(ROOT / "a3c", tmp_path / "suite" / "a3c")
    return tmp_path / "suite"


def run(
    python: Path, suite: Path, *args: str, options: tuple[str, ...] = (), **env: str
) -> subprocess.CompletedProcess:
    """Run a suite's command line with a Python, without what is active here."""
    clean = {name: value for name, value in os.environ.items() if name not in ("CONDA_PREFIX", "PYTHONPATH", "DISPLAY")}
    return subprocess.run([str(python), *options, str(suite / "train-atari.py"), *args], env=clean | env,
                          capture_output=True, text=True, timeout=120)  # fmt: skip


def told(done: subprocess.CompletedProcess, status: int) -> str:
    """The one line in which a run is refused."""
    assert done.returncode == status, done
    assert "Traceback" not in done.stdout + done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("train-atari.py: ")]
    return line


def project_python(suite: Path) -> Path:
    """A .venv whose Python only tells that it was called."""
    python = suite / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho entered "$@"\n')
    python.chmod(0o755)
    return python


BASE = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
NO_SITE = ("-S",)  # this Python has then no packages, whatever is installed
GAME = ("--env", "NoSuchGame-v0")  # is refused when the packages are there

ACTIVE = {  # CONDA_PREFIX, PYTHONPATH: whether the project's environment is entered
    "nothing": ({}, True),
    "conda, without the packages": ({"CONDA_PREFIX": sys.base_prefix}, True),
    "conda, with the packages": ({"CONDA_PREFIX": sys.base_prefix + "/", "PYTHONPATH": str(PACKAGES)}, False),
    "another conda's": ({"CONDA_PREFIX": "/nowhere", "PYTHONPATH": str(PACKAGES)}, True),
    "conda, deactivated": ({"CONDA_PREFIX": "", "PYTHONPATH": str(PACKAGES)}, True),
}


@pytest.mark.parametrize("case", ACTIVE)
def test_condas_environment_is_kept_if_it_has_the_packages(case, suite):
    env, entered = ACTIVE[case]
    project_python(suite)
    done = run(BASE, suite, *GAME, options=NO_SITE, **env)
    if entered:
        assert done.stdout == f"entered {suite / 'train-atari.py'} {' '.join(GAME)}\n"
    else:
        assert "unknown environment 'NoSuchGame-v0'" in told(done, 2)


def environment(directory: Path, hidden: str | None = None) -> Path:
    """Make an environment with all packages of this one but one; return its Python."""
    venv.create(directory, symlinks=True, with_pip=False)
    (packages,) = directory.glob("lib/python*/site-packages")
    gone = set()
    if hidden:
        gone = {file.parts[0] for file in importlib.metadata.distribution(hidden).files}
    for entry in PACKAGES.iterdir():
        if entry.name not in gone:
            (packages / entry.name).symlink_to(entry)
    return directory / "bin" / "python"


@pytest.mark.parametrize(("made", "remedy"), [(True, "type 'deactivate', or call "), (False, "type 'make train'")])
def test_another_environment_without_the_packages_is_told_to_go(made, remedy, suite, tmp_path):
    venv.create(tmp_path / "other", symlinks=True, with_pip=False)
    python = project_python(suite) if made else ""
    line = told(run(tmp_path / "other" / "bin" / "python", suite), 2)
    assert f"train-atari.py: {', '.join(REQUIRED)} not installed in {tmp_path / 'other'}: " in line
    assert f"{remedy}{python}" in line


def test_a_project_environment_that_does_not_run(suite):
    project_python(suite).chmod(0o644)
    assert "does not run (Permission denied): delete .venv" in told(run(BASE, suite, options=NO_SITE), 2)


def test_a_project_environment_that_lost_its_configuration_is_entered_once(suite):
    python = suite / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(BASE)
    assert "NoSuchGame" in (line := told(run(BASE, suite, *GAME, options=NO_SITE), 2)) or "not installed" in line


@pytest.mark.long
@pytest.mark.parametrize("package", [*REQUIRED, "packaging"])
def test_each_missing_package_is_told_by_the_doctor_and_before_a_training(package, suite, tmp_path):
    python = environment(tmp_path / "environment", package)
    done = run(python, suite, "--task", "doctor", COLUMNS="300")
    assert "checks failed (packages)" in told(done, 1)
    assert f"{package} is not installed" in done.stdout
    assert "-m pip install '" + package in done.stdout
    if package != "packaging":  # only the doctor needs it
        assert f"train-atari.py: {package} not installed in " in told(run(python, suite), 2)


@pytest.mark.long
@pytest.mark.parametrize(("package", "needed_by"), [("absl-py", "tensorflow"), ("protobuf", "tensorboard")])
def test_what_a_package_needs_is_told_if_it_is_missing(package, needed_by, suite, tmp_path):
    python = environment(tmp_path / "environment", package)
    done = run(python, suite, "--task", "doctor", COLUMNS="300")
    assert "packages" in told(done, 1)
    assert f"{needed_by} needs {package}" in done.stdout
    assert "tensorflow: No module named" in done.stdout or "tensorboard: No module named" in done.stdout
    line = told(run(python, suite, *GAME, "--task", "train"), 2)  # the game is refused first
    assert "NoSuchGame" in line
    line = told(run(python, suite), 1)
    assert "a package cannot be loaded: No module named" in line
    assert "--task doctor" in line


@pytest.mark.long
@pytest.mark.parametrize(
    ("package", "text", "problem"),
    [
        ("numpy", "def", "invalid syntax"),
        ("psutil", "raise OSError('libx.so: cannot open shared object file')", "psutil: libx.so: cannot open"),
        ("pyzmq", "raise ImportError('undefined symbol')", "pyzmq: undefined symbol"),
        ("packaging", "raise ImportError", "cannot import name"),
        ("tensorflow", "raise RuntimeError('built for another processor')", "tensorflow: built for another"),
    ],
)
def test_a_broken_package_is_told_by_the_doctor(package, text, problem, suite, tmp_path):
    python = environment(tmp_path / "environment")
    (packages,) = (tmp_path / "environment").glob("lib/python*/site-packages")
    module = packages / checks.module_of(package)
    module.unlink()
    module.mkdir()
    (module / "__init__.py").write_text(text)
    done = run(python, suite, "--task", "doctor", COLUMNS="300")
    assert "(imports)" in told(done, 1)
    assert problem in done.stdout or package == "packaging"
    assert "a package cannot be loaded: " in done.stdout
    if package != "packaging":
        assert "a package cannot be loaded: " in told(run(python, suite), 1)


# What is printed, and to whom


def shell(command: str, **env: str) -> subprocess.CompletedProcess:
    """Have a shell run a command, in which ``$run`` is the suite's; its status is the last failure in a pipe."""
    script = f"set -o pipefail; run='{sys.executable} {SCRIPT}'; {command}"
    options = {"capture_output": True, "text": True, "timeout": 120}
    return subprocess.run(["bash", "-c", script], env={**os.environ, **env}, check=False, **options)


@pytest.fixture
def a_run(tmp_path):
    """A run that can be drawn, where there is no picture yet."""
    (tmp_path / "config.json").write_text(Config(env="Pong-v0").as_json())
    (tmp_path / "stats.json").write_text(json.dumps([{"steps": 1000, "entropy": 1.5}]))
    return tmp_path


MODEL = SCRIPT.parent / "models" / "Pong-v0.npz"


@pytest.mark.long
@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_it_works_with_closed_streams(a_run, closed):
    done = shell(f"$run --task plot --output {a_run} {closed}")
    assert done.returncode == 0, done
    assert (a_run / "learning_curve.png").exists()
    assert done.stdout == ("" if ">&-" in closed.split() else f"written to {a_run}/learning_curve.png\n")
    assert done.stderr == ""


@pytest.mark.long
def test_tensorflow_is_loaded_with_closed_streams(tmp_path):
    variables = read_model(str(MODEL)).variables
    with tf.Graph().as_default(), tfv1.Session() as session:
        for name, value in variables.items():
            tfv1.get_variable(name, initializer=value)
        session.run(tfv1.global_variables_initializer())
        tfv1.train.Saver().save(session, str(tmp_path / "model"), 8)
    (tmp_path / "config.json").write_text(Config(env="Pong-v0", network="small").as_json())
    done = shell(f"$run --task info --load {tmp_path} <&- 2>&-")
    assert done.returncode == 0
    assert "Pong-v0" in done.stdout


def test_a_model_file_is_read_without_tensorflow():
    code = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location("train_atari", {str(SCRIPT)!r})
script = importlib.util.module_from_spec(spec)
spec.loader.exec_module(script)
from a3c.flags import parse_args
script.run(parse_args(["--task", "info", "--load", {str(MODEL)!r}]), None)
print(sorted(name for name in sys.modules if name.startswith(("tensorflow", "tensorpack", "a3c.learning"))))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Pong-v0" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


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


@pytest.mark.long
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


@pytest.mark.long
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
