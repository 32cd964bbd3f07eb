"""From steps to unrolls: returns against a literal reference, unrolls by named tables and by a tape."""

from __future__ import annotations

from a3c.acting.batches import Batch, Transitions, WholeUnrolls
from a3c.acting.unroll import Unroll, UnrollBuilder, lambda_returns
from a3c.simulation.messages import RUNNING, TERMINATED, TRUNCATED
from atari_wrapper import FRAME_SHAPE

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from pools import make_pool, take

R, T, C = RUNNING, TERMINATED, TRUNCATED


# lambda_returns


def literal_returns(rewards, values, ends, bootstrap_values, gamma, gae_lambda):
    """Forward sums of one step at a time, float64. GAE: advantage = sum over l of (gamma lambda)^l delta_(t+l)."""
    steps, envs = rewards.shape
    v = np.concatenate([values, bootstrap_values[None]]).astype(np.float64)
    returns = np.zeros((steps, envs))
    for env in range(envs):
        for t in range(steps):
            returns[t, env] = v[t, env]
            for i in range(t, steps):
                if ends[i, env] == TRUNCATED:  # its state is the last one known: nothing is summed beyond it
                    break
                v_next = 0 if ends[i, env] == TERMINATED else v[i + 1, env]
                delta = rewards[i, env] + gamma * v_next - v[i, env]
                returns[t, env] += (gamma * gae_lambda) ** (i - t) * delta
                if ends[i, env] == TERMINATED:
                    break
    return returns


def literal_n_step_returns(rewards, values, ends, bootstrap_values, gamma):
    """sum of gamma^l r_(t+l), and gamma^n times the value of the last state that was predicted."""
    steps, envs = rewards.shape
    returns = np.zeros((steps, envs))
    for env in range(envs):
        for t in range(steps):
            total, discount = 0.0, 1.0
            for i in range(t, steps):
                if ends[i, env] == TRUNCATED:
                    total += discount * float(values[i, env])
                    break
                total += discount * float(rewards[i, env])
                discount *= gamma
                if ends[i, env] == TERMINATED:
                    break
            else:
                total += discount * float(bootstrap_values[env])
            returns[t, env] = total
    return returns


@st.composite
def unroll_arrays(draw):
    steps, envs = draw(st.integers(1, 7)), draw(st.integers(1, 3))
    reals = st.floats(-8, 8, width=32)
    kinds = draw(st.sampled_from([(R, T, C), (R, R, R, T, C), (R,), (T,), (C,)]))
    ends = draw(hnp.arrays(np.uint8, (steps, envs), elements=st.sampled_from(kinds)))
    rewards, values = (draw(hnp.arrays(np.float32, (steps, envs), elements=reals)) for _ in range(2))
    return rewards, values, ends, draw(hnp.arrays(np.float32, envs, elements=reals))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(unroll_arrays(), st.floats(0, 1), st.floats(0, 1))
def test_returns_equal_the_literal_sums(arrays, gamma, gae_lambda):
    gae = lambda_returns(*arrays, gamma, gae_lambda)
    np.testing.assert_allclose(gae, literal_returns(*arrays, gamma, gae_lambda), rtol=1e-5, atol=2e-4)
    n_step = lambda_returns(*arrays, gamma, 1.0)
    np.testing.assert_allclose(n_step, literal_n_step_returns(*arrays, gamma), rtol=1e-5, atol=2e-4)
    assert gae.dtype == n_step.dtype == np.float32


# gamma 0.5; rewards 1, 2, 4; values 10, 20, 30; bootstrap value 40.
RETURNS = {
    "running": ((R, R, R), 1.0, (1 + 0.5 * 14, 2 + 0.5 * 24, 4 + 0.5 * 40)),
    "terminated first": ((T, R, R), 1.0, (1, 2 + 0.5 * 24, 4 + 0.5 * 40)),
    "terminated last": ((R, R, T), 1.0, (1 + 0.5 * 4, 2 + 0.5 * 4, 4)),
    "terminated always": ((T, T, T), 1.0, (1, 2, 4)),
    "truncated first": ((C, R, R), 1.0, (10, 2 + 0.5 * 24, 4 + 0.5 * 40)),
    "truncated in the middle": ((R, C, R), 1.0, (1 + 0.5 * 20, 20, 4 + 0.5 * 40)),
    "truncated last": ((R, R, C), 1.0, (1 + 0.5 * 17, 2 + 0.5 * 30, 30)),
    "truncated always": ((C, C, C), 1.0, (10, 20, 30)),
    "one step ahead": ((R, R, R), 0.0, (1 + 0.5 * 20, 2 + 0.5 * 30, 4 + 0.5 * 40)),
    "half way": ((R, R, R), 0.5, (1 + 0.25 * 20 + 0.25 * 15.5, 2 + 0.25 * 30 + 0.25 * 24, 4 + 0.5 * 40)),
}


@pytest.mark.parametrize(("ends", "gae_lambda", "expected"), RETURNS.values(), ids=RETURNS)
def test_returns_by_hand(ends, gae_lambda, expected):
    rewards = np.array([[1], [2], [4]], np.float32)
    values = np.array([[10], [20], [30]], np.float32)
    ends = np.array(ends, np.uint8)[:, None]
    returns = lambda_returns(rewards, values, ends, np.array([40], np.float32), 0.5, gae_lambda)
    np.testing.assert_allclose(returns[:, 0], expected, rtol=1e-6)


@pytest.mark.parametrize(("end", "expected"), [(R, 1 + 0.5 * 40), (T, 1), (C, 10)])
def test_return_of_an_unroll_of_one_step(end, expected):
    returns = lambda_returns(
        np.array([[1]], np.float32),
        np.array([[10]], np.float32),
        np.array([[end]], np.uint8),
        np.array([40], np.float32),
        0.5,
        0.9,
    )
    assert returns.tolist() == [[expected]]


# UnrollBuilder


class Tape:
    """Plays a script into a builder, and keeps a literal record of what it did.

    Each transition's action, mu, value and version tell its number, so that it is known wherever it turns up.
    """

    def __init__(self, unroll_steps: int, envs: int, seed: int = 0):
        self.unroll_steps, self.envs = unroll_steps, envs
        self.rng = np.random.default_rng(seed)
        self.decisions = 0
        self.states: list[np.ndarray] = []  # of each decision, [E, 84, 84, 12]
        self.rewards: list[np.ndarray] = []  # raw, of each decision's step
        self.ends: list[np.ndarray] = []
        self.history: list[list[np.ndarray]] = [[] for _ in range(envs)]

    def start(self) -> None:
        self.builder = UnrollBuilder(self.envs, self.unroll_steps)
        self._act(self.builder.push(self._frames(first=[True] * self.envs)))

    def step(self, ends, rewards=None) -> Unroll | None:
        """One message; returns the unroll that is complete with it."""
        ends = np.array(ends, np.uint8)
        rewards = np.array(self.rng.normal(0, 2, self.envs) if rewards is None else rewards, np.float32)
        self.ends.append(ends)
        self.rewards.append(rewards)
        unroll = self.builder.record(rewards, ends)
        self._act(self.builder.push(self._frames(first=ends != RUNNING)))
        return unroll

    def _frames(self, first) -> np.ndarray:
        frames = self.rng.integers(1, 256, (self.envs, *FRAME_SHAPE), np.uint8)
        for env in range(self.envs):
            if first[env]:
                self.history[env] = [np.zeros(FRAME_SHAPE, np.uint8)] * 3
            self.history[env] = [*self.history[env][-3:], frames[env]]
        return frames

    def _act(self, states: np.ndarray) -> None:
        self.states.append(np.stack([np.concatenate(frames, axis=-1) for frames in self.history]))
        np.testing.assert_array_equal(states, self.states[-1])
        number = self.decisions
        self.builder.decide(*self.decision(number), version=1000 + number)
        self.decisions += 1

    def decision(self, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Actions, mus and values of a decision; an action is 100 * number + env."""
        tags = 100 * number + np.arange(self.envs)
        return tags, (1 / (1 + tags)).astype(np.float32), tags.astype(np.float32) / 64


# Script of one simulator with one game: "start", or how the episode went on. Unrolls expected, as the numbers of
# the decisions they hold; the next decision is the bootstrap.
UNROLLS = {
    "nothing before T + 1 messages": (3, ["start", R, R, R], []),
    "first unroll": (3, ["start", R, R, R, R], [(0, 1, 2)]),
    "step T opens the next unroll": (3, ["start"] + 7 * [R], [(0, 1, 2), (3, 4, 5)]),
    "unroll of one": (1, ["start", R, T, C, R], [(0,), (1,), (2,)]),
    "terminal inside": (3, ["start", R, T, R, R, R, T, R], [(0, 1, 2), (3, 4, 5)]),
    "terminal at the border": (2, ["start", R, T, R, T, R], [(0, 1), (2, 3)]),
    "truncated inside": (3, ["start", C, R, R, R], [(0, 1, 2)]),
    "reborn in the middle": (3, ["start", R, R, "start", R, R, R, R], [(3, 4, 5)]),
    "reborn after an unroll": (2, ["start", R, R, R, "start", R, R, R], [(0, 1), (4, 5)]),
    "reborn before its first step": (2, ["start", "start", R, R, R], [(1, 2)]),
}


@pytest.mark.parametrize(("steps", "script", "expected"), UNROLLS.values(), ids=UNROLLS)
def test_unrolls_of_a_script(steps, script, expected):
    tape = Tape(steps, envs=1)
    unrolls, ends = [], {}
    for event in script:
        if event == "start":
            tape.start()
            continue
        ends[tape.decisions - 1] = event
        unroll = tape.step([event])
        unrolls += [unroll] if unroll else []
    assert [tuple(unroll.actions[:, 0] // 100) for unroll in unrolls] == expected
    for unroll, numbers in zip(unrolls, expected, strict=True):
        actions, mus, values = (np.stack(column) for column in zip(*map(tape.decision, numbers), strict=True))
        states = [tape.states[number] for number in (*numbers, numbers[-1] + 1)]
        np.testing.assert_array_equal(unroll.states, np.stack(states))
        np.testing.assert_array_equal(unroll.actions, actions)
        np.testing.assert_array_equal(unroll.mus, mus)
        np.testing.assert_array_equal(unroll.values, values)
        assert unroll.versions[:, 0].tolist() == [1000 + number for number in numbers]
        assert unroll.ends[:, 0].tolist() == [ends[number] for number in numbers]
        assert unroll.bootstrap_values == tape.decision(numbers[-1] + 1)[2]


def test_batches_have_the_states_that_were_acted_on():
    tape = Tape(unroll_steps=2, envs=2)
    transitions, unrolls = Transitions(0.9, 0.9, False), WholeUnrolls(2)
    tape.start()
    tape.step([R, T])
    tape.step([R, R])
    unroll = tape.step([R, R])
    for items, size in ((transitions, 4), (unrolls, 2)):
        cut, empty = items.cut(unroll), items.empty(size)
        assert [column.shape for column in empty] == [column.shape for column in cut]
        assert [column.dtype for column in empty] == [column.dtype for column in cut]
        shown = np.stack(tape.states[: 2 + (items is unrolls)])
        if items is unrolls:
            shown = shown.swapaxes(0, 1)
        np.testing.assert_array_equal(cut.states, shown.reshape(cut.states.shape))


def test_rewards_are_clipped_and_belong_to_the_step_that_earned_them():
    tape = Tape(unroll_steps=4, envs=2)
    tape.start()
    for rewards in [(7, -7), (0.5, -0.25), (1, -1), (0, 100)]:
        assert tape.step([R, R], rewards) is None
    unroll = tape.step([R, R], [9, 9])
    assert unroll.rewards.tolist() == [[1, -1], [0.5, -0.25], [1, -1], [0, 1]]


def test_games_of_a_block_end_independently():
    tape = Tape(unroll_steps=6, envs=3)
    tape.start()
    for ends in [(R, T, R), (R, R, C), (R, T, R), (R, R, R), (R, R, R), (R, R, R)]:
        assert tape.step(ends) is None
    unroll = tape.step([R, R, R])
    assert unroll.ends.T.tolist() == [[R, R, R, R, R, R], [T, R, T, R, R, R], [R, C, R, R, R, R]]
    assert unroll.states[2, 2, ..., :9].max() == 0  # the step after the truncation is an episode's first
    assert unroll.states[2, 0, ..., 3:].min() > 0


@pytest.mark.parametrize(("held", "arrays"), [(0, 2), (1, 3), (3, 5)])
def test_arrays_that_were_given_back_are_built_in_again(held, arrays):
    tape, waiting, seen = Tape(unroll_steps=2, envs=1), [], set()
    tape.start()
    for number in range(20):
        unroll = tape.step([R])
        if unroll is None:
            continue
        seen.add(unroll.states.ctypes.data)
        waiting.append((number, unroll))
        if len(waiting) > held:
            first, oldest = waiting.pop(0)
            assert oldest.actions[:, 0].tolist() == [100 * (first - 2), 100 * (first - 1)]
            oldest.give_back()
    assert len(seen) == arrays


# The tape: everything together


@pytest.mark.parametrize(("unroll_steps", "gae_lambda"), [(1, 1.0), (5, 1.0), (7, 0.9)])
def test_every_transition_is_in_the_batches_once(unroll_steps, gae_lambda):
    batch_size, gamma, messages = 16, 0.9, 90
    tape = Tape(unroll_steps, envs=3, seed=unroll_steps)
    pool = make_pool(batch_size, batch_size, gamma=gamma, gae_lambda=gae_lambda)
    batches, starts = [], [0]
    tape.start()
    for message in range(messages):
        if message in (31, 70):  # reborn
            starts.append(tape.decisions)
            tape.ends.append(None)
            tape.rewards.append(None)
            tape.start()
        unroll = tape.step(tape.rng.choice([R, T, C], 3, p=[0.8, 0.1, 0.1]))
        batches += take(pool, unroll) if unroll else []

    expected = []  # (action, state, version, mu, return, advantage), in the order of arrival
    for start, stop in zip(starts, [*starts[1:], tape.decisions], strict=True):
        for first in range(start, stop - unroll_steps - 1, unroll_steps):
            numbers = range(first, first + unroll_steps)
            actions, mus, values = (np.stack(column) for column in zip(*map(tape.decision, numbers), strict=True))
            ends = np.stack([tape.ends[number] for number in numbers])
            rewards = np.clip(np.stack([tape.rewards[number] for number in numbers]), -1, 1)
            bootstrap_values = tape.decision(first + unroll_steps)[2]
            returns = literal_returns(rewards, values, ends, bootstrap_values, gamma, gae_lambda)
            expected += [
                (actions[t, env], tape.states[number][env], 1000 + number, mus[t, env], returns[t, env],
                 returns[t, env] - values[t, env])
                for t, number in enumerate(numbers)
                for env in range(3)
                if ends[t, env] != TRUNCATED
            ]  # fmt: skip
    actions, states, versions, mus, returns, advantages = (np.array(column) for column in zip(*expected, strict=True))
    got = Batch(*(np.concatenate(column) for column in zip(*batches, strict=True)))
    assert len(got.actions) == len(actions) // batch_size * batch_size
    assert any(C in ends for ends in tape.ends if ends is not None)
    count = len(got.actions)
    assert got.actions.tolist() == actions[:count].tolist()
    np.testing.assert_array_equal(got.states, states[:count])
    np.testing.assert_array_equal(got.versions, versions[:count])
    np.testing.assert_array_equal(got.mus, mus[:count])
    np.testing.assert_allclose(got.returns, returns[:count], rtol=1e-5)
    np.testing.assert_allclose(got.advantages, advantages[:count], rtol=1e-4, atol=1e-4)
