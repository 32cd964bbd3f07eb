"""From steps to batches: unrolls, returns, and the pool that batches are drawn from. numpy only.

An ``UnrollBuilder`` keeps the steps of one simulator's E games as arrays ``[T + 1, E, ...]``. The value of step T,
predicted when its action was chosen, is the bootstrap of steps 0 to T - 1; step T then opens the next unroll.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from a3c.simulation.messages import RUNNING, TERMINATED, TRUNCATED
from atari_wrapper import FRAME_SHAPE, STATE_SHAPE, stack_frames

import numpy as np

_ALIGNMENT_BYTES = 64  # TensorFlow takes arrays so aligned without a copy


class Unroll(NamedTuple):
    """T consecutive steps of E games. Views of a builder's arrays: good until its next ``push``.

    Attributes:
        states: uint8 ``[T + 1, E, 84, 84, 12]``; the last is the one after the T steps.
        actions: int32 ``[T, E]``.
        mus: behaviour probability of the action, float32 ``[T, E]``.
        values: value predicted when acting, float32 ``[T, E]``.
        versions: learner updates when acting, int64 ``[T, E]``.
        rewards: clipped rewards, float32 ``[T, E]``.
        ends: how the episode went on after the step, uint8 ``[T, E]``.
        bootstrap_values: value of the state after the last step, float32 ``[E]``.
    """

    states: np.ndarray
    actions: np.ndarray
    mus: np.ndarray
    values: np.ndarray
    versions: np.ndarray
    rewards: np.ndarray
    ends: np.ndarray
    bootstrap_values: np.ndarray


class Batch(NamedTuple):
    """What the learner takes: B transitions, in the order of the model's inputs.

    Attributes:
        states: uint8 ``[B, 84, 84, 12]``.
        actions: int32 ``[B]``.
        returns: the value's target, float32 ``[B]``.
        advantages: return - value predicted when acting, float32 ``[B]``; perhaps normalised.
        mus: behaviour probability of the action, float32 ``[B]``.
        versions: learner updates when acting, int64 ``[B]``.
    """

    states: np.ndarray
    actions: np.ndarray
    returns: np.ndarray
    advantages: np.ndarray
    mus: np.ndarray
    versions: np.ndarray


class UnrollBatch(NamedTuple):
    """What the learner takes if it works out the returns itself (V-trace): N unrolls of one game each.

    Attributes:
        states: uint8 ``[N, T + 1, 84, 84, 12]``; the last is the one after the T steps.
        actions: int32 ``[N, T]``.
        rewards: clipped rewards, float32 ``[N, T]``.
        ends: how the episode went on after the step, uint8 ``[N, T]``.
        mus: behaviour probability of the action, float32 ``[N, T]``.
        versions: learner updates when acting, int64 ``[N, T]``.
    """

    states: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    ends: np.ndarray
    mus: np.ndarray
    versions: np.ndarray


MakeBatch = Callable[[], Batch | UnrollBatch]


def aligned_empty(shape: tuple[int, ...], dtype) -> np.ndarray:
    """Like ``numpy.empty``, the data aligned to 64 bytes."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    buffer = np.empty(size + _ALIGNMENT_BYTES, np.uint8)
    start = -buffer.ctypes.data % _ALIGNMENT_BYTES
    return buffer[start : start + size].view(dtype).reshape(shape)


def lambda_returns(
    rewards: np.ndarray,
    values: np.ndarray,
    ends: np.ndarray,
    bootstrap_values: np.ndarray,
    gamma: float,
    gae_lambda: float,
) -> np.ndarray:
    """Compute lambda-returns backwards (Schulman et al. 2016, "GAE", equation 16: return = advantage + value).

    With ``gae_lambda`` 1 they are n-step returns to the end of the unroll, bootstrapped there (Mnih et al. 2016,
    "A3C", algorithm S3). A terminated episode has no value after it. A truncated one goes on unseen, so its last
    transition, which leads there, stands for nothing (it is to be dropped: its return here is the value of its own
    state), and that value is the bootstrap of the transition before.

    Args:
        rewards, values: float32 ``[T, E]``.
        ends: uint8 ``[T, E]``.
        bootstrap_values: value of the state after step T - 1, float32 ``[E]``.
        gamma: discount per step.
        gae_lambda: lambda.

    Returns:
        float32 ``[T, E]``.
    """
    returns = np.empty_like(rewards)
    v_t, return_t = bootstrap_values, bootstrap_values
    for t in reversed(range(len(rewards))):
        ahead = gamma * ((1 - gae_lambda) * v_t + gae_lambda * return_t)
        target = rewards[t] + np.where(ends[t] == TERMINATED, np.float32(0), ahead)
        returns[t] = np.where(ends[t] == TRUNCATED, values[t], target)
        v_t, return_t = values[t], returns[t]
    return returns


class UnrollBuilder:
    """Collects the steps of one simulator's games.

    The master's thread calls ``start``, ``record`` and ``push``; between ``push`` and the simulator's next message
    the newest step belongs to the predictor, which calls ``decide``.
    """

    def __init__(self, num_envs: int, unroll_steps: int):
        steps, shape = unroll_steps, (unroll_steps + 1, num_envs)
        self._steps = steps
        self._t = 0
        self._states = aligned_empty((*shape, *STATE_SHAPE), np.uint8)
        self._actions = np.zeros(shape, np.int32)
        self._mus = np.zeros(shape, np.float32)
        self._values = np.zeros(shape, np.float32)
        self._versions = np.zeros(shape, np.int64)
        self._rewards = np.zeros(shape, np.float32)
        self._ends = np.zeros(shape, np.uint8)

    def start(self, frames: np.ndarray) -> np.ndarray:
        """Forget everything and begin with first frames, uint8 ``[E, 84, 84, 3]``. Returns the states."""
        self._t = 0
        self._states[0] = 0
        self._states[0, ..., -FRAME_SHAPE[-1] :] = frames
        return self._states[0]

    def decide(self, actions: np.ndarray, mus: np.ndarray, values: np.ndarray, version: int) -> None:
        """Complete the newest step with the behaviour policy's choice; arrays ``[E]``."""
        t = self._t
        self._actions[t], self._mus[t], self._values[t], self._versions[t] = actions, mus, values, version

    def record(self, rewards: np.ndarray, ends: np.ndarray) -> Unroll | None:
        """Add what came of the newest step's actions.

        Args:
            rewards: raw rewards, float32 ``[E]``; clipped to [-1, 1] here.
            ends: uint8 ``[E]``.

        Returns:
            The unroll of the T steps before the newest one, if it is complete.
        """
        t = self._t
        np.clip(rewards, -1, 1, out=self._rewards[t])
        self._ends[t] = ends
        if t < self._steps:
            return None
        arrays = (self._states, self._actions, self._mus, self._values, self._versions, self._rewards, self._ends)
        _, *columns = (array[:t] for array in arrays)
        return Unroll(self._states, *columns, bootstrap_values=self._values[t])

    def push(self, frames: np.ndarray) -> np.ndarray:
        """Open the next step with its newest frames, uint8 ``[E, 84, 84, 3]``. Returns the states to act on."""
        if self._t == self._steps:
            for array in (
                self._states, self._actions, self._mus, self._values, self._versions, self._rewards, self._ends
            ):  # fmt: skip
                array[0] = array[self._t]
            self._t = 0
        t = self._t
        stack_frames(self._states[t], frames, self._ends[t] != RUNNING, out=self._states[t + 1])
        self._t = t + 1
        return self._states[t + 1]


class Transitions:
    """Unrolls cut into single transitions, with the returns of the behaviour policy's values: a pool's items."""

    steps = 1

    def __init__(self, gamma: float, gae_lambda: float, normalize_advantages: bool):
        self._gamma, self._gae_lambda, self._normalize = gamma, gae_lambda, normalize_advantages

    def cut(self, unroll: Unroll) -> Batch:
        """All transitions of an unroll but truncated ones."""
        returns = lambda_returns(
            unroll.rewards, unroll.values, unroll.ends, unroll.bootstrap_values, self._gamma, self._gae_lambda
        )
        advantages = returns - unroll.values
        columns = Batch(unroll.states[:-1], unroll.actions, returns, advantages, unroll.mus, unroll.versions)
        flat = Batch(*(column.reshape(-1, *column.shape[2:]) for column in columns))
        keep = unroll.ends.reshape(-1) != TRUNCATED
        return flat if keep.all() else Batch(*(column[keep] for column in flat))

    def complete(self, pool: Batch) -> None:
        """Do what needs the whole pool."""
        if self._normalize:
            centred = pool.advantages - pool.advantages.mean()
            pool.advantages[:] = centred / (centred.std() + 1e-8)

    def empty(self, items: int) -> Batch:
        """Room for items."""
        return empty_batch(items)


class WholeUnrolls:
    """Unrolls cut into those of single games: a pool's items for V-trace."""

    def __init__(self, steps: int):
        self.steps = steps

    def cut(self, unroll: Unroll) -> UnrollBatch:
        """The unroll of each game."""
        columns = (unroll.states, unroll.actions, unroll.rewards, unroll.ends, unroll.mus, unroll.versions)
        return UnrollBatch(*(column.swapaxes(0, 1) for column in columns))

    def complete(self, pool: UnrollBatch) -> None:
        """Nothing: the learner works out the returns."""

    def empty(self, items: int) -> UnrollBatch:
        """Room for items; the states are aligned."""
        columns = (
            np.empty((items, self.steps), dtype) for dtype in (np.int32, np.float32, np.uint8, np.float32, np.int64)
        )
        return UnrollBatch(aligned_empty((items, self.steps + 1, *STATE_SHAPE), np.uint8), *columns)


class BatchPool:
    """Collects transitions, or whole unrolls, and hands them out in batches.

    A pool of the size of a batch gives them out in the order of arrival. A larger one gives out, each time it is
    full, all its items ``sample_reuse`` times over, each time in a new random order.

    The master's thread fills it; the learner's makes the batches, while the next pool is being filled.
    """

    def __init__(
        self,
        items: Transitions | WholeUnrolls,
        batch_size: int,
        pool_states: int,
        sample_reuse: int,
        rng: np.random.Generator,
    ):
        """
        Args:
            items: what an unroll is cut into.
            batch_size, pool_states: transitions in a batch and in the pool, multiples of those in an item.
            sample_reuse: batches that each item is part of.
            rng: draws the orders.
        """
        self._items = items
        self._batch_items = batch_size // items.steps
        self._pool_items = pool_states // items.steps
        self._sample_reuse = sample_reuse
        self._rng = rng
        self._size = 0
        self._pool: Batch | UnrollBatch | None = None
        # In turn: a third is made only for a queue so deep that it holds batches of both.
        self._spare: deque[Batch | UnrollBatch] = deque()
        if self._pool_items > self._batch_items:
            self._spare.extend(items.empty(self._pool_items) for _ in range(2))

    def add(self, unroll: Unroll) -> Iterator[list[MakeBatch]]:
        """Take in an unroll; yield what makes the batches of each pool that is full, each to be called once, in order.

        Exhaust it before the builder goes on.
        """
        columns = self._items.cut(unroll)
        done, total = 0, len(columns.states)
        while done < total:
            if self._pool is None:  # not earlier: by now the learner may have drawn the last of the one before
                self._pool = self._spare.popleft() if self._spare else self._items.empty(self._pool_items)
            take = min(total - done, self._pool_items - self._size)
            for pool, column in zip(self._pool, columns, strict=True):
                pool[self._size : self._size + take] = column[done : done + take]
            done, self._size = done + take, self._size + take
            if self._size == self._pool_items:
                yield self._hand_out()

    def _hand_out(self) -> list[MakeBatch]:
        pool, self._pool, self._size = self._pool, None, 0
        self._items.complete(pool)
        if self._pool_items == self._batch_items:
            return [lambda: pool] * self._sample_reuse  # the learner's, from here on
        orders = [self._rng.permutation(self._pool_items) for _ in range(self._sample_reuse)]
        starts = range(0, self._pool_items, self._batch_items)
        parts = [order[start : start + self._batch_items] for order in orders for start in starts]
        return [partial(self._draw, pool, part, part is parts[-1]) for part in parts]

    def _draw(self, pool: Batch | UnrollBatch, part: np.ndarray, is_last: bool) -> Batch | UnrollBatch:
        batch = self._items.empty(len(part))
        for column, target in zip(pool, batch, strict=True):
            np.take(column, part, axis=0, out=target, mode="clip")
        if is_last:
            self._spare.append(pool)
        return batch


def empty_batch(size: int) -> Batch:
    """A batch of ``size`` transitions, not initialised; its states are aligned."""
    return Batch(
        aligned_empty((size, *STATE_SHAPE), np.uint8),
        np.empty(size, np.int32),
        *(np.empty(size, np.float32) for _ in range(3)),
        np.empty(size, np.int64),
    )
