"""Helper processes: modules of ours that run as programs, and die with the process that started them.

    python -m a3c.system.processes PARENT_PID MODULE [ARGUMENT ...]

is what ``start_program`` runs: it sees to its end first, and is the module's ``__main__`` from then on.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

_LOWEST = 19  # priority
# The numerical libraries' threads, in the environment of a program that works on one core.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def start_program(
    module: str, *arguments: object, env: Mapping[str, str] | None = None, stdin: int = subprocess.DEVNULL, **options
) -> subprocess.Popen:
    """Start a module as a program, which the kernel kills when the thread that starts it ends, however that happens.

    It finds the modules that we find, and none of the working directory's (``-P``). It has a session of its own: Ctrl-C
    and a closed terminal reach us only.

    Args:
        module: its name.
        arguments: what it finds in ``sys.argv``, as texts.
        env: variables that are added to our environment.
        stdin: what it reads; nothing by default.
        options: others of ``subprocess.Popen``.
    """
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "a3c.system.processes", str(os.getpid()), module, *map(str, arguments)],
        env={**os.environ, **(env or {}), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdin=stdin,
        start_new_session=True,
        **options,
    )


def wait_or_kill(process: subprocess.Popen, timeout_s: float) -> None:
    """Wait for the end of a program that was told to end; kill it if that does not come within the time."""
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def give_way() -> None:
    """Take the lowest priority; also where the kernel shares cores among sessions, whose processes it then weighs."""
    os.nice(_LOWEST)
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(_LOWEST))  # sched(7), the autogroup feature


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent's thread that made it ends; end now if it already has."""
    try:
        import prctl

        prctl.set_pdeathsig(signal.SIGKILL)
    except (ImportError, AttributeError):  # there is none, or something else has its name
        pr_set_pdeathsig = 1
        if ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed") from None
    if os.getppid() != parent_pid:
        os._exit(1)


if __name__ == "__main__":
    die_with_parent(int(sys.argv[1]))
    sys.argv = sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
