"""Strangers at the sockets, and all that they send: nothing of it is a step of a present life."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable

from a3c.simulation.messages import StepBlock, encode_failure, encode_step, identity, max_part_bytes

import msgpack
import numpy as np
import zmq

_STRANGER_EVERY, _CUT_OFF_EVERY = 10, 1_000
_FAR = 1_000  # no life or step of a trial has such a number
_NO_FIELD = (None, True, -1, 2**63, 1.5, float("nan"), "0", [0], {}, {"0": 0}, [[0]], msgpack.ExtType(1, b"x"))


@dataclasses.dataclass(frozen=True)
class Known:
    """What a stranger can know: a step that a simulator has already made, and an earlier life of that simulator."""

    step: StepBlock
    earlier_life: int

    def parts(self, **changes) -> list[bytes]:
        """The step's message, some of its fields changed."""
        return [bytes(part) for part in encode_step(self.step._replace(**changes))]

    def header(self) -> list:
        """The fields of that message's header."""
        return msgpack.unpackb(self.parts()[0])


def _random_bytes(rng: random.Random, known: Known) -> list[bytes]:
    return [rng.randbytes(rng.randrange(200)) for _ in range(rng.randrange(1, 5))]


def _cut_header(rng: random.Random, known: Known) -> list[bytes]:
    header, frames = known.parts()
    return [header[: rng.randrange(len(header))], frames]


def _cut_frames(rng: random.Random, known: Known) -> list[bytes]:
    header, frames = known.parts()
    return [header, frames[: rng.randrange(len(frames))]]


def _more_parts(rng: random.Random, known: Known) -> list[bytes]:
    return [*known.parts(), *(rng.randbytes(rng.randrange(10)) for _ in range(rng.randrange(1, 4)))]


def _wrong_type(rng: random.Random, known: Known) -> list[bytes]:
    fields = known.header()
    fields[rng.randrange(len(fields))] = rng.choice(_NO_FIELD)
    return [msgpack.packb(fields), known.parts()[1]]


def _wrong_shape(rng: random.Random, known: Known) -> list[bytes]:
    games = len(known.step.ends) + rng.randrange(1, 4)
    name = rng.choice(("rewards", "ends", "frames"))
    return known.parts(**{name: np.resize(getattr(known.step, name), (games, *getattr(known.step, name).shape[1:]))})


def _wrong_value(rng: random.Random, known: Known) -> list[bytes]:
    if rng.random() < 0.5:
        return known.parts(ends=np.full_like(known.step.ends, rng.randrange(3, 256)))
    return known.parts(rewards=np.full_like(known.step.rewards, rng.choice((np.nan, np.inf, -np.inf))))


def _oversized(rng: random.Random, known: Known) -> list[bytes]:
    """More than any message has, and less than what cuts the connection off."""
    return [msgpack.packb([1, 0, known.step.life, "x" * rng.randrange(1 << 17, 1 << 18)])]


def _unknown_simulator(rng: random.Random, known: Known) -> list[bytes]:
    return known.parts(index=rng.randrange(_FAR, 2**63))


def _unknown_life(rng: random.Random, known: Known) -> list[bytes]:
    return encode_failure(known.step.index, rng.randrange(_FAR, 2**63), "a stranger's last words")


def _repeated_step(rng: random.Random, known: Known) -> list[bytes]:
    return known.parts()


def _step_out_of_turn(rng: random.Random, known: Known) -> list[bytes]:
    return known.parts(sequence=rng.randrange(_FAR**2, 2**63))


def _earlier_life(rng: random.Random, known: Known) -> list[bytes]:
    return known.parts(life=known.earlier_life, sequence=rng.randrange(2**63))


Kind = Callable[[random.Random, Known], list[bytes]]
REFUSED: tuple[Kind, ...] = (_random_bytes, _cut_header, _cut_frames, _more_parts, _wrong_type, _wrong_shape,
                             _wrong_value, _oversized, _unknown_simulator, _unknown_life, _repeated_step,
                             _step_out_of_turn)  # fmt: skip
DROPPED: tuple[Kind, ...] = (_earlier_life,)  # as what a simulator that was killed had under way: that is no fault


class Strangers:
    """Sockets of those who have no business there, beside the simulators'."""

    def __init__(self, directory: str, known: Known, rng: random.Random):
        self._directory, self._known, self._rng = directory, known, rng
        self._context = zmq.Context()
        self._push = self._connect(zmq.PUSH, "steps")
        self._unknown = self._connect(zmq.DEALER, "actions")
        self._namesake = self._connect(zmq.DEALER, "actions", identity(known.step.index, known.step.life))
        self._sent = 0
        self.refused = 0  # that are to be

    def _connect(self, kind: int, name: str, its_identity: bytes = b"") -> zmq.Socket:
        socket = self._context.socket(kind)
        if its_identity:
            socket.setsockopt(zmq.IDENTITY, its_identity)
        socket.connect(f"ipc://{self._directory}/{name}")
        return socket

    def send(self, wait: Callable[[], object]) -> None:
        """Send one bad message; ``wait`` is called as long as there is no room for it."""
        if self._sent % _STRANGER_EVERY == 0:
            for receiver in (self._unknown, self._namesake):
                _offer(receiver, [self._rng.randbytes(self._rng.randrange(300))])
        if self._sent % _CUT_OFF_EVERY == 0:
            cut_off = self._connect(zmq.PUSH, "steps")
            _offer(cut_off, [bytes(max_part_bytes((len(self._known.step.ends),)) + 1)])
            cut_off.close(linger=100)
        kind = self._rng.choice(REFUSED + DROPPED)
        message = kind(self._rng, self._known)
        while not _offer(self._push, message):
            wait()
        self._sent += 1
        self.refused += kind in REFUSED

    def close(self) -> None:
        self._context.destroy(linger=0)


def _offer(socket: zmq.Socket, message: list[bytes]) -> bool:
    try:
        socket.send_multipart(message, zmq.DONTWAIT)
    except zmq.Again:
        return False
    return True
