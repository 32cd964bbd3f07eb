"""A process that has imported what a run needs, TensorFlow above all, and forks for each run: it begins at once.

What is forked runs the script from its first line, with its own arguments, environment, session and standard streams,
as one that the shell starts; only the imports are done already, and a game's frame statistics measured, which are the
same each time. A run that needs a function called before it is started the ordinary way.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench.command_line import ROOT, begin_session

_POLL_S = 0.01
_REQUEST_BYTES = 1 << 18
_NUMBER_BYTES = 4  # a process id, or an exit status
_START_S = 120.0


class Forked:
    """A run that a zygote forked, with as much of ``subprocess.Popen`` as the tests use."""

    def __init__(self, args: list[str], status: int, stdout: int | None):
        """``status``: read end of a pipe that brings the process id, and when it has ended its exit status."""
        self.args, self.returncode = args, None
        self.stdout = None if stdout is None else open(stdout, errors="replace")  # noqa: SIM115  it is read later
        self._status = status
        self.pid = self._read(_START_S)

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self.returncode = self._read(timeout)
            os.close(self._status)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _read(self, timeout: float | None) -> int:
        if not select.select([self._status], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(self.args, timeout)
        number = os.read(self._status, _NUMBER_BYTES)
        return int.from_bytes(number, "little", signed=True) if number else 1  # nothing: the zygote was killed


class Zygote:
    """Starts the process when it is first needed; it ends with the process that made it."""

    def __init__(self):
        self._socket: socket.socket | None = None

    def start(
        self, args: list[str], env: dict[str, str], preexec_fn: Callable | None = None, **options
    ) -> Forked | subprocess.Popen:
        """As ``subprocess.Popen`` of a Python script: ``args`` are the interpreter, the script and its arguments."""
        if preexec_fn is not begin_session:
            return subprocess.Popen(args, env=env, preexec_fn=preexec_fn, **options)
        if self._socket is None:
            self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                command = [sys.executable, "-m", "bench.zygote", str(theirs.fileno())]
                subprocess.run(command, cwd=ROOT, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, check=True)
        status, told = os.pipe()
        read, write = os.pipe() if options.get("stdout") == subprocess.PIPE else (None, None)
        out = write if write is not None else options.get("stdout", 1)
        error = out if options.get("stderr", subprocess.STDOUT) == subprocess.STDOUT else options["stderr"]
        request = {"argv": args[1:], "env": env, "cwd": str(options.get("cwd") or Path.cwd())}
        with open(os.devnull) as nothing:
            files = [options.get("stdin", nothing), out, error, told]
            descriptors = [file if isinstance(file, int) else file.fileno() for file in files]
            socket.send_fds(self._socket, [json.dumps(request).encode()], descriptors)
        for descriptor in (told, write):
            if descriptor is not None:
                os.close(descriptor)
        return Forked(args, status, read)


def main(requests: socket.socket) -> None:
    """Fork for each request until the other side has gone."""
    import common  # noqa: F401  here, as whoever asks needs no TensorFlow
    from a3c.config import DEFAULT_ENV
    from a3c.doctor import report  # noqa: F401
    from a3c.learning import learner

    learner.frame_statistics = functools.cache(learner.frame_statistics)
    learner.frame_statistics(DEFAULT_ENV, 0)
    gc.freeze()
    running: dict[int, int] = {}
    while True:
        if select.select([requests], [], [], _POLL_S if running else None)[0]:
            request, descriptors, _, _ = socket.recv_fds(requests, _REQUEST_BYTES, 4)
            if not request:
                return
            if (pid := os.fork()) == 0:
                requests.close()
                for descriptor in running.values():
                    os.close(descriptor)
                become(**json.loads(request), descriptors=descriptors)
                return
            *streams, status = descriptors
            for descriptor in streams:
                os.close(descriptor)
            running[pid] = status
            write_number(status, pid)
        for pid in list(running):
            ended, code = os.waitpid(pid, os.WNOHANG)
            if ended:
                status = running.pop(pid)
                with contextlib.suppress(BrokenPipeError):
                    write_number(status, os.waitstatus_to_exitcode(code))
                os.close(status)


def write_number(descriptor: int, number: int) -> None:
    os.write(descriptor, number.to_bytes(_NUMBER_BYTES, "little", signed=True))


def become(argv: list[str], env: dict[str, str], cwd: str, descriptors: list[int]) -> None:
    """Run a script in this process as if it had just been started."""
    os.setsid()
    for standard, descriptor in enumerate(descriptors[:3]):
        os.dup2(descriptor, standard)
    for descriptor in descriptors:
        os.close(descriptor)
    begin_session()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=stream.isatty() or stream is sys.stderr)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    tempfile.tempdir = None
    sys.argv = argv
    added = filter(None, env.get("PYTHONPATH", "").split(os.pathsep))
    sys.path[:1] = [str(Path(argv[0]).resolve().parent), *added]
    from a3c.system.clock import running_s

    running_s.__init__()  # a fork has no threads
    runpy.run_path(argv[0], run_name="__main__")


if __name__ == "__main__":
    if os.fork():  # it is no child of whoever asks, whose tests count theirs
        os._exit(0)
    main(socket.socket(fileno=int(sys.argv[1])))
