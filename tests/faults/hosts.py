"""Hosts of a cluster are switched off and cut off, come late and come back; and strangers with a host's key."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

from a3c.simulation.master import SimulatorMaster
from a3c.simulation.remote import CODECS, RemoteWire
from a3c.weights.checkpoints import saved_steps
from bench.command_line import Run, stats
from bench.wires import KeyedNursery
from tests.faults.namespaces import Machines
from tests.faults.trial import Trials, expect_end, expect_learning, train, wait_for, without_traceback
from tests.faults.wire_strangers import WireStrangers, known_to, new_keys

import numpy as np
import psutil

_LOST_S = 40.0
_ENDED_S = 15.0
_BACK_S = 60.0
_STEP_S = 30.0
_PORTS = 2  # of a learner: steps and actions
_MESSAGES = 10_000  # in a trial
_MAX_GROWTH_BYTES = 20e6


def lost_hosts(directory: Path, trials: int, rng: random.Random) -> Trials:
    """One run with two hosts, one of which comes late; in turn a link is cut, and a machine switched off.

    A stranger on one of these machines is not heard. In the end Ray's head is killed: the run saves and says why.
    """
    output = directory / "run"
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as short, Machines(Path(short)) as machines:
        machines.add(1)
        flags = ("--ray", machines.address, "--hosts", "2", "--host-cores", "1", "--correction", "clipped-is")
        run = train(output, *flags, "--max-epoch", "100000", script="tests/fakes/checked_lives.py")
        seen = run.read_until("Start Epoch 2")
        machines.add(2)
        seen += run.read_until("hosts 2 of 2", _BACK_S)
        _send_without_a_key(machines, run)
        for number in range(trials):
            unlucky = rng.randrange(1, 3)
            if number % 2:
                machines.switch_off(unlucky)
            else:
                machines.cut(unlucky)
            seen += run.read_until("is lost: hosts 1 of 2", _LOST_S)
            wait_for(lambda n=unlucky: _plays_no_more(machines, n), _ENDED_S, "simulators end", run)
            expect_learning(run, output, 2)
            machines.switch_off(unlucky)  # a node that was declared dead does not come back by itself
            machines.join(unlucky)
            machines.start(unlucky)
            seen += run.read_until("hosts 2 of 2", _BACK_S)
            expect_learning(run, output, 1)
            yield "switched off" if number % 2 else "link cut"
        assert stats(output)[-1]["malformed_messages"] == 0, "a stranger was heard"
        machines.kill_head()
        seen += expect_end(run, 1)
        wait_for(lambda: all(_plays_no_more(machines, n) for n in (1, 2)), _ENDED_S, "simulators end")
        without_traceback(seen)
        assert "(raylet)" not in seen, "Ray's own messages are shown"
        assert "the Ray cluster is gone (Ray's head is gone): --resume goes on from the newest checkpoint" in seen, seen
        assert stats(output)[-1]["global_step"] <= saved_steps(output)[-1]


def _plays_no_more(machines: Machines, number: int) -> bool:
    """Whether a machine has no simulator; what forks them stays until its host notices that nobody calls."""
    return len(machines.processes(number, " simulator ")) <= 1


def _send_without_a_key(machines: Machines, run: Run) -> None:
    """The learner listens on the address that the hosts know, and nowhere else; a stranger writes to all its ports."""
    sockets = psutil.Process(run.process.pid).net_connections("tcp")
    listening = [socket.laddr for socket in sockets if socket.status == psutil.CONN_LISTEN]
    assert {address.ip for address in listening} == {machines.ip}, listening
    assert len(listening) == _PORTS, listening
    machines.run(1, "tests.faults.uninvited", machines.ip, *(str(address.port) for address in listening))


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
