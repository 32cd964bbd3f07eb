"""Simulators that are killed, hang or fail: a new life takes the place, or the run is told why not."""

from __future__ import annotations

import time

from a3c.errors import RunError
from a3c.simulation import master as master_module
from a3c.simulation.master import SimulatorClosedError, SimulatorError, SimulatorMaster
from a3c.simulation.messages import (
    StepBlock,
)
from a3c.simulation.nursery import LOST, Exit

import pytest
from fake_games import COUNTING, DYING, HANGING, RAISING, SLOW, FakeFrame, read_fake_frame
from masters import DEADLINE_S, fake_action, fake_actions, receive, seeds, send, steps
from processes import alive, wait_for_descendants, wait_until

# Lives.


def test_killed_simulator_is_replaced(start):
    master, nursery = start((1, 2))
    old_life = nursery.specs[1]["life"]
    seen: dict[int, list[StepBlock]] = {}  # of each life
    for block in steps(master, fake_actions):
        seen.setdefault(block.life, []).append(block)
        if (block.life, block.sequence) == (old_life, 5):
            nursery.kill(1)
        if block.life not in (spec["life"] for spec in nursery.specs[:2]) and block.sequence == 3:
            break
    assert (len(nursery.specs), master.restarts) == (3, 1)
    assert seen.keys() == {spec["life"] for spec in nursery.specs}
    for spec in nursery.specs:
        blocks = seen[spec["life"]]
        assert [block.sequence for block in blocks] == list(range(len(blocks)))
        assert {block.index for block in blocks} == {spec["index"]}
        for block in blocks:
            expected = [
                FakeFrame(seed, 0, block.sequence, fake_action(block.index, block.sequence - 1, env))
                for env, seed in enumerate(seeds(spec))
            ]
            assert block.sequence == 0 or [read_fake_frame(frame) for frame in block.frames] == expected


def test_actions_for_one_that_has_just_died(start):
    """One thread that receives and sends, as an evaluation's, is not stopped by it."""
    master, _ = start((1,))
    block = receive(master)
    send(master, block, [1])
    block = receive(master)
    _, simulator = wait_for_descendants(2)
    simulator.kill()
    wait_until(lambda: not alive([simulator]))
    send(master, block, [2])
    reborn = receive(master)
    assert reborn.sequence == 0
    assert reborn.life != block.life
    assert master.restarts == 1


# Hanging ones.


def test_one_that_hangs_is_killed_and_replaced(start):
    master, _ = start((1, 1), step_timeout_s=2.0)
    stopped = None
    for block in steps(master, fake_actions):
        if block.sequence == 3 and stopped is None:
            _, *simulators = wait_for_descendants(3)
            stopped, others_life = simulators[block.index], 3 - block.life
            stopped.suspend()
        if block.life == 3:
            break
    assert (block.sequence, master.restarts) == (0, 1)
    wait_until(lambda: not alive([stopped]))
    assert others_life in master._life  # the other one lives on


@pytest.mark.long
def test_one_that_hangs_at_each_start_is_given_up(start):
    master, _ = start((1,), HANGING, step_timeout_s=1.0)
    with pytest.raises(SimulatorError, match="before its first step"):
        master.receive(DEADLINE_S)
    assert master.restarts == 2


def test_a_start_may_take_longer_than_a_step(start):
    master, _ = start((1,), SLOW, step_timeout_s=2.0, start_s=3.0)
    assert (receive(master).sequence, master.restarts) == (0, 0)


def test_one_that_waits_for_actions_does_not_hang(start):
    master, _ = start((1,), step_timeout_s=1.0)
    block = receive(master)
    assert master.receive(2.0) is None
    send(master, block, [1])
    assert receive(master).sequence == 1
    assert master.restarts == 0


def test_what_the_master_had_no_time_to_see_is_no_delay(start):
    master, _ = start((1,), step_timeout_s=1.0)
    send(master, receive(master), [1])
    time.sleep(2.0)  # its step is there, and nobody looks
    assert receive(master).sequence == 1
    assert master.restarts == 0


# Failures.


@pytest.mark.parametrize(
    ("player", "script", "word"),
    [(RAISING, {}, "fake game that cannot be made"), (COUNTING, {"raise_at": 3}, "fake failure at step 3")],
)
def test_failure_is_told_with_its_traceback(start, player, script, word):
    master, _ = start((1,), player, **script)
    with pytest.raises(SimulatorError) as caught:
        for _ in steps(master, fake_actions):
            pass
    text = str(caught.value)
    assert "simulator 0" in text
    assert "Traceback" in text
    assert "fake_games.py" in text
    assert word in text
    assert master.restarts <= 1  # the news of its end can be faster than its words


def test_actions_of_another_number_of_games_are_a_failure(start):
    master, _ = start((2,))
    send(master, receive(master), [1, 2, 3])
    with pytest.raises(SimulatorError, match="3 actions for 2 games"):
        receive(master)


def test_one_that_dies_at_once_is_given_up(start):
    master, nursery = start((1,), DYING)
    with pytest.raises(SimulatorError, match="status 7"):
        master.receive(DEADLINE_S)
    assert len(nursery.specs) == 1 + master.restarts
    assert 1 <= master.restarts <= 5


def test_one_that_dies_later_is_replaced(start):
    master, _ = start((1,), exit_at=3)
    lives = []
    for block in steps(master, fake_actions):
        lives += [block.life] * (block.sequence == 0)
        assert block.sequence < 3
        if len(lives) == 3:
            break
    assert len(set(lives)) == 3
    assert master.restarts == 2


def test_one_that_leaves_of_its_own_accord(start):
    master, _ = start((1,), exit_at=3, exit_status=0)
    with pytest.raises(SimulatorClosedError):
        for _ in steps(master, fake_actions):
            pass
    assert master.restarts == 0


def test_receive_has_a_deadline(start):
    master, _ = start((1,), HANGING)
    assert master.receive(0) is None
    assert master.receive(0.01) is None


def test_dead_nursery_is_an_error(start):
    master, _ = start((1,), HANGING)
    nursery, _ = wait_for_descendants(2)
    nursery.kill()
    with pytest.raises(RunError, match="nursery"):
        master.receive(DEADLINE_S)


# Hosts.


class FakeHosts:
    """A fake nursery of hosts: ``ends`` are the statuses of lives that end at once, ``away`` hosts have none."""

    def __init__(self):
        self.spawned, self.ends, self.away = [], [], {0, 1}

    def spawn(self, spec: dict) -> None:
        self.spawned.append((spec["index"], spec["life"]))

    def exits(self) -> list[Exit]:
        found, self.ends = self.ends, []
        return found

    def waits(self, index: int) -> bool:
        return index in self.away

    def close(self) -> None:
        pass


@pytest.fixture
def hosts():
    """A fake nursery of two simulators, their master, and what it does when their newest lives lose the way."""
    nursery = FakeHosts()
    master = SimulatorMaster(nursery, (1, 1), {}, COUNTING)

    def lose(*indices: int) -> None:
        newest = dict(nursery.spawned)
        nursery.ends = [Exit(index, newest[index], LOST) for index in indices]
        master.replace_dead()

    yield nursery, master, lose
    master.close()


def test_simulators_that_never_reach_the_learner_are_told_now_and_then(hosts, caplog, monkeypatch):
    nursery, master, lose = hosts
    nursery.away, now = set(), [1000.0]
    monkeypatch.setattr(master_module, "running_s", lambda: now[0])
    for _ in range(2):
        lose(0, 1)
    assert caplog.messages == []
    for _ in range(5):
        lose(0, 1)
    (line,) = caplog.messages
    assert line.startswith("simulator 0 was started 3 times, and did not reach the learner")
    assert master.restarts == 14
    now[0] += 61
    master._unreached[1] = 2  # it had made steps, and cannot reach it any more
    lose(1)
    assert len(caplog.messages) == 2
    assert caplog.messages[1].startswith("simulator 1 was")


def test_a_host_that_is_away_is_no_news(hosts, caplog):
    nursery, master, lose = hosts
    assert master.hosts_away
    for _ in range(5):
        lose(0, 1)
    assert caplog.messages == []
    nursery.away = {1}
    assert not master.hosts_away
