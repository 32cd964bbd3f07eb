"""The learner's end of the transport: it receives steps, sends actions, and replaces simulators that died.

The sockets are files in a directory that only this user can enter; one that a killed run has left behind is removed by
the next. Each life of a simulator has a number of its own, and what an ended life still had under way is dropped.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import logging
import os
import tempfile
import time
from pathlib import Path
from typing import IO

from a3c.errors import RunError, UsageError
from a3c.seeds import Purpose, Seeds
from a3c.simulation.messages import (
    ATARI_PLAYER,
    MessageError,
    SimulatorSpec,
    StepBlock,
    decode,
    identity,
    max_part_bytes,
)
from a3c.simulation.nursery import LOST, Nursery
from a3c.simulation.remote import RemoteWire
from a3c.system.clock import running_s

import numpy as np
import zmq

_LOOK_EVERY_S = 0.1
_FAILED_STARTS = 3
_TELL_EVERY_S = 60.0  # of simulators that do not reach the learner
_START_STEPS = 3  # steps' time that a start may take: it makes the games, beside all the others' starts
_CONNECT_TIMEOUT_S = 10.0
_ROUTER_MESSAGE_BYTES = 256  # enough for the handshake
DIRECTORY_PREFIX = "train-atari-sockets-"
_UNLOCKED_PREFIX = "train-atari-starts-"
_LOCK = "lock"
_SOCKETS = _STEPS, _ACTIONS = "steps", "actions"
_log = logging.getLogger(__name__)


class SimulatorError(RunError):
    """A simulator failed in a way that a new one would too; the text holds its traceback."""


class SimulatorClosedError(Exception):
    """A simulator left of its own accord: its window was closed."""


class SimulatorMaster:
    """The learner's end of the transport: receives steps, sends actions, replaces simulators that died.

    ``receive`` is called by one thread and ``send`` by one thread, which may be two: each owns one socket.
    """

    def __init__(
        self,
        nursery: Nursery,
        envs_per_simulator: tuple[int, ...],
        player_args: dict,
        player: str = ATARI_PLAYER,
        seeds: Seeds | None = None,
        step_timeout_s: float = 60.0,
        lives_before: int = 0,
        wire: RemoteWire | None = None,
    ):
        """Start the simulators.

        Args:
            nursery: forks them; no other master may use it, and ``close`` closes it.
            envs_per_simulator: how many games each simulator plays.
            player_args: keyword arguments of ``player``, such as ``{"env_id": "Pong-v0"}``.
            player: ``module:function`` that makes one game, as in ``SimulatorSpec``.
            seeds: of the games; by default those of a training with ``--seed 0``.
            step_timeout_s: a simulator that takes longer for a step, or three times as long to start and make its
                first one, is killed and replaced.
            lives_before: lives of simulators that the run has had before it was resumed.
            wire: where the simulators are on other machines, how they reach this one.
        """
        self.envs_per_simulator = envs_per_simulator
        self.malformed_messages = 0
        self.restarts = 0
        self._nursery = nursery
        self._player, self._player_args = player, player_args
        self._seeds = seeds or Seeds(0, Purpose.TRAINING_GAMES)
        self._step_timeout_s = step_timeout_s
        _remove_directories_left_behind()
        self._directory, self._lock = _make_directory()
        self._context = zmq.Context()
        self._wire = wire
        if wire is not None:
            wire.open(self._context)
        self._pull = self._context.socket(zmq.PULL)
        self._pull.setsockopt(zmq.RCVHWM, 2)
        self._pull.setsockopt(zmq.MAXMSGSIZE, max_part_bytes(envs_per_simulator))
        self._bind(self._pull, _STEPS)
        self._router = self._context.socket(zmq.ROUTER)
        self._router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._router.setsockopt(zmq.SNDTIMEO, 100)
        self._router.setsockopt(zmq.RCVHWM, 1)  # nobody has anything to say there
        self._router.setsockopt(zmq.MAXMSGSIZE, _ROUTER_MESSAGE_BYTES)
        self._bind(self._router, _ACTIONS)
        self._address = self._directory if wire is None else wire.address
        simulators = len(envs_per_simulator)
        self._next_look = 0.0
        self.lives = lives_before
        self._life = [0] * simulators  # the current one of each simulator
        self._previous_life = [0] * simulators
        self._next_sequence = [0] * simulators
        self._sent = [(0, 0)] * simulators  # the life that was sent actions last, and how often
        self._failed_starts = [0] * simulators
        self._next_told_s = 0.0
        self._unreached = [0] * simulators  # starts on a host that is there, without a way from it to here
        # Time spent in ``receive``, as far as it looked: what it had no chance to see is nobody's delay.
        self._looked_s, self._looked_at = 0.0, time.monotonic()
        self._owing = [(0, 0, 0.0)] * simulators  # the life and step that is waited for, and since when
        try:
            for index in range(simulators):
                self._spawn(index)
        except RunError:
            self.close()
            raise

    def _bind(self, socket: zmq.Socket, name: str) -> None:
        try:
            if self._wire is not None:
                return self._wire.bind(socket, name)
            socket.bind(f"ipc://{self._directory}/{name}")
        except UsageError:
            self.close()
            raise
        except zmq.ZMQError as error:
            self.close()
            raise UsageError(
                f"a socket cannot be made in {self._directory} ({os.strerror(error.errno)}): export TMPDIR=/tmp"
            ) from None

    def _spawn(self, index: int) -> None:
        self.lives += 1
        self._previous_life[index], self._life[index] = self._life[index], self.lives
        self._next_sequence[index] = 0
        seed = self._seeds.of_life(self.lives)
        spec = SimulatorSpec(
            index, self.lives, seed, self.envs_per_simulator[index], self._address, self._player, self._player_args
        )
        self._nursery.spawn(dataclasses.asdict(spec))

    def receive(self, timeout_s: float) -> StepBlock | None:
        """Wait for the next step of any simulator.

        Args:
            timeout_s: seconds to wait at most.

        Returns:
            The step, or None when the time is over. ``sequence`` 0 marks the first step of a new life: what is
            known of the simulator's games from before it is void.

        Raises:
            SimulatorError: a simulator told its failure, or ended several times before its first step.
            SimulatorClosedError: a simulator's window was closed.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            now = time.monotonic()
            if now >= self._next_look:  # by the clock: with busy simulators there is always a step
                self.replace_dead()
                self._kill_hung(now)
                self._next_look = now + _LOOK_EVERY_S
            self._pull.setsockopt(zmq.RCVTIMEO, int(1000 * max(0.0, min(deadline - now, _LOOK_EVERY_S))))
            try:
                block = self._decode(self._pull.recv_multipart(copy=False))
            except zmq.Again:
                self._next_look, block = now, None
            if block is not None or now >= deadline:
                return block

    def _decode(self, message: list[zmq.Frame]) -> StepBlock | None:
        try:
            decoded = decode(
                [frame.buffer for frame in message], self.envs_per_simulator, self._wire and self._wire.unpack
            )
        except MessageError as error:
            return self._refuse(str(error))
        index, life = decoded[:2]
        if not isinstance(decoded, StepBlock):
            if life not in (self._life[index], self._previous_life[index]):  # the news of its end can have overtaken it
                return self._refuse(f"last words of a life {life} of simulator {index} that is not known")
            raise SimulatorError(f"simulator {index} fails:\n{decoded[2]}")
        if life != self._life[index]:  # what a life that ended had under way
            return None
        if decoded.sequence != self._next_sequence[index]:
            return self._refuse(f"step {decoded.sequence} of simulator {index} out of turn")
        self._next_sequence[index] += 1
        self._failed_starts[index] = self._unreached[index] = 0
        return decoded

    def _refuse(self, reason: str) -> None:
        self.malformed_messages += 1
        if self.malformed_messages.bit_count() == 1:  # the 1st, 2nd, 4th, 8th ...
            _log.warning("%d messages refused so far, the last one because: %s", self.malformed_messages, reason)

    def replace_dead(self) -> None:
        """Start a new life for each simulator that ended; ``receive`` does it too. Raises as that does."""
        for index, life, status in self._nursery.exits():
            if life != self._life[index]:
                continue
            if self._next_sequence[index] == 0 and status != LOST:
                self._failed_starts[index] += 1
            if status == 0:
                raise SimulatorClosedError
            if self._failed_starts[index] >= _FAILED_STARTS:
                raise SimulatorError(
                    f"simulator {index} fails: {_FAILED_STARTS} times in a row it ended before its first step, the "
                    f"last time with status {status} and without a traceback"
                )
            self.restarts += 1
            if status != LOST:
                _log.warning("simulator %d ended with status %d: a new one takes its place", index, status)
            elif self._next_sequence[index] == 0 and not self._nursery.waits(index):  # else that is news of its host
                self._tell_unreached(index)
            self._spawn(index)

    def _tell_unreached(self, index: int) -> None:
        self._unreached[index] += 1
        now = running_s()
        if self._unreached[index] == _FAILED_STARTS and now > self._next_told_s:
            self._next_told_s = now + _TELL_EVERY_S
            _log.warning("simulator %d was started %d times, and did not reach the learner at %s: let the hosts in "
                         "through the firewall, or name with --listen an address that they reach",
                         index, _FAILED_STARTS, self._wire and self._wire.listen)  # fmt: skip

    @property
    def hosts_away(self) -> bool:
        """Whether no simulator has a host that is there: all wait, which is nobody's delay. Any thread may ask."""
        return all(map(self._nursery.waits, range(len(self.envs_per_simulator))))

    def _kill_hung(self, now: float) -> None:
        self._looked_s += min(now - self._looked_at, 2 * _LOOK_EVERY_S)
        self._looked_at = now
        for index, (life, sequence) in enumerate(zip(self._life, self._next_sequence, strict=True)):
            sent_life, sent = self._sent[index]
            timeout_s = self._step_timeout_s * (1 if sequence else _START_STEPS)
            if sequence != (sent if sent_life == life else 0) or self._nursery.waits(index):
                self._owing[index] = (life, -1, self._looked_s)  # it waits for actions, or its host is away
            elif self._owing[index][:2] != (life, sequence):
                self._owing[index] = (life, sequence, self._looked_s)
            elif self._looked_s - self._owing[index][2] > timeout_s:
                _log.warning("simulator %d has made no step for %g s: killed", index, timeout_s)
                self._nursery.kill(index)
                self._owing[index] = (life, sequence, self._looked_s)

    def send(self, index: int, life: int, actions: np.ndarray) -> None:
        """Send the actions of one simulator's games, int8 ``[E]``; silently to nobody if that life has ended."""
        deadline = running_s() + _CONNECT_TIMEOUT_S
        while self._life[index] == life:
            try:
                self._router.send_multipart([identity(index, life), actions.tobytes()])
                sent_life, sent = self._sent[index]
                self._sent[index] = (life, sent + 1 if sent_life == life else 1)
                return
            except zmq.ZMQError as error:
                if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                    raise
                # A new life's first step can be here before its other socket has connected; later it has died.
                if self._sent[index][0] == life or running_s() > deadline:
                    return
                time.sleep(0.001)

    def at_play(self) -> set[tuple[int, int]]:
        """The simulators whose present life has made a step, each with that life; by the thread that receives."""
        lives = enumerate(zip(self._life, self._next_sequence, strict=True))
        return {(index, life) for index, (life, sequence) in lives if sequence}

    def close(self) -> None:
        """Kill the simulators, close the sockets and remove their directory. No other thread may still use it."""
        self._nursery.close()
        if self._wire is not None:
            self._wire.close()
        self._context.destroy(linger=0)
        _remove_directory(Path(self._directory))
        self._lock.close()


def _make_directory() -> tuple[str, IO]:
    """A directory for sockets that only this user can enter, and its lock, which the kernel frees when we end.

    It gets the name by which others find it when it is locked: until then none of them takes it for one left behind.

    Raises:
        UsageError: there is no room for it, or its name is too long.
    """
    try:
        unlocked = tempfile.mkdtemp(prefix=_UNLOCKED_PREFIX)  # mode 0700
        lock = open(os.path.join(unlocked, _LOCK), "xb")  # noqa: SIM115  it is held
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        parent, name = os.path.split(unlocked)
        directory = os.path.join(parent, DIRECTORY_PREFIX + name.removeprefix(_UNLOCKED_PREFIX))
        os.rename(unlocked, directory)
    except OSError as error:
        raise UsageError(
            f"no directory for sockets can be made ({error.strerror or error}): export TMPDIR=/tmp"
        ) from None
    return directory, lock


def _remove_directories_left_behind() -> None:
    for path in Path(tempfile.gettempdir()).glob(f"{DIRECTORY_PREFIX}*/{_LOCK}"):
        with contextlib.suppress(OSError), open(path, "r+b") as lock:  # else another user's, or a run's that is alive
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove_directory(path.parent)


def _remove_directory(directory: Path) -> None:
    """Remove a directory of sockets, unless somebody else has put something there."""
    with contextlib.suppress(OSError):
        for name in (*_SOCKETS, _LOCK):
            (directory / name).unlink(missing_ok=True)
        directory.rmdir()
