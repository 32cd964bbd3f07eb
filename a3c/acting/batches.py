"""From unrolls to the learner's batches: the pool that they are drawn from, and the queue that they wait in."""

from __future__ import annotations

import functools
import threading
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from a3c.acting.unroll import Unroll, aligned_empty, lambda_returns
from a3c.simulation.messages import TRUNCATED
from atari_wrapper import STATE_SHAPE

import numpy as np


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


class Transitions:
    """Unrolls cut into single transitions, with the returns of the behaviour policy's values: a pool's items."""

    steps = 1

    def __init__(self, gamma: float, gae_lambda: float, normalize_advantages: bool):
        self._gamma, self._gae_lambda, self._normalize = gamma, gae_lambda, normalize_advantages

    def count(self, unroll: Unroll) -> int:
        """How many items an unroll has: truncated transitions are none."""
        return int(np.count_nonzero(unroll.ends != TRUNCATED))

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

    def count(self, unroll: Unroll) -> int:
        """How many items an unroll has: one of each game."""
        return unroll.ends.shape[1]

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

    The master's thread fills a large pool, and the learner's makes its batches, while the next one is being filled. Of
    a pool that is a batch, the master's thread only notes the unrolls: the learner's copies them together.
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
        self._pieces: list[_Piece] = []
        self._pool: Batch | UnrollBatch | None = None
        # Large pools in turn: a third is made only for a queue so deep that it holds batches of both.
        self._is_large = self._pool_items > self._batch_items
        self._spare = deque(items.empty(self._pool_items) for _ in range(2 if self._is_large else 0))

    def add(self, unroll: Unroll) -> Iterator[list[MakeBatch]]:
        """Take in an unroll; yield what makes the batches of each pool that is full, each to be called once, in order.

        It is given back when its last item was copied.
        """
        done, total = 0, self._items.count(unroll)
        if not total:
            unroll.give_back()
        while done < total:
            take = min(total - done, self._pool_items - self._size)
            piece = _Piece(unroll, done, done + take, done + take == total)
            if not self._is_large:
                self._pieces.append(piece)
            else:
                if self._pool is None:  # not earlier: by now the learner may have drawn the last of the one before
                    self._pool = self._spare.popleft() if self._spare else self._items.empty(self._pool_items)
                self._copy(piece, self._pool, self._size)
            done, self._size = done + take, self._size + take
            if self._size == self._pool_items:
                yield self._hand_out()

    def _copy(self, piece: _Piece, pool: Batch | UnrollBatch, at: int) -> None:
        size = piece.stop - piece.start
        for target, column in zip(pool, self._items.cut(piece.unroll), strict=True):
            target[at : at + size] = column[piece.start : piece.stop]
        if piece.is_last:
            piece.unroll.give_back()

    def _hand_out(self) -> list[MakeBatch]:
        self._size = 0
        if not self._is_large:
            pieces, self._pieces = self._pieces, []
            return [functools.cache(partial(self._collect, pieces))] * self._sample_reuse
        pool, self._pool = self._pool, None
        self._items.complete(pool)
        orders = [self._rng.permutation(self._pool_items) for _ in range(self._sample_reuse)]
        starts = range(0, self._pool_items, self._batch_items)
        parts = [order[start : start + self._batch_items] for order in orders for start in starts]
        return [partial(self._draw, pool, part, part is parts[-1]) for part in parts]

    def _collect(self, pieces: list[_Piece]) -> Batch | UnrollBatch:
        batch, at = self._items.empty(self._batch_items), 0
        for piece in pieces:
            self._copy(piece, batch, at)
            at += piece.stop - piece.start
        self._items.complete(batch)
        return batch

    def _draw(self, pool: Batch | UnrollBatch, part: np.ndarray, is_last: bool) -> Batch | UnrollBatch:
        batch = self._items.empty(len(part))
        for column, target in zip(pool, batch, strict=True):
            np.take(column, part, axis=0, out=target, mode="clip")
        if is_last:
            self._spare.append(pool)
        return batch


class _Piece(NamedTuple):
    """Items of an unroll, from ``start`` to before ``stop``; ``is_last``: no other piece of it comes later."""

    unroll: Unroll
    start: int
    stop: int
    is_last: bool


def empty_batch(size: int) -> Batch:
    """A batch of ``size`` transitions, not initialised; its states are aligned."""
    return Batch(
        aligned_empty((size, *STATE_SHAPE), np.uint8),
        np.empty(size, np.int32),
        *(np.empty(size, np.float32) for _ in range(3)),
        np.empty(size, np.int64),
    )


class BatchQueue:
    """What makes the learner's next batches, in order."""

    def __init__(self, size: int | None):
        """``size``: how many may be left before the master goes on; None: none, and the learner asks for another."""
        self._size = size
        self._waiting: deque[MakeBatch] = deque()
        self._asked_for = False
        self._changed = threading.Condition()

    def put(self, batches: list[MakeBatch]) -> None:
        """Add a pool's batches."""
        with self._changed:
            self._asked_for = False
            self._waiting.extend(batches)
            self._changed.notify_all()

    def wait_for_room(self, timeout_s: float) -> bool:
        """Wait until no more than ``size`` are left; tell whether that came within the time."""
        with self._changed:
            return self._changed.wait_for(self._has_room, timeout_s)

    def _has_room(self) -> bool:
        return self._asked_for if self._size is None else len(self._waiting) <= self._size

    def get(self, timeout_s: float) -> MakeBatch | None:
        """Take the next one; None if there is none within the time."""
        with self._changed:
            if not self._waiting:
                self._asked_for = True
                self._changed.notify_all()
                if not self._changed.wait_for(lambda: self._waiting, timeout_s):
                    return None
            self._changed.notify_all()
            return self._waiting.popleft()
