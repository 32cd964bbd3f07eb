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
import sys
from pathlib import Path

import running_clock  # noqa: F401  it counts from here on
from checks import absent
from stopping import StoppedError, StopRequest

HERE = Path(__file__).resolve().parent
PYTHON = HERE / ".venv" / "bin" / "python"


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
    if sys.version_info < (3, 11):
        fail(f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}: type 'make train' in {HERE}")


def conda_is_active() -> bool:
    """Whether this Python is that of conda's active environment."""
    prefix = os.environ.get("CONDA_PREFIX")
    return bool(prefix) and os.path.realpath(prefix) == os.path.realpath(sys.prefix)


def require_packages() -> None:
    """Say what to type if packages are missing."""
    if missing := absent():
        remedy = f"type 'make train' in {HERE}"
        if PYTHON.exists() and not PYTHON.parents[1].samefile(sys.prefix):
            remedy = f"type 'deactivate', or call {PYTHON} {sys.argv[0]}"
        fail(f"{', '.join(missing)} not installed in {sys.prefix}: {remedy}")


@contextlib.contextmanager
def packages_told():
    """Tell in one line of packages that are there and cannot be loaded: errors of many kinds."""
    from config import RunError, problem

    try:
        yield
    except Exception as error:
        text = f"a package cannot be loaded: {problem(error)}; ./train-atari.py --task doctor tells which"
        raise RunError(text) from error


def fail(message: str) -> None:
    """Tell a user's error in one line and leave."""
    print(f"train-atari.py: {message}", file=sys.stderr)
    sys.exit(2)


def main(stop: StopRequest) -> None:
    from config import RunError, UsageError
    from flags import parse_args

    try:
        run(parse_args(), stop)
    except UsageError as error:
        fail(str(error))
    except RunError as error:
        print(f"train-atari.py: {error}", file=sys.stderr)
        sys.exit(1)
    except StoppedError:
        pass
    sys.exit(stop.exit_status)


def run(config, stop: StopRequest) -> None:
    from machine import quiet_stderr

    if config.task == "doctor":
        import doctor

        doctor.run(config, quiet=quiet_stderr)
        return
    require_packages()
    if config.task == "plot":
        with packages_told():
            from curves import plot_runs
        print(f"written to {plot_runs([Path(run) for run in config.output])}")
        return
    if config.env:
        with packages_told():
            from atari_wrapper import get_protocol
        get_protocol(config.env)  # a wrong one is told before TensorFlow is loaded, which takes seconds
    with packages_told(), quiet_stderr():
        import tasks
    stop.defer()
    tasks.TASKS[config.task](config, stop)


if __name__ == "__main__":
    stop_request = StopRequest()
    stop_request.listen()
    enter_environment()
    main(stop_request)
