"""The nursery: who lives, who is told of an end, and that nobody is left behind, whoever dies first."""

from __future__ import annotations

import dataclasses
import json
import os
import select
import signal
import subprocess
import sys

from a3c.errors import RunError
from a3c.simulation import nursery as nursery_module
from a3c.simulation.messages import SimulatorSpec
from a3c.simulation.nursery import Exit, Nursery
from a3c.system.processes import start_program

import pytest
from fake_games import COUNTING, DYING, HANGING, RAISING
from processes import alive, descendants, wait_for_descendants, wait_until


@pytest.fixture
def nursery():
    with Nursery() as nursery:
        yield nursery


@pytest.fixture
def spec(tmp_path):
    """Specifications of simulators with whom nobody talks."""
    return lambda player, index=0, life=1: dataclasses.asdict(
        SimulatorSpec(index, life, 0, 1, str(tmp_path), player, {})
    )


def wait_for_exits(nursery: Nursery, count: int = 1) -> list[Exit]:
    found: list[Exit] = []
    wait_until(lambda: found.extend(nursery.exits()) or len(found) >= count)
    return found


@pytest.mark.parametrize(
    ("player", "status"), [(DYING, 7), (RAISING, 1), ("fake_games:no_such_function", 1), ("no_such_module:make", 1)]
)
def test_end_is_told_with_its_status(nursery, spec, player, status):
    nursery.spawn(spec(player, index=3, life=8))
    assert select.select([nursery], [], [], 15)[0]
    assert nursery.exits() == [Exit(3, 8, status)]
    assert nursery.exits() == []


def test_kill_ends_one_simulator(nursery, spec):
    for index in range(3):
        nursery.spawn(spec(HANGING, index, life=10 + index))
    nursery.kill(7)  # there is none
    nursery.kill(1)
    assert wait_for_exits(nursery) == [Exit(1, 11, -signal.SIGKILL)]
    assert len(alive(descendants())) == 3  # the nursery and two
    nursery.spawn(spec(COUNTING, index=1, life=20))
    assert len(alive(wait_for_descendants(4))) == 4
    nursery.kill(1)
    nursery.kill(2)
    assert sorted(wait_for_exits(nursery, 2)) == [Exit(1, 20, -9), Exit(2, 12, -9)]


def test_exits_does_not_wait(nursery, spec):
    nursery.spawn(spec(HANGING))
    wait_for_descendants(2)
    assert nursery.exits() == []


def test_many_ends_at_once_are_all_told(nursery, spec):
    for index in range(20):
        nursery.spawn(spec(HANGING, index))
    parent, *simulators = wait_for_descendants(21)
    parent.suspend()
    for process in simulators:
        process.kill()
    parent.resume()
    assert sorted(wait_for_exits(nursery, 20)) == [Exit(index, 1, -9) for index in range(20)]


def test_what_a_terminal_sends_is_the_owners(nursery, spec):
    nursery.spawn(spec(HANGING))
    for process in wait_for_descendants(2):
        assert os.getsid(process.pid) != os.getsid(0)


def test_what_all_processes_of_a_job_are_sent_is_the_owners(nursery, spec):
    nursery.spawn(spec(HANGING))
    processes = wait_for_descendants(2)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        for process in processes:
            process.send_signal(number)
    nursery.spawn(spec(DYING, 1))
    assert wait_for_exits(nursery) == [Exit(1, 1, 7)]
    assert alive(processes) == processes


FORKLESS = """
import errno, os, socket, sys
import simulator

def refuse():
    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

os.fork = refuse
simulator.serve(socket.socket(fileno=int(sys.argv[1])))
"""


def test_a_simulator_that_cannot_be_forked_has_ended(spec, tmp_path, monkeypatch, capfd):
    (tmp_path / "forkless.py").write_text(FORKLESS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(
        nursery_module, "start_program", lambda _, *args, **more: start_program("forkless", *args, **more)
    )
    with Nursery() as nursery:
        nursery.spawn(spec(HANGING, 3, life=8))
        assert wait_for_exits(nursery) == [Exit(3, 8, 1)]
    assert capfd.readouterr().err == "simulator 3 cannot be started: Resource temporarily unavailable\n"


def test_ends_of_more_simulators_than_fit_into_the_socket_are_all_told(spec, tmp_path, monkeypatch):
    """The nursery that tells of them waits for room, and the owner that starts more for the nursery."""
    (tmp_path / "forkless.py").write_text(FORKLESS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(
        nursery_module, "start_program", lambda _, *args, **more: start_program("forkless", *args, **more)
    )
    with Nursery() as nursery:
        for index in range(3000):
            nursery.spawn(spec(HANGING, index))
        assert wait_for_exits(nursery, 3000) == [Exit(index, 1, 1) for index in range(3000)]


@pytest.mark.parametrize("ask", [lambda nursery: nursery.spawn({}), lambda nursery: nursery.kill(1)])
def test_whoever_asks_a_nursery_that_is_gone_is_told(nursery, spec, ask):
    nursery.spawn(spec(HANGING))
    parent, _ = wait_for_descendants(2)
    parent.kill()
    wait_until(lambda: not alive([parent]))
    with pytest.raises(RunError, match="status -9"):
        ask(nursery)


def test_killed_nursery_takes_its_simulators_along(nursery, spec):
    nursery.spawn(spec(HANGING, 0))
    nursery.spawn(spec(COUNTING, 1))
    parent, *simulators = wait_for_descendants(3)
    parent.kill()
    wait_until(lambda: not alive(simulators), timeout_s=3)
    assert select.select([nursery], [], [], 15)[0]
    with pytest.raises(RunError, match="status -9"):
        nursery.exits()


def test_close_leaves_nobody(spec):
    nursery = Nursery()
    nursery.spawn(spec(HANGING, 0))
    nursery.spawn(spec(COUNTING, 1))
    processes = wait_for_descendants(3)
    nursery.close()
    assert alive(processes) == []
    nursery.close()


def test_close_ends_a_nursery_that_hangs(spec, monkeypatch):
    monkeypatch.setattr(nursery_module, "_CLOSE_TIMEOUT_S", 0.1)
    nursery = Nursery()
    nursery.spawn(spec(HANGING))
    parent, simulator = wait_for_descendants(2)
    parent.suspend()
    nursery.close()
    assert alive([parent]) == []
    wait_until(lambda: not alive([simulator]), timeout_s=3)


def test_close_with_news_unread(spec, capfd):
    nursery = Nursery()
    nursery.spawn(spec(HANGING, 0))
    nursery.spawn(spec(DYING, 1))
    assert select.select([nursery], [], [], 15)[0]
    nursery.close()
    assert descendants() == []
    assert capfd.readouterr().err == ""


def test_close_while_simulators_end(spec, capfd):
    nursery = Nursery()
    for index in range(10):
        nursery.spawn(spec(DYING, index))
    nursery.close()
    assert descendants() == []
    assert capfd.readouterr().err == ""


# Whoever dies first.

OWNER = """
import json, sys
from a3c.simulation.nursery import Nursery
nursery = Nursery()
for spec in json.loads(sys.argv[1]):
    nursery.spawn(spec)
sys.stdin.read()
"""
FAKE_PRCTL = {
    "absent": "raise ImportError('fake: not installed')",
    "another": "",
    "present": "import ctypes\nset_pdeathsig = lambda number: ctypes.CDLL(None).prctl(1, number, 0, 0, 0)",
}


@pytest.mark.parametrize("stopped", [False, True])
@pytest.mark.parametrize("prctl", FAKE_PRCTL)
def test_all_die_with_a_killed_owner(prctl, stopped, spec, tmp_path):
    (tmp_path / "prctl.py").write_text(FAKE_PRCTL[prctl])
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    specs = json.dumps([spec(HANGING, 0), spec(COUNTING, 1)])
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, specs], stdin=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}
    )
    with owner:
        processes = wait_for_descendants(3, owner.pid)
        if stopped:  # it cannot see that the owner is gone
            processes[0].suspend()
        owner.kill()
        wait_until(lambda: not alive(processes), timeout_s=3)
    assert owner.returncode == -signal.SIGKILL
