"""Runs of the command line, and who of them is alive."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_MARK = "TRAIN_ATARI_RUN"
_POLL_S = 0.02
_READ_S = 5.0
_STOP_S = 60.0
launch = subprocess.Popen  # how ``start`` does it; the tests take a ``Zygote`` for it
_started: list[Run] = []
# A training that is quick to start, and its short epochs.
SHORT = ("--num-envs", "4", "--simulator-proc", "2", "--local-time-max", "16", "--pool-states", "256",
         "--batch-size", "64", "--eval-every", "0")  # fmt: skip


class Run:
    """A run of the command line. What it prints is read all the time, so that it never waits for a reader.

    Attributes:
        process: its first process.
    """

    def __init__(self, process: subprocess.Popen, mark: str):
        """``mark``: what all its descendants inherit in their environment."""
        self.process = process
        self._mark = mark
        self._lines: deque[str] = deque()
        self._printed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # a terminal that is gone
            for line in self.process.stdout or ():
                with self._printed:
                    self._lines.append(line)
                    self._printed.notify_all()

    def finish(self, timeout_s: float = 180) -> str:
        """Wait for its end; return what it has printed that was not read before.

        Raises:
            AssertionError: it does not end in time, with all that it printed; it is killed.
        """
        ended = True
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            ended = False
        finally:
            self.process.kill()
            self._reader.join(_READ_S)
        out = "".join(self._lines)
        assert ended, f"no end within {timeout_s:g} s:\n{out}"
        return out

    def read_until(self, text: str, timeout_s: float = 120) -> str:
        """Wait for a line that has this in it; return all up to there. Raises AssertionError if it does not come."""
        read: list[str] = []
        deadline = time.monotonic() + timeout_s
        while not read or text not in read[-1]:
            with self._printed:
                self._printed.wait_for(lambda: self._lines, 0.1)
                if self._lines:
                    read.append(self._lines.popleft())
                    continue
            assert self._reader.is_alive(), f"{text!r} was not printed:\n{''.join(read)}"
            assert time.monotonic() < deadline, f"{text!r} was not printed in {timeout_s} s:\n{''.join(read)}"
        return "".join(read)

    def discard(self) -> None:
        """Forget what was printed so far."""
        with self._printed:
            self._lines.clear()

    def alive(self) -> list[int]:
        """Processes of this run that are alive, the first one included."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                try:
                    state, _, _, session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
                    ours = int(session) == self.process.pid or self._mark.encode() in (entry / "environ").read_bytes()
                    if ours and state != "Z":
                        found.append(int(entry.name))
                except (OSError, IndexError):
                    continue
        return sorted(found)

    def simulators(self) -> list[int]:
        """Those of them that play."""
        return [pid for pid in self.alive() if b"simulator" in _parents_command(pid)]

    def wait_all_gone(self, timeout_s: float) -> bool:
        """Wait until none is alive; tell whether that came within the time."""
        deadline = time.monotonic() + timeout_s
        while self.alive():
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        return True


def _parents_command(pid: int) -> list[bytes]:
    try:
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        return Path(f"/proc/{parent}/cmdline").read_bytes().split(b"\0")
    except (OSError, IndexError):
        return []


def start(*args: str, script: str = "train-atari.py", **options) -> Run:
    """Start the command line; ``env`` among the options adds to the environment, the others are ``Popen``'s."""
    mark = uuid.uuid4().hex
    environment = {**os.environ, _MARK: mark, **options.pop("env", {})}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "start_new_session": True,
               "preexec_fn": begin_session} | options  # fmt: skip
    _started.append(Run(launch([sys.executable, str(ROOT / script), *args], env=environment, **options), mark))
    return _started[-1]


@contextlib.contextmanager
def ended(training: subprocess.Popen) -> Iterator[None]:
    """End a training with the block, saved. A terminal's Ctrl-C it hears as we do: a second one would lose the save."""
    try:
        yield
    except KeyboardInterrupt:
        with contextlib.suppress(subprocess.TimeoutExpired):
            training.wait(_STOP_S)
        raise
    finally:
        if training.poll() is None:
            training.send_signal(signal.SIGINT)
            training.wait(_STOP_S)


def kill_started() -> None:
    """Kill what ``start`` has started and what still runs."""
    for run in _started:
        run.process.kill()
    _started.clear()


def run(*args: str, status: int = 0, script: str = "train-atari.py", **env: str) -> str:
    """Run the command line to its end; check its exit status, and that no process of it is left."""
    started = start(*args, script=script, env=env)
    out = started.finish()
    assert started.process.returncode == status, out
    assert started.wait_all_gone(3), "a process was left behind"
    return out


def begin_session() -> None:
    """Before exec, in a session of its own: a terminal to read from is the session's, and signals are heard as there.

    A shell that has started us in the background would have them ignored.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    if os.isatty(0):
        os.close(os.open(os.ttyname(0), os.O_RDWR))  # the first one that a session's leader opens


def stats(output: Path) -> list[dict]:
    """A run's ``stats.json``."""
    return json.loads((output / "stats.json").read_text())
