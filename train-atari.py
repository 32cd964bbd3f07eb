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

import contextlib
import importlib.util
import os
import signal
import sys
import tempfile
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
    from config import RunError, UsageError
    from flags import parse_args

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
    if config.task == "plot":
        from curves import plot_runs

        print(f"written to {plot_runs([Path(run) for run in config.output])}")
        return
    from machine import quiet_stderr

    if config.task == "doctor":
        import doctor

        doctor.run(config, quiet=quiet_stderr)
        return
    check_temporary(simulates=config.task in ("train", "eval") or (config.task == "play" and config.watch is None))
    if config.env:
        from atari_wrapper import get_protocol

        get_protocol(config.env)  # a wrong one is told before TensorFlow is loaded, which takes seconds
    with quiet_stderr():
        import tasks
    stop.defer()
    tasks.TASKS[config.task](config, stop)


def check_temporary(simulates: bool) -> None:
    """Raise UsageError if TensorFlow has no directory for temporary files, or simulators have none for sockets."""
    import checks
    from config import UsageError

    try:
        tempfile.gettempdir()
    except FileNotFoundError as error:
        raise UsageError(f"{error.strerror}: export TMPDIR=DIRECTORY, one that can be written") from None
    if simulates and (sockets := checks.sockets()).status == checks.FAIL:
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
