#!/usr/bin/env python3
"""Train, watch, score and record A3C agents on Atari games.

    ./train-atari.py --env Breakout-v0 --gpu 0
    ./train-atari.py --task play --load Breakout-v0.npz
    ./train-atari.py --task dump_video --load Breakout-v0.npz --output output_dir --episode 3
    ./train-atari.py --task eval --load Breakout-v0.npz --episode 100
    ./train-atari.py --task info --load Breakout-v0.npz
    ./train-atari.py --task plot --output train_log/one train_log/another
    ./train-atari.py --task doctor

Typed without an active environment it runs in the project's own, .venv, which `make train` and `make test` create.
"""

import importlib.util
import os
import sys
from pathlib import Path

from stopping import StoppedError, StopRequest

HERE = Path(__file__).resolve().parent


def enter_environment() -> None:
    """Go on in the project's .venv if no environment is active; say what to type if the packages are missing."""
    if sys.platform == "win32":
        fail("Windows is not supported: use Linux, or the Windows Subsystem for Linux")
    python = HERE / ".venv" / "bin" / "python"
    if sys.prefix == sys.base_prefix and python.exists():
        os.execv(python, [str(python), *sys.argv])
    if sys.version_info < (3, 11):
        fail(f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}: type 'make train' in {HERE}")
    missing = [name for name in ("ale_py", "tensorflow", "tensorpack", "zmq") if not importlib.util.find_spec(name)]
    if missing:
        fail(f"{', '.join(missing)} not installed: type 'make train' in {HERE}")


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
    if config.task == "plot":
        from curves import plot_runs

        print(f"written to {plot_runs([Path(run) for run in config.output])}")
        return
    from machine import quiet_stderr

    if config.task == "doctor":
        import doctor

        doctor.run(config, quiet=quiet_stderr)
        return
    if config.env:
        from atari_wrapper import get_protocol

        get_protocol(config.env)  # a wrong one is told before TensorFlow is loaded, which takes seconds
    with quiet_stderr():
        import tasks
    stop.defer()
    tasks.TASKS[config.task](config, stop)


if __name__ == "__main__":
    stop_request = StopRequest()
    stop_request.listen()
    enter_environment()
    main(stop_request)
