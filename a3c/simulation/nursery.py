"""The nursery: a small clean process that forks simulators, and with whom they all die.

Forking from the learner is not safe once TensorFlow has run. So the owner starts this file as a program of its own,
which imports the games once and forks a simulator whenever it is told to: fast, the imports' memory shared. It can be
started at any time, reports each simulator's end, and everyone in the chain owner -> nursery -> simulator is killed by
the kernel when the one before it dies, however that happens (prctl, PR_SET_PDEATHSIG).

    owner                     nursery                         simulators
    Nursery.spawn(spec) ----> fork ------------------------->  run_simulator(spec)
    Nursery.exits()     <---- waitpid, on SIGCHLD  <---------  exit

The two ends talk JSON over a socket pair that no other process has.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from typing import NamedTuple

from a3c.system.processes import ONE_THREAD, die_with_parent, start_program

_MESSAGE_BYTES = 1 << 16
_CLOSE_TIMEOUT_S = 5.0


class Exit(NamedTuple):
    """A simulator process that ended: its index, the life it was, and its status as ``subprocess`` counts it."""

    index: int
    life: int
    status: int


class Nursery:
    """The owner's end. One thread at a time calls its methods; the thread that makes it must outlive it."""

    def __init__(self):
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = start_program(
                "a3c.simulation.nursery", theirs.fileno(), pass_fds=[theirs.fileno()], env=ONE_THREAD
            )

    def fileno(self) -> int:
        """A descriptor that is readable when ``exits`` has something to tell."""
        return self._socket.fileno()

    def spawn(self, spec: dict) -> None:
        """Fork a simulator; ``spec`` holds the fields of ``messages.SimulatorSpec``."""
        self._socket.send(json.dumps({"spawn": spec}).encode())

    def kill(self, index: int) -> None:
        """Kill the simulator of this index, if it lives; its end is reported like any other."""
        self._socket.send(json.dumps({"kill": index}).encode())

    def exits(self) -> list[Exit]:
        """The simulators that ended since the last call; does not wait.

        Raises:
            RuntimeError: the nursery itself is gone.
        """
        found = []
        while select.select([self._socket], [], [], 0)[0]:
            packet = _receive(self._socket)
            if not packet:
                raise RuntimeError(f"the nursery of the simulators ended with status {self._process.wait()}")
            found.append(Exit(*json.loads(packet)))
        return found

    def close(self) -> None:
        """Kill all simulators and the nursery, and wait for its end."""
        self._socket.close()
        try:
            self._process.wait(_CLOSE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Nursery:
        return self

    def __exit__(self, *_):
        self.close()


def _receive(sock: socket.socket) -> bytes:
    try:
        return sock.recv(_MESSAGE_BYTES)
    except ConnectionResetError:  # the other end has closed, and had not read all
        return b""


def _serve(sock: socket.socket) -> None:
    from simulator import run_simulator  # imports the games: once, here, for all simulators

    children: dict[int, tuple[int, int]] = {}  # pid -> (index, life)
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_read, False)
    os.set_blocking(wake_write, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    nursery_pid = os.getpid()
    while True:
        ready, _, _ = select.select([sock, wake_read], [], [])
        if wake_read in ready:
            os.read(wake_read, 4096)
            while children:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    break
                with contextlib.suppress(BrokenPipeError):  # the owner is closing: the next packet is the end
                    sock.send(json.dumps([*children.pop(pid), os.waitstatus_to_exitcode(status)]).encode())
        if sock in ready:
            packet = _receive(sock)
            if not packet:
                break
            message = json.loads(packet)
            if "kill" in message:
                for pid, (index, _) in children.items():
                    if index == message["kill"]:
                        os.kill(pid, signal.SIGKILL)
                continue
            spec = message["spawn"]
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for descriptor in (sock.fileno(), wake_read, wake_write):
                    os.close(descriptor)
                sock.detach()
                status = 1
                try:
                    die_with_parent(nursery_pid)
                    run_simulator(spec)
                    status = 0
                finally:
                    sys.stdout.flush()
                    sys.stderr.flush()
                    os._exit(status)
            children[pid] = (spec["index"], spec["life"])
    for pid in children:
        os.kill(pid, signal.SIGKILL)
    for pid in children:
        os.waitpid(pid, 0)


if __name__ == "__main__":
    # A simulator that gets its actions does not interrupt another one in the middle of its step.
    with contextlib.suppress(OSError):  # where that is not allowed, it is only slower
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    _serve(socket.socket(fileno=int(sys.argv[1])))
