"""Simulators over tcp, packed and encrypted: who is let in, what is unpacked, and what a lost connection does."""

from __future__ import annotations

import random
import socket
import tracemalloc

from a3c.errors import UsageError
from a3c.simulation.master import SimulatorMaster
from a3c.simulation.messages import MessageError, StepBlock
from a3c.simulation.nursery import LOST, Exit
from a3c.simulation.remote import CODECS, RemoteWire, compressor, missing_packages
from bench.wires import KeyedNursery
from tests.faults.strangers import REFUSED
from tests.faults.wire_strangers import WireStrangers, known_to, new_keys

import numpy as np
import pytest
import zmq
from fake_games import COUNTING, read_fake_frame
from processes import wait_until
from proxy import Proxy
from zmq.utils.monitor import recv_monitor_message

LOOPBACK = "127.0.0.1"
STEP_S = 30.0


class RecordingNursery(KeyedNursery):
    """Knows the address, and who ended; ``change`` makes another of it for each simulator."""

    def __init__(self, wire: RemoteWire, change):
        super().__init__(wire)
        self._change = change
        self.ended: list[Exit] = []

    def spawn(self, spec: dict) -> None:
        self.address = spec["address"]
        super().spawn({**spec, "address": self._change(spec["address"])})

    def exits(self) -> list[Exit]:
        found = super().exits()
        self.ended += found
        return found


@pytest.fixture
def play():
    """Makes a master of one simulator over tcp, with its nursery."""
    masters = []

    def make(codec: str = "lz4", change=lambda address: address) -> tuple[SimulatorMaster, RecordingNursery]:
        wire = RemoteWire(LOOPBACK, codec)
        nursery = RecordingNursery(wire, change)
        masters.append(SimulatorMaster(nursery, (2,), {}, COUNTING, wire=wire))
        return masters[-1], nursery

    yield make
    for master in masters:
        master.close()


def answer(master: SimulatorMaster, step: StepBlock, action: int = 1) -> StepBlock:
    master.send(step.index, step.life, np.full(len(step.ends), action, np.int8))
    after = master.receive(STEP_S)
    assert after is not None
    return after


@pytest.mark.parametrize("codec", CODECS)
def test_steps_cross_as_they_are(codec, play):
    master, _ = play(codec)
    step = master.receive(STEP_S)
    for number in range(1, 4):
        step = answer(master, step, action=number)
        assert [read_fake_frame(frame)[2:] for frame in step.frames] == [(number, number)] * 2
    assert (step.sequence, master.malformed_messages, master.at_play()) == (3, 0, {(0, step.life)})


@pytest.mark.parametrize(
    "cut", [Proxy.close, pytest.param(Proxy.silence, marks=pytest.mark.long)], ids=["closed", "silent"]
)
@pytest.mark.parametrize("name", ["steps", "actions"])
def test_a_life_ends_with_either_of_its_connections(name, cut, play):
    proxies = []

    def through_a_proxy(address: dict) -> dict:
        proxies.append(Proxy(address[name]))
        return {**address, name: proxies[-1].endpoint}

    master, nursery = play(change=through_a_proxy)
    first = answer(master, master.receive(STEP_S))
    cut(proxies[0])
    master.send(first.index, first.life, np.zeros(2, np.int8))
    second = wait_until(lambda: (step := master.receive(0.1)) and step.life != first.life and step, STEP_S)
    assert nursery.ended == [(0, first.life, LOST)]
    assert second.sequence == 0
    assert master.restarts == 1
    answer(master, second)
    for proxy in proxies:
        proxy.close()


def test_a_lost_connection_is_no_failed_start(play):
    """However often it happens before the first step: the link is to blame."""
    closed = socket.create_server((LOOPBACK, 0))
    port = closed.getsockname()[1]
    closed.close()
    tries = []

    def to_nowhere_at_first(address: dict) -> dict:
        tries.append(address)
        return {**address, "actions": f"tcp://{LOOPBACK}:{port}"} if len(tries) < 5 else address

    master, nursery = play(change=to_nowhere_at_first)
    assert wait_until(lambda: master.receive(0.1), STEP_S).life == 5
    assert [exit_.status for exit_ in nursery.ended] == [LOST] * 4


# Strangers


@pytest.mark.parametrize("codec", CODECS)
def test_with_the_key_of_a_host_all_that_is_bad_is_refused(codec, play):
    master, nursery = play(codec)
    step = master.receive(STEP_S)
    known = known_to(step, step.life + 1, codec)
    step = answer(master, step)
    strangers = WireStrangers(nursery.address, nursery.keys, known, random.Random(0))
    try:
        for kind in REFUSED:
            message = kind(random.Random(0), known)
            before = master.malformed_messages
            strangers._push.send_multipart(message)
            wait_until(lambda before=before: master.receive(0.01) or master.malformed_messages > before, STEP_S)
        strangers._sent = 1  # no connection that is cut off for its size
        for _ in range(98):
            strangers.send(wait=lambda: master.receive(0.01))
        wait_until(
            lambda: master.receive(0.01) or master.malformed_messages == len(REFUSED) + strangers.refused, STEP_S
        )
    finally:
        strangers.close()
    assert answer(master, step).sequence == 2
    assert master.restarts == 0


def test_without_an_admitted_key_nothing_is_heard(play):
    master, nursery = play()
    step = master.receive(STEP_S)
    known = known_to(step, step.life, "lz4")
    strangers = WireStrangers(nursery.address, new_keys(), known, random.Random(0))
    plain = zmq.Context()
    try:
        open_push = plain.socket(zmq.PUSH)  # without any key
        open_push.connect(nursery.address["steps"])
        open_push.send_multipart(known.parts(sequence=7), zmq.DONTWAIT)
        monitor = strangers._push.get_monitor_socket(zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_SUCCEEDED)
        assert monitor.poll(10_000)
        assert recv_monitor_message(monitor)["event"] == zmq.EVENT_HANDSHAKE_FAILED_AUTH
        for _ in range(3):
            step = answer(master, step)
    finally:
        strangers.close()
        plain.destroy(linger=0)
    assert (master.malformed_messages, step.sequence) == (0, 3)


# What is unpacked


@pytest.mark.parametrize("size", [0, 100, 100_000])
def test_no_more_is_unpacked_than_the_games_have(size):
    wire = RemoteWire(LOOPBACK, "lz4")
    packed = compressor("lz4")(np.zeros(size, np.uint8))
    assert len(wire.unpack(packed, size)) == size
    for wrong in {0, size // 2, size - 1} - {size, -1}:
        with pytest.raises(MessageError, match="cannot be unpacked"):
            wire.unpack(packed, wrong)


def test_a_bomb_is_not_unpacked():
    """A few kilobytes that would be a gigabyte: the games' size is what is allocated."""
    packed = compressor("lz4")(np.zeros(1 << 28, np.uint8))
    assert len(packed) < 1 << 21
    tracemalloc.start()
    try:
        with pytest.raises(MessageError):
            RemoteWire(LOOPBACK, "lz4").unpack(packed, 2 * 84 * 84 * 3)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("part", [b"", b"x", b"\xff" * 100])
def test_what_is_not_packed_is_refused(part):
    with pytest.raises(MessageError):
        RemoteWire(LOOPBACK, "lz4").unpack(part, 1000)


def test_an_address_of_another_machine_is_told_in_one_line():
    nursery = KeyedNursery(wire := RemoteWire("192.0.2.1", "none"))
    with pytest.raises(UsageError, match=r"--listen 192\.0\.2\.1: this machine cannot listen there") as told:
        SimulatorMaster(nursery, (1,), {}, COUNTING, wire=wire)
    assert "\n" not in str(told.value)


def test_packages_that_are_missing_are_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "lz4" else name)
    assert missing_packages() == ["lz4"]
