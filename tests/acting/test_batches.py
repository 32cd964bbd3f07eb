"""The pool of batches: order, reuse, whole unrolls, and that nothing is overwritten."""

from __future__ import annotations

from a3c.acting.batches import Batch, BatchPool, Transitions, UnrollBatch, WholeUnrolls
from a3c.acting.unroll import Unroll, aligned_empty
from a3c.simulation.messages import RUNNING, TERMINATED, TRUNCATED
from atari_wrapper import STATE_SHAPE

import numpy as np
import pytest
from pools import make_pool, take

R, T, C = RUNNING, TERMINATED, TRUNCATED


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
        give_back=lambda: None,
    )


def overwritten_when_given_back(unroll: Unroll) -> Unroll:
    """The builder goes on in the same arrays."""
    *arrays, _ = unroll

    def give_back():
        for array in arrays:
            array[:] = 99

    return unroll._replace(give_back=give_back)


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
    pool, given_back = make_pool(2, 2), []
    unroll = numbered_unroll(0, 3, 2, TRUNCATED)._replace(give_back=lambda: given_back.append(0))
    assert take(pool, unroll) == []
    assert given_back == [0]
    (batch, *_) = take(pool, numbered_unroll(6, 3, 2))
    assert batch.actions.tolist() == [6, 7]


@pytest.mark.parametrize(("pool_states", "reuse", "batches"), [(4, 1, 18), (4, 2, 36), (16, 2, 32)])
def test_batches_in_the_queue_are_never_overwritten(pool_states, reuse, batches):
    pool = make_pool(4, pool_states, reuse)
    queue, copies = [], []
    for i in range(12):
        unroll = overwritten_when_given_back(numbered_unroll(i * 6, 3, 2))
        for batch in take(pool, unroll):
            queue.append(batch)
            copies.append([column.copy() for column in batch])
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


# Unrolls of 6 transitions; given back when all is added, and after each batch that is made.
@pytest.mark.parametrize(
    ("pool_states", "given_back"),
    [(4, [0, 0, 1, 2, 2, 3, 4]), (6, [0, 1, 2, 3, 4]), (12, [0, 2, 4]), (24, [0, 4])],
)
def test_an_unroll_is_given_back_with_its_last_item(pool_states, given_back):
    pool, back, waiting = make_pool(pool_states, pool_states), [], []
    for number in range(4):
        unroll = numbered_unroll(number * 6, 3, 2)._replace(give_back=lambda number=number: back.append(number))
        for batches in pool.add(unroll):
            waiting += batches
    counts = [len(back)]
    for make_batch in waiting:
        make_batch()
        counts.append(len(back))
    assert counts == given_back
    assert back == [0, 1, 2, 3]


def test_a_large_pool_gives_its_unrolls_back_at_once():
    pool, back = make_pool(2, 24), []
    for number in range(4):
        unroll = numbered_unroll(number * 6, 3, 2)._replace(give_back=lambda number=number: back.append(number))
        list(pool.add(unroll))
        assert back == list(range(number + 1))


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
        batches += take(pool, overwritten_when_given_back(unroll))
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
