#!/usr/bin/env python3
"""Train, watch, score and record A3C agents on Atari games.

    ./train-atari.py --env Breakout-v0 --gpu 0
    ./train-atari.py --task play --load Breakout-v0.npz
    ./train-atari.py --task dump_video --load Breakout-v0.npz --output output_dir --episode 3
    ./train-atari.py --task eval --load Breakout-v0.npz --episode 100
    ./train-atari.py --task info --load Breakout-v0.npz
    ./train-atari.py --task plot --output train_log/one train_log/another
    ./train-atari.py --task doctor

Typed without an active environment it runs in the project's own, .venv, which `make train` and `make test` create;
conda's counts as active if it has the packages.
"""

import contextlib
import os
import signal
import sys
import tempfile
from pathlib import Path

from a3c.doctor.checks import absent
from a3c.system import clock as running_clock  # noqa: F401  it counts from here on
from a3c.system.machine import packages_told, quiet_stderr
from a3c.system.stopping import StoppedError, StopRequest

HERE = Path(__file__).resolve().parent
PYTHON = HERE / ".venv" / "bin" / "python"
INSTALLED = HERE / ".venv" / "installed"  # make's mark


def enter_environment() -> None:
    """Go on in the project's .venv if no environment is active, or one of conda's without the packages."""
    if sys.platform == "win32":
        fail("Windows is not supported: use Linux, or the Windows Subsystem for Linux")
    outside = sys.prefix == sys.base_prefix and not (conda_is_active() and not absent())
    if outside and PYTHON.exists() and Path(sys.executable) != PYTHON:
        try:
            os.execv(PYTHON, [str(PYTHON), *sys.argv])
        except OSError as error:
            fail(f"{PYTHON} does not run ({error.strerror}): delete .venv and type 'make train' in {HERE}")
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        here = ".".join(map(str, sys.version_info[:3]))
        remedy = f"{'delete .venv and ' if is_ours() else ''}type 'make train PYTHON=python3.13' in {HERE}"
        fail(f"Python 3.11, 3.12 or 3.13 is needed, this is {here}: {remedy}")


def is_ours() -> bool:
    """Whether this Python is that of the project's .venv."""
    return PYTHON.exists() and PYTHON.parents[1].samefile(sys.prefix)


def is_installed() -> bool:
    """Whether make has nothing to install in .venv."""
    return INSTALLED.exists() and INSTALLED.stat().st_mtime >= (HERE / "requirements.txt").stat().st_mtime


def conda_is_active() -> bool:
    """Whether this Python is that of conda's active environment."""
    prefix = os.environ.get("CONDA_PREFIX")
    return bool(prefix) and os.path.realpath(prefix) == os.path.realpath(sys.prefix)


def require_packages() -> None:
    """Say what to type if packages are missing."""
    if missing := absent():
        remedy = f"type 'make train' in {HERE}"
        if is_ours() and is_installed():  # they are of a Python that was replaced, and make does not see that
            remedy = f"delete .venv and {remedy}"
        elif PYTHON.exists() and not is_ours():
            remedy = f"type 'deactivate', or call {PYTHON} {sys.argv[0]}"
        fail(f"{', '.join(missing)} not installed in {sys.prefix}: {remedy}")


def fail(message: str, status: int = 2) -> None:
    """Tell an error in one line and leave."""
    with contextlib.suppress(OSError):
        print(f"train-atari.py: {message}", file=sys.stderr)
    sys.exit(status)


def open_streams() -> None:
    """Open those of standard input, output and error that are closed on nothing: else other files take their places."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for descriptor, (name, mode) in enumerate({"stdin": "r", "stdout": "w", "stderr": "w"}.items()):
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, mode, closefd=False))  # noqa: SIM115  it stays


def write_output(text: str = "") -> None:
    """Print, and write all that was printed; where that fails leave, quietly if the reader has left (``| head``)."""
    try:
        print(text, end="", flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if isinstance(error, BrokenPipeError):
            sys.exit(128 + signal.SIGPIPE)
        fail(f"the output cannot be written: {error.strerror}", status=1)


def main(stop: StopRequest) -> None:
    from a3c.errors import RunError, UsageError
    from a3c.flags import parse_args

    try:
        run(parse_args(), stop)
    except UsageError as error:
        fail(str(error))
    except RunError as error:
        fail(str(error), status=1)
    except StoppedError:
        pass
    sys.exit(stop.exit_status)


def run(config, stop: StopRequest) -> None:
    if config.task == "doctor":
        from a3c.doctor import report as doctor

        doctor.run(config, quiet=quiet_stderr)
        return
    require_packages()
    if config.task == "plot":
        with packages_told():
            from a3c.reports.curves import plot_runs
        print(f"written to {plot_runs([Path(run) for run in config.output])}")
        return
    check_temporary(simulates=config.task in ("train", "eval") or (config.task == "play" and config.watch is None))
    if config.env:
        with packages_told():
            from atari_wrapper import get_protocol
        get_protocol(config.env)  # a wrong one is told before TensorFlow is loaded, which takes seconds
    if config.task == "info":
        with packages_told():
            from a3c.weights.metadata import describe
            from a3c.weights.model_file import read_model
            from a3c.weights.paths import expand
        print("\n\n".join(describe(read_model(path)) for path in expand(config.load)))
        return
    with packages_told(), quiet_stderr():
        if config.task == "train":
            from a3c.learning.learner import train as run_task
        else:
            from common import TASKS

            run_task = TASKS[config.task]
    stop.defer()
    run_task(config, stop)


def check_temporary(simulates: bool) -> None:
    """Raise UsageError if TensorFlow has no directory for temporary files, or simulators have none for sockets."""
    from a3c.doctor import checks
    from a3c.errors import UsageError

    try:
        tempfile.gettempdir()
    except FileNotFoundError as error:
        raise UsageError(f"{error.strerror}: export TMPDIR=DIRECTORY, one that can be written") from None
    if not simulates:
        return
    with packages_told():
        sockets = checks.sockets()
    if sockets.status == checks.FAIL:
        raise UsageError(f"the simulators' sockets {sockets.found}: {sockets.remedy}")


if __name__ == "__main__":
    open_streams()
    stop_request = StopRequest()
    stop_request.listen()
    enter_environment()
    try:
        main(stop_request)
    except SystemExit:
        write_output()
        raise
    except OSError:
        write_output("\n")  # it fails again if it was the output that failed
        raise
