"""Hosts of a cluster are switched off and cut off, come late and come back: the others play on."""

from __future__ import annotations

import random
import signal
import tempfile
from pathlib import Path

from tests.faults.namespaces import Machines
from tests.faults.trial import Trials, expect_learning, train, wait_for, without_traceback

_LOST_S = 40.0
_ENDED_S = 15.0
_BACK_S = 60.0


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
