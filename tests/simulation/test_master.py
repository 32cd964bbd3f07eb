"""Simulators and their master: real processes and real sockets, on fake games and on Pong."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from a3c.errors import UsageError
from a3c.seeds import Purpose, Seeds
from a3c.simulation.master import SimulatorClosedError, SimulatorError, SimulatorMaster
from a3c.simulation.messages import (
    ATARI_PLAYER,
    REST,
    RUNNING,
    TERMINATED,
    TRUNCATED,
    StepBlock,
    encode_failure,
    encode_step,
)
from a3c.simulation.nursery import Exit, Nursery
from atari_wrapper import make_player

import numpy as np
import pytest
import zmq
from fake_games import COUNTING, DYING, HANGING, RAISING, SLOW, FakeCountingGame, FakeFrame, read_fake_frame
from processes import alive, descendants, wait_for_descendants, wait_until

DEADLINE_S = 20.0
ROOT = Path(__file__).resolve().parents[2]


class RecordingNursery(Nursery):
    """A nursery that keeps what it was told to spawn."""

    def __init__(self):
        super().__init__()
        self.specs: list[dict] = []

    def spawn(self, spec: dict) -> None:
        self.specs.append(spec)
        super().spawn(spec)


@pytest.fixture
def start():
    """Starts a master of simulators with their games; ends all of them after the test."""
    masters = []

    def start(games, player=COUNTING, seed=0, step_timeout_s=60.0, **player_args):
        nursery = RecordingNursery()
        masters.append(SimulatorMaster(nursery, games, player_args, player, seeds_of(seed), step_timeout_s))
        return masters[-1], nursery

    yield start
    for master in masters:
        master.close()


def receive(master: SimulatorMaster) -> StepBlock:
    block = master.receive(DEADLINE_S)
    assert block is not None, "no step came"
    return block


def send(master: SimulatorMaster, block: StepBlock, actions) -> None:
    master.send(block.index, block.life, np.array(actions, np.int8))


def steps(master: SimulatorMaster, choose: Callable[[StepBlock], list[int]]) -> Iterator[StepBlock]:
    """The blocks of all simulators; after each of them its games' next actions are sent."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        block = receive(master)
        yield block
        send(master, block, choose(block))
    raise AssertionError(f"not over within {DEADLINE_S} s")


def fake_action(index: int, sequence: int, env: int) -> int:
    """Another one for each game and step."""
    return (50 * index + 7 * sequence + 3 * env) % 100


def seeds_of(seed: int) -> Seeds:
    return Seeds(seed, Purpose.TRAINING_GAMES)


def seeds(spec: dict) -> range:
    """The seeds of a simulator's games."""
    return range(spec["seed"], spec["seed"] + spec["num_envs"])


def fake_actions(block: StepBlock) -> list[int]:
    return [fake_action(block.index, block.sequence, env) for env in range(len(block.ends))]


# The way of a step.


def test_steps_and_actions_find_their_games(start):
    games = (2, 1, 3)
    master, nursery = start(games)
    seen = dict.fromkeys(range(len(games)), 0)
    for block in steps(master, fake_actions):
        index, t, envs = block.index, block.sequence, games[block.index]
        spec = nursery.specs[index]
        assert t == seen[index]
        assert (block.life, len(block.ends)) == (spec["life"], envs)
        assert [read_fake_frame(frame) for frame in block.frames] == [
            FakeFrame(seeds(spec)[env], 0, t, fake_action(index, t - 1, env) if t else -1) for env in range(envs)
        ]
        assert block.rewards.tolist() == [FakeCountingGame.reward(0, t) if t else 0] * envs
        assert block.ends.tolist() == [RUNNING] * envs
        assert block.emulator_frames == (3 if t else 1) * envs
        seen[index] += 1
        if min(seen.values()) == 10:
            break
    assert (master.restarts, master.malformed_messages) == (0, 0)


# Action; then the frame's episode, step and action, the reward, the end, the emulator frames.
ENDS_TAPE = [
    (None, (0, 0, -1), 0, RUNNING, 1),
    (5, (0, 1, 5), -1, RUNNING, 3),
    (6, (1, 0, -1), 2, TERMINATED, 4),  # the last step of the first episode; the first frame of the second
    (7, (1, 1, 7), -101, RUNNING, 3),
    (8, (1, 2, 8), 102, RUNNING, 3),
    (9, (2, 0, -1), -103, TRUNCATED, 4),
    (4, (2, 1, 4), -201, RUNNING, 3),
    (3, (3, 0, -1), 202, TERMINATED, 4),
]
REST_TAPE = [
    (None, (0, 0, -1), 0, RUNNING, 1),
    (REST, (0, 0, -1), 0, RUNNING, 0),
    (5, (0, 1, 5), -1, RUNNING, 3),
    (REST, (0, 1, 5), 0, RUNNING, 0),
    (REST, (0, 1, 5), 0, RUNNING, 0),
    (6, (1, 0, -1), 2, TERMINATED, 4),
    (REST, (1, 0, -1), 0, RUNNING, 0),
    (7, (1, 1, 7), -101, RUNNING, 3),
]


def test_ends_and_rests_by_tape(start):
    """Two games of one simulator, of which each goes its own way."""
    master, _ = start((2,), lengths=[2, 3], truncated=[False, True])
    for ends, rests in zip(ENDS_TAPE, REST_TAPE, strict=True):
        if ends[0] is not None:
            send(master, block, [ends[0], rests[0]])  # noqa: F821
        block = receive(master)
        assert [tuple(read_fake_frame(frame)[1:]) for frame in block.frames] == [ends[1], rests[1]]
        assert block.rewards.tolist() == [ends[2], rests[2]]
        assert block.ends.tolist() == [ends[3], rests[3]]
        assert block.emulator_frames == ends[4] + rests[4]


class Alone:
    """A game of Pong played without a simulator."""

    def __init__(self, seed: int, **player_args):
        self.player = make_player(**player_args)
        self.frame, self.info = self.player.reset(seed=seed)

    def step(self, action: int) -> tuple[np.ndarray, float, int, int]:
        """The frame, the reward, the end, the emulator frames since the step before."""
        before = self.info["frame_number"]
        frame, reward, terminated, truncated, self.info = self.player.step(action)
        if terminated or truncated:
            frame, self.info = self.player.reset()
        end = TERMINATED if terminated else TRUNCATED if truncated else RUNNING
        return frame, reward, end, self.info["frame_number"] - before


def test_pong_is_the_same_through_simulators(start):
    games, count, args = (2, 1), 200, {"env_id": "Pong-v0", "max_episode_steps": 130}
    actions = np.random.default_rng(0).integers(0, 6, (len(games), count, max(games)), dtype=np.int8)
    master, nursery = start(games, ATARI_PLAYER, **args)
    twins = [[Alone(seed, **args) for seed in seeds(spec)] for spec in nursery.specs]
    earned, ends = 0.0, set()
    for _ in range(len(games) * count):
        block = receive(master)
        index, t = block.index, block.sequence
        if t == 0:
            expected = [(twin.frame, 0.0, RUNNING, twin.info["frame_number"]) for twin in twins[index]]
        else:
            expected = [twin.step(int(actions[index, t, env])) for env, twin in enumerate(twins[index])]
        frames, rewards, its_ends, emulated = zip(*expected, strict=True)
        np.testing.assert_array_equal(block.frames, np.stack(frames))
        assert (block.rewards.tolist(), block.ends.tolist()) == (list(rewards), list(its_ends))
        assert block.emulator_frames == sum(emulated)
        earned, ends = earned + sum(map(abs, rewards)), ends.union(its_ends)
        if t + 1 < count:
            send(master, block, actions[index, t + 1, : games[index]])
    assert earned > 0
    assert ends == {RUNNING, TRUNCATED}


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


@pytest.fixture
def stranger():
    """Makes sockets of a process that is no simulator of this run."""
    context = zmq.Context()

    def connect(kind: int, address: str) -> zmq.Socket:
        peer = context.socket(kind)
        peer.connect(f"ipc://{address}")
        return peer

    yield connect
    context.destroy(linger=0)


def block_of(index: int, life: int, sequence: int) -> StepBlock:
    frames = np.zeros((1, 84, 84, 3), np.uint8)
    return StepBlock(index, life, sequence, 3, np.zeros(1, np.float32), np.zeros(1, np.uint8), frames)


def test_what_is_no_step_of_a_present_life_is_dropped(start, stranger):
    master, nursery = start((1,))
    nursery.kill(0)
    first = receive(master)
    while first.life == 1:  # it was faster than its end
        first = receive(master)
    peer = stranger(zmq.PUSH, nursery.specs[0]["address"] + "/steps")
    peer.send_multipart(encode_step(block_of(0, life=1, sequence=1)))  # of the life that ended
    for parts in ([b"garbage"], [b""], [b"x", b"y", b"z"], encode_step(block_of(0, first.life, sequence=7))):
        peer.send_multipart(parts)
    wait_until(lambda: master.receive(0.01) or master.malformed_messages == 4)
    send(master, first, [9])
    second = receive(master)
    assert (second.life, second.sequence) == (first.life, 1)
    assert read_fake_frame(second.frames[0]).action == 9
    assert (master.malformed_messages, master.restarts) == (4, 1)


def test_a_stranger_among_the_receivers_changes_nothing(start, stranger):
    master, nursery = start((1,))
    first = receive(master)
    peer = stranger(zmq.DEALER, nursery.specs[0]["address"] + "/actions")
    for _ in range(10):
        peer.send(b"garbage")
    for t in range(1, 5):
        send(master, first, [t])
        assert receive(master).sequence == t


def test_last_words_of_an_unknown_life_are_refused(start, stranger):
    master, nursery = start((1,))
    first = receive(master)
    peer = stranger(zmq.PUSH, nursery.specs[0]["address"] + "/steps")
    peer.send_multipart(encode_failure(0, first.life + 1, "a stranger's"))
    wait_until(lambda: master.receive(0.01) or master.malformed_messages == 1)


def test_what_is_too_large_is_not_even_received(start, stranger):
    master, nursery = start((1,))
    first = receive(master)
    peer = stranger(zmq.PUSH, nursery.specs[0]["address"] + "/steps")
    peer.send(bytes(10_000_000))
    send(master, first, [1])
    assert receive(master).sequence == 1
    assert master.malformed_messages == 0


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
    with pytest.raises(RuntimeError, match="nursery"):
        master.receive(DEADLINE_S)


# The directory and the end.


def test_directory_is_private_and_removed(start):
    master, nursery = start((1, 1))
    receive(master)
    address = nursery.specs[0]["address"]
    assert stat.S_IMODE(os.stat(address).st_mode) == 0o700
    assert sorted(os.listdir(address)) == ["actions", "lock", "steps"]
    assert {spec["address"] for spec in nursery.specs} == {address}
    assert len(descendants()) == 3
    master.close()
    assert not os.path.exists(address)
    assert descendants() == []


@pytest.fixture
def short_directory(monkeypatch):
    """For temporary files, as ``tmp_path``, but with a name that leaves a socket's path room."""
    with tempfile.TemporaryDirectory(prefix="t") as directory:
        monkeypatch.setattr(tempfile, "tempdir", directory)
        yield Path(directory)


def test_directories_of_those_that_were_killed_are_removed_by_the_next(short_directory, start):
    left_behind = short_directory / "train-atari-sockets-killed"
    left_behind.mkdir()
    (left_behind / "lock").touch()
    (left_behind / "steps").touch()
    somebodys = short_directory / "train-atari-sockets-of-mine"
    somebodys.mkdir()
    _, nursery = start((1,))
    _, other = start((1,))
    living = {os.path.basename(n.specs[0]["address"]) for n in (nursery, other)}
    assert set(os.listdir(short_directory)) == living | {somebodys.name}


def test_the_directory_of_a_start_is_never_taken_for_one_left_behind(monkeypatch, tmp_path):
    """Processes that start and end and clean up at the same time: none finds its directory gone."""
    code = """
import os, sys, tempfile
from pathlib import Path
from a3c.simulation.master import _make_directory, _remove_directories_left_behind, _remove_directory
tempfile.tempdir = sys.argv[1]
for _ in range(500):
    _remove_directories_left_behind()
    directory, lock = _make_directory()
    assert os.path.exists(os.path.join(directory, "lock"))
    if os.getpid() % 2:
        _remove_directory(Path(directory))
    lock.close()
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    processes = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert errors == ["", "", "", ""]


def test_what_somebody_else_has_put_into_a_directory_stays(short_directory, start):
    left_behind = short_directory / "train-atari-sockets-killed"
    left_behind.mkdir()
    for name in ("lock", "steps", "notes.txt"):
        (left_behind / name).touch()
    start((1,))
    assert os.listdir(left_behind) == ["notes.txt"]


def test_where_no_sockets_can_be_made_it_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("x" * 100)))
    for make in (lambda: None, (tmp_path / ("x" * 100)).mkdir):
        make()
        with Nursery() as nursery, pytest.raises(UsageError, match="export TMPDIR=/tmp") as caught:
            SimulatorMaster(nursery, (1,), {}, COUNTING)
        assert "\n" not in str(caught.value)
        assert list(tmp_path.glob("x*/*")) == []


def test_two_masters_are_apart(start):
    (one, nursery), (other, others_nursery) = start((1,)), start((1,), seed=1)
    assert nursery.specs[0]["address"] != others_nursery.specs[0]["address"]
    for t in range(3):
        for master, action in ((one, 10 + t), (other, 20 + t)):
            send(master, receive(master), [action])
    assert read_fake_frame(receive(one).frames[0]).action == 12
    assert read_fake_frame(receive(other).frames[0]).action == 22


# Seeds.


class FakeNursery:
    """A fake nursery that forks nobody, and tells of the ends of ``ended``."""

    def __init__(self):
        self.specs: list[dict] = []
        self.ended: list[Exit] = []

    def spawn(self, spec: dict) -> None:
        self.specs.append(spec)

    def waits(self, index: int) -> bool:
        return False

    def end(self, *ended: Exit) -> None:
        self.ended += ended

    def exits(self) -> list[Exit]:
        ended, self.ended = self.ended, []
        return ended

    def close(self) -> None:
        pass


def test_a_resumed_run_plays_on_with_new_seeds():
    nursery = FakeNursery()
    master = SimulatorMaster(nursery, (2,), {}, COUNTING, seeds_of(5), lives_before=7)
    assert (nursery.specs[0]["life"], master.lives) == (8, 8)
    master.close()


def test_no_two_games_share_a_seed():
    games, specs = (3, 1, 2), []
    for seed in (0, 1, 2, 2**31 - 1):
        nursery = FakeNursery()
        master = SimulatorMaster(nursery, games, {}, COUNTING, seeds_of(seed))
        for _ in range(2):
            nursery.end(*(Exit(spec["index"], spec["life"], -9) for spec in nursery.specs[-3:]))
            assert master.receive(0) is None
        master.close()
        specs += nursery.specs
        assert [spec["index"] for spec in nursery.specs] == [0, 1, 2] * 3
        assert len({spec["life"] for spec in nursery.specs}) == 9
    assert all(spec["num_envs"] == games[spec["index"]] for spec in specs)
    all_seeds = [seed for spec in specs for seed in seeds(spec)]
    assert len(all_seeds) == 4 * 3 * sum(games)
    assert len(set(all_seeds)) == len(all_seeds)
    assert min(all_seeds) >= 0
