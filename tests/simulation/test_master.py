"""Simulators and their master: real processes and real sockets, on fake games and on Pong."""

from __future__ import annotations

from a3c.simulation.master import SimulatorMaster
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
from a3c.simulation.nursery import Exit
from atari_wrapper import make_player

import numpy as np
import pytest
import zmq
from fake_games import COUNTING, FakeCountingGame, FakeFrame, read_fake_frame
from masters import fake_action, fake_actions, receive, seeds, seeds_of, send, steps
from processes import wait_until

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


# Strangers.


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
