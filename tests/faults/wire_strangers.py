"""Strangers at the sockets that remote simulators use: with the key of a host, or with one that nobody has admitted."""

from __future__ import annotations

import random

from a3c.simulation.remote import RemoteAddress, compressor
from tests.faults.strangers import Known, Strangers

import msgpack
import numpy as np
import zmq


class PackedKnown(Known):
    """What a stranger knows who also packs frames as a simulator does."""

    def parts(self, **changes) -> list[bytes]:
        header, frames = super().parts(**changes)
        return [header, compressor("lz4")(np.frombuffer(frames, np.uint8))]

    def header(self) -> list:
        return msgpack.unpackb(super().parts()[0])


class WireStrangers(Strangers):
    """They connect over tcp, encrypted, with keys."""

    def __init__(self, address: dict, keys: dict, known: Known, rng: random.Random):
        """
        Args:
            address: as a spec has it.
            keys: ``public_key`` and ``secret_key`` of theirs.
            known: what they know.
            rng: draws what they send.
        """
        self._address = RemoteAddress(**{**address, **keys})
        super().__init__("", known, rng)

    def _connect(self, kind: int, name: str, its_identity: bytes = b"") -> zmq.Socket:
        socket = self._context.socket(kind)
        if its_identity:
            socket.setsockopt(zmq.IDENTITY, its_identity)
        self._address.connect(socket, name)
        socket.setsockopt(zmq.RECONNECT_IVL, 100)  # who is cut off comes again
        return socket


def new_keys() -> dict:
    """A pair of keys, made now."""
    public, secret = (key.decode() for key in zmq.curve_keypair())
    return {"public_key": public, "secret_key": secret}


def known_to(step, earlier_life: int, codec: str) -> Known:
    """What strangers know of a step, and how they send it."""
    kind = PackedKnown if codec == "lz4" else Known
    return kind(step._replace(frames=step.frames.copy()), earlier_life)
