"""Hosts of a cluster are switched off and cut off, come late and come back; and strangers with a host's key."""

from __future__ import annotations

import random
import signal
import tempfile
from pathlib import Path

from a3c.simulation.master import SimulatorMaster
from a3c.simulation.remote import CODECS, RemoteWire
from bench.wires import KeyedNursery
from tests.faults.namespaces import Machines
from tests.faults.trial import Trials, expect_learning, train, wait_for, without_traceback
from tests.faults.wire_strangers import WireStrangers, known_to, new_keys

import numpy as np
import psutil

_LOST_S = 40.0
_ENDED_S = 15.0
_BACK_S = 60.0
_STEP_S = 30.0
_MESSAGES = 10_000  # in a trial
_MAX_GROWTH_BYTES = 20e6


def lost_hosts(directory: Path, trials: int, rng: random.Random) -> Trials:
    """One run with three hosts, the third of which comes late; in turn a link is cut, and a machine switched off."""
    output = directory / "run"
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as short, Machines(Path(short)) as machines:
        machines.add(1)
        machines.add(2)
        flags = ("--ray", machines.address, "--hosts", "3", "--host-cores", "1", "--correction", "clipped-is")
        run = train(output, *flags, "--max-epoch", "100000", "--simulator-proc", "3",
                    script="tests/fakes/checked_lives.py")  # fmt: skip
        seen = run.read_until("Start Epoch 2")
        machines.add(3)
        seen += run.read_until("hosts 3 of 3", _BACK_S)
        for number in range(trials):
            unlucky = rng.randrange(1, 4)
            if number % 2:
                machines.switch_off(unlucky)
            else:
                machines.cut(unlucky)
            seen += run.read_until("is lost: hosts 2 of 3", _LOST_S)
            # What forks them stays until its host notices that nobody calls.
            wait_for(lambda n=unlucky: len(machines.processes(n, " simulator ")) <= 1, _ENDED_S, "they end", run)
            expect_learning(run, output, 2)
            machines.switch_off(unlucky)  # a node that was declared dead does not come back by itself
            machines.join(unlucky)
            machines.start(unlucky)
            seen += run.read_until("hosts 3 of 3", _BACK_S)
            expect_learning(run, output, 1)
            yield "switched off" if number % 2 else "link cut"
        run.process.send_signal(signal.SIGKILL)
        wait_for(lambda: not any(machines.processes(n, " simulator ") for n in (1, 2, 3)), _ENDED_S, "all hosts free")
        without_traceback(seen + run.finish())


def bad_messages(directory: Path, trials: int, rng: random.Random) -> Trials:
    """Send them over tcp, by turns with the key of a host and with one that nobody has admitted; a game plays on."""
    for number in range(trials):
        codec = CODECS[number // 2 % 2]
        wire = RemoteWire("127.0.0.1", codec)
        nursery = _RecordingNursery(wire)
        master = SimulatorMaster(nursery, (1,), {"env_id": "Pong-v0"}, wire=wire)
        try:
            keys = new_keys() if number % 2 else nursery.keys
            yield from _send_to(master, nursery.address, keys, codec, rng, admitted=keys == nursery.keys)
        finally:
            master.close()


class _RecordingNursery(KeyedNursery):
    """Knows where the sockets are."""

    def spawn(self, spec: dict) -> None:
        self.address = spec["address"]
        super().spawn(spec)


def _send_to(
    master: SimulatorMaster, address: dict, keys: dict, codec: str, rng: random.Random, admitted: bool
) -> Trials:
    step = master.receive(_STEP_S)
    strangers = WireStrangers(address, keys, known_to(step, step.life + 1, codec), rng)
    master.send(step.index, step.life, np.zeros(1, np.int8))
    step = master.receive(_STEP_S)
    taken = []

    def look(timeout_s: float) -> None:
        taken.extend(filter(None, [master.receive(timeout_s)]))

    try:
        if admitted:
            for number in range(_MESSAGES):
                strangers.send(wait=lambda: look(0.01))
                look(0.0)
                if number == _MESSAGES // 5:
                    memory = psutil.Process().memory_info().rss
            wait_for(lambda: look(0.1) or master.malformed_messages >= strangers.refused, _STEP_S, "all")
            growth = psutil.Process().memory_info().rss - memory
            assert growth < _MAX_GROWTH_BYTES, f"memory grew by {growth:,} bytes"
        else:  # nothing is sent on a connection that is not let in
            look(2.0)
        assert taken == [], "it was taken for a step"
        # Here what is a byte too long is heard and refused: the limit leaves room for what packing may add.
        too_long = master.malformed_messages - strangers.refused
        assert 0 <= too_long <= _MESSAGES // 1000, (master.malformed_messages, strangers.refused)
        for _ in range(3):
            master.send(step.index, step.life, np.zeros(1, np.int8))
            after = master.receive(_STEP_S)
            assert after[:3] == (step.index, step.life, step.sequence + 1), after[:3]
            step = after
        yield f"{codec}, {'with' if admitted else 'without'} a key"
    finally:
        strangers.close()
