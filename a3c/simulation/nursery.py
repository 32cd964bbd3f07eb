"""The nursery: a small clean process that forks simulators, and with whom they all die.

Forking from the learner is not safe once TensorFlow has run. So the owner starts ``simulator.py`` as a program of its
own, the fork server. It imports the games once and forks a simulator whenever it is asked to: fast, the imports' memory
shared. It can be started at any time and reports each simulator's end. Everyone in the chain owner -> fork server ->
simulator is killed by the kernel when the one before dies, however that happens (prctl, PR_SET_PDEATHSIG).

    owner                     fork server                     simulators
    Nursery.spawn(spec) ----> fork ------------------------->  run_simulator(spec)
    Nursery.exits()     <---- waitpid, on SIGCHLD  <---------  exit

The two ends talk JSON over a socket pair that no other process has.
"""

from __future__ import annotations

import json
import select
import socket
from typing import NamedTuple, NoReturn

from a3c.errors import RunError
from a3c.system.processes import ONE_THREAD, start_program, wait_or_kill

_MESSAGE_BYTES = 1 << 16
_CLOSE_TIMEOUT_S = 5.0
LOST = 75  # status of a simulator that lost its connection or its host: no fault of its own (EX_TEMPFAIL)


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
            self._process = start_program("simulator", theirs.fileno(), pass_fds=[theirs.fileno()], env=ONE_THREAD)
        self._ended: list[Exit] = []  # read already, told by the next ``exits``

    def fileno(self) -> int:
        """A descriptor that is readable when ``exits`` has something to tell."""
        return self._socket.fileno()

    def spawn(self, spec: dict) -> None:
        """Fork a simulator; ``spec`` holds the fields of ``messages.SimulatorSpec``. Raises RunError as ``exits``."""
        self._send({"spawn": spec})

    def kill(self, index: int) -> None:
        """Kill the simulator of this index, if it lives; its end is reported like any other."""
        self._send({"kill": index})

    def waits(self, index: int) -> bool:
        """Whether this simulator could not be started yet, which is nobody's delay: its host is not there."""
        return False

    def exits(self) -> list[Exit]:
        """The simulators that ended since the last call; does not wait.

        Raises:
            RunError: the nursery itself is gone.
        """
        while select.select([self._socket], [], [], 0)[0]:
            self._read()
        found, self._ended = self._ended, []
        return found

    def _send(self, message: dict) -> None:
        """Send, and read meanwhile: the nursery that waits to tell of many ends would wait for ever."""
        packet = json.dumps(message).encode()
        while True:
            try:
                self._socket.send(packet, socket.MSG_DONTWAIT)
                return
            except BlockingIOError:
                if select.select([self._socket], [self._socket], [])[0]:
                    self._read()
            except (BrokenPipeError, ConnectionResetError):
                self._raise_end()

    def _read(self) -> None:
        packet = receive_packet(self._socket)
        if not packet:
            self._raise_end()
        self._ended.append(Exit(*json.loads(packet)))

    def _raise_end(self) -> NoReturn:
        raise RunError(f"the nursery of the simulators ended with status {self._process.wait()}")

    def close(self) -> None:
        """Kill all simulators and the nursery, and wait for its end."""
        self._socket.close()
        wait_or_kill(self._process, _CLOSE_TIMEOUT_S)

    def __enter__(self) -> Nursery:
        return self

    def __exit__(self, *_):
        self.close()


def receive_packet(sock: socket.socket) -> bytes:
    try:
        return sock.recv(_MESSAGE_BYTES)
    except ConnectionResetError:  # the other end has closed, and had not read all
        return b""
