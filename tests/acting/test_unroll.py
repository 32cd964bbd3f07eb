"""From steps to batches: returns against a literal reference, unrolls and batches by named tables and by a tape."""

from __future__ import annotations

from a3c.acting.batches import Batch, BatchPool, Transitions, UnrollBatch, WholeUnrolls
from a3c.acting.unroll import Unroll, UnrollBuilder, aligned_empty, lambda_returns
from a3c.simulation.messages import RUNNING, TERMINATED, TRUNCATED
from atari_wrapper import FRAME_SHAPE, STATE_SHAPE

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

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
        self.builder = UnrollBuilder(envs, unroll_steps)
        self.rng = np.random.default_rng(seed)
        self.envs = envs
        self.decisions = 0
        self.states: list[np.ndarray] = []  # of each decision, [E, 84, 84, 12]
        self.rewards: list[np.ndarray] = []  # raw, of each decision's step
        self.ends: list[np.ndarray] = []
        self.history: list[list[np.ndarray]] = [[] for _ in range(envs)]

    def start(self) -> None:
        self._act(self.builder.start(self._frames(first=[True] * self.envs)))

    def step(self, ends, rewards=None) -> Unroll | None:
        """One message; returns copies of the unroll's arrays."""
        ends = np.array(ends, np.uint8)
        rewards = np.array(self.rng.normal(0, 2, self.envs) if rewards is None else rewards, np.float32)
        self.ends.append(ends)
        self.rewards.append(rewards)
        unroll = self.builder.record(rewards, ends)
        unroll = unroll and Unroll(*(array.copy() for array in unroll))
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


# BatchPool


def make_pool(batch_size, pool_states, reuse=1, gamma=0.99, gae_lambda=1.0, normalize=False, seed=0):
    items = Transitions(gamma, gae_lambda, normalize)
    return BatchPool(items, batch_size, pool_states, reuse, np.random.default_rng(seed))


def numbered_unroll(first: int, steps: int, envs: int, ends=RUNNING) -> Unroll:
    """Transitions whose columns all tell their number: first, first + 1, ..."""
    numbers = first + np.arange((steps + 1) * envs).reshape(steps + 1, envs)
    states = np.zeros((steps + 1, envs, *STATE_SHAPE), np.uint8)
    states[:] = (numbers % 251)[..., None, None, None]
    numbers = numbers[:-1]
    return Unroll(
        states=states,
        actions=numbers.astype(np.int32),
        mus=(1 / (1 + numbers)).astype(np.float32),
        values=np.zeros((steps, envs), np.float32),
        versions=numbers.astype(np.int64),
        rewards=numbers.astype(np.float32),
        ends=np.full((steps, envs), ends, np.uint8),
        bootstrap_values=np.zeros(envs, np.float32),
    )


def take(pool: BatchPool, unroll: Unroll) -> list[Batch]:
    """The batches that are complete with an unroll, made at once."""
    return [make_batch() for batches in pool.add(unroll) for make_batch in batches]


def fill(pool: BatchPool, unrolls: int, steps=3, envs=2) -> list[Batch]:
    made = (numbered_unroll(i * steps * envs, steps, envs, TERMINATED) for i in range(unrolls))
    return [batch for unroll in made for batch in take(pool, unroll)]


def assert_rows_belong_together(batch: Batch) -> None:
    np.testing.assert_array_equal(batch.states[:, 0, 0, 0], batch.actions % 251)
    np.testing.assert_array_equal(batch.states[:, -1, -1, -1], batch.actions % 251)
    np.testing.assert_array_equal(batch.versions, batch.actions)
    np.testing.assert_array_equal(batch.returns, batch.actions)
    np.testing.assert_array_equal(batch.mus, (1 / (1 + batch.actions)).astype(np.float32))


@pytest.mark.parametrize(
    ("batch_size", "unrolls", "batches"), [(6, 4, 4), (4, 2, 3), (4, 1, 1), (12, 1, 0), (5, 5, 6), (1, 1, 6)]
)
def test_pool_of_a_batch_keeps_the_order_of_arrival(batch_size, unrolls, batches):
    got = fill(make_pool(batch_size, batch_size), unrolls)
    assert [batch.actions.tolist() for batch in got] == [
        list(range(i * batch_size, (i + 1) * batch_size)) for i in range(batches)
    ]
    for batch in got:
        assert_rows_belong_together(batch)
        assert [column.dtype for column in batch] == ["u1", "i4", "f4", "f4", "f4", "i8"]
        assert batch.states.shape == (batch_size, *STATE_SHAPE)
        assert batch.states.ctypes.data % 64 == 0


@pytest.mark.parametrize(("batch_size", "pool_states", "reuse"), [(4, 12, 1), (4, 12, 3), (6, 6, 2), (3, 24, 2)])
def test_sample_reuse_counts(batch_size, pool_states, reuse):
    got = fill(make_pool(batch_size, pool_states, reuse), unrolls=8)
    passes = 48 // pool_states * reuse
    assert len(got) == passes * pool_states // batch_size
    for i in range(passes):
        batches = got[i * pool_states // batch_size : (i + 1) * pool_states // batch_size]
        numbers = np.concatenate([batch.actions for batch in batches])
        start = i // reuse * pool_states
        assert sorted(numbers) == list(range(start, start + pool_states))
    for batch in got:
        assert_rows_belong_together(batch)


def test_random_order_is_seeded_and_new_in_each_pass():
    def orders(seed):
        batches = fill(make_pool(6, 24, reuse=2, seed=seed), unrolls=8)
        return [np.concatenate([batch.actions for batch in batches[i : i + 4]]) % 24 for i in range(0, 16, 4)]

    passes = [tuple(order) for order in orders(0)]
    assert len(set(passes)) == len(passes) == 4
    assert tuple(range(24)) not in passes
    np.testing.assert_array_equal(orders(0), orders(0))
    assert not np.array_equal(orders(0), orders(1))


@pytest.mark.parametrize("pool_states", [6, 24])
def test_advantages_are_normalised_over_the_pool(pool_states):
    got = fill(make_pool(6, pool_states, reuse=2, normalize=True), unrolls=4)
    first_pool = got[: pool_states // 6]
    advantages = np.concatenate([batch.advantages for batch in first_pool])
    numbers = np.concatenate([batch.actions for batch in first_pool])
    raw = np.arange(pool_states)  # rewards are the numbers, values 0
    np.testing.assert_allclose(advantages, (numbers - raw.mean()) / raw.std(), rtol=1e-4, atol=1e-5)
    for batch in got:
        np.testing.assert_array_equal(batch.returns, batch.actions)


def test_equal_advantages_normalise_to_zero():
    unroll = numbered_unroll(0, 3, 2, TERMINATED)._replace(rewards=np.ones((3, 2), np.float32))
    (batch,) = take(make_pool(6, 6, normalize=True), unroll)
    assert batch.advantages.tolist() == [0] * 6


def test_all_truncated_adds_nothing():
    pool = make_pool(2, 2)
    assert take(pool, numbered_unroll(0, 3, 2, TRUNCATED)) == []
    (batch, *_) = take(pool, numbered_unroll(6, 3, 2))
    assert batch.actions.tolist() == [6, 7]


@pytest.mark.parametrize(("pool_states", "reuse", "batches"), [(4, 1, 18), (4, 2, 36), (16, 2, 32)])
def test_batches_in_the_queue_are_never_overwritten(pool_states, reuse, batches):
    pool = make_pool(4, pool_states, reuse)
    queue, copies = [], []
    for i in range(12):
        unroll = numbered_unroll(i * 6, 3, 2)
        for batch in take(pool, unroll):
            queue.append(batch)
            copies.append([column.copy() for column in batch])
        for array in unroll:  # the builder goes on, in the same arrays
            array[:] = 99
    assert len(queue) == batches
    for batch, copy in zip(queue, copies, strict=True):
        for column, kept in zip(batch, copy, strict=True):
            np.testing.assert_array_equal(column, kept)


def test_a_pool_is_not_filled_again_before_its_last_batch_was_drawn():
    pool = make_pool(2, 6, reuse=2)
    waiting = [batches for i in range(3) for batches in pool.add(numbered_unroll(i * 6, 3, 2))]
    for number, batches in enumerate(waiting):
        drawn = [make_batch() for make_batch in batches[:-1]]
        for later in (100, 200):
            assert len(list(pool.add(numbered_unroll(later, 3, 2)))) == 1
        drawn.append(batches[-1]())
        numbers = np.concatenate([batch.actions for batch in drawn])
        assert sorted(numbers) == sorted(2 * list(range(6 * number, 6 * number + 6)))
        for batch in drawn:
            np.testing.assert_array_equal(batch.states[:, 0, 0, 0], batch.actions)


@pytest.mark.parametrize("left", [0, 1, 2])
def test_two_pools_are_enough(left):
    made = []
    items = Transitions(0.99, 1.0, False)
    empty = items.empty
    items.empty = lambda size: made.append(size) or empty(size)
    pool = BatchPool(items, 2, 6, 1, np.random.default_rng(0))
    waiting, drawn = [], []
    for number in range(6):
        for batches in pool.add(numbered_unroll(number * 6, 3, 2)):
            waiting += batches
            while len(waiting) > left:  # the master waits for room
                drawn.append(waiting.pop(0)())
    assert made.count(6) == 2
    assert np.concatenate([batch.actions for batch in drawn]).size == 36 - 2 * left


def test_a_pool_that_is_a_batch_is_given_away():
    pool = make_pool(6, 6)
    first, second = (take(pool, numbered_unroll(number, 3, 2))[0] for number in (0, 6))
    assert not np.shares_memory(first.states, second.states)


# Whole unrolls


def unroll_pool(steps, batch_size, pool_states, reuse=1) -> BatchPool:
    return BatchPool(WholeUnrolls(steps), batch_size, pool_states, reuse, np.random.default_rng(0))


def assert_whole_unrolls(batch: UnrollBatch, steps: int, envs: int) -> None:
    np.testing.assert_array_equal(batch.actions, batch.actions[:, :1] + envs * np.arange(steps))
    states = batch.actions[:, :1] + envs * np.arange(steps + 1)
    for pixel in (batch.states[:, :, 0, 0, 0], batch.states[:, :, -1, -1, -1]):
        np.testing.assert_array_equal(pixel, states % 251)
    np.testing.assert_array_equal(batch.versions, batch.actions)
    np.testing.assert_array_equal(batch.rewards, batch.actions)
    np.testing.assert_array_equal(batch.mus, (1 / (1 + batch.actions)).astype(np.float32))


@pytest.mark.parametrize(
    ("steps", "envs", "batch_size", "pool_states", "reuse"),
    [(3, 2, 6, 6, 1), (3, 4, 6, 6, 2), (1, 3, 2, 2, 1), (3, 2, 6, 18, 2), (2, 3, 2, 12, 1), (4, 5, 8, 8, 1)],
)
def test_whole_unrolls_stay_whole(steps, envs, batch_size, pool_states, reuse):
    pool = unroll_pool(steps, batch_size, pool_states, reuse)
    unrolls = 6
    made = [numbered_unroll(i * steps * envs, steps, envs) for i in range(unrolls)]
    batches = []
    for unroll in made:
        ends = np.random.default_rng(len(batches)).integers(0, 3, unroll.ends.shape)
        unroll.ends[:] = ends
        batches += take(pool, unroll)
        for array in unroll:  # the builder goes on, in the same arrays
            array[:] = 99
    filled = unrolls * steps * envs // pool_states
    assert len(batches) == filled * reuse * (pool_states // batch_size)
    for batch in batches:
        assert batch.states.shape == (batch_size // steps, steps + 1, *STATE_SHAPE)
        assert batch.states.ctypes.data % 64 == 0
        assert [column.dtype for column in batch] == ["u1", "i4", "f4", "u1", "f4", "i8"]
        assert_whole_unrolls(batch, steps, envs)
    games = [batch.actions[:, 0] for batch in batches]
    starts = np.array([i * steps * envs + env for i in range(unrolls) for env in range(envs)])
    expected = starts[: filled * pool_states // steps]
    np.testing.assert_array_equal(np.sort(np.concatenate(games)), np.sort(np.repeat(expected, reuse)))
    if pool_states == batch_size:
        np.testing.assert_array_equal(np.concatenate(games[::reuse]), expected)  # in the order of arrival


def test_whole_unrolls_keep_their_ends():
    unroll = numbered_unroll(0, 3, 2)
    unroll.ends[:] = [[R, T], [C, R], [T, C]]
    (batch,) = take(unroll_pool(3, 6, 6), unroll)
    assert batch.ends.tolist() == [[R, C, T], [T, R, C]]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int64])
def test_aligned_empty(dtype):
    arrays = [aligned_empty((size, 3), dtype) for size in range(1, 60)]
    for size, array in enumerate(arrays, start=1):
        assert array.ctypes.data % 64 == 0
        assert array.shape == (size, 3)
        assert array.dtype == dtype
        assert array.flags.c_contiguous
        array[:] = size
    assert [int(array.sum()) for array in arrays] == [3 * size * size for size in range(1, 60)]
