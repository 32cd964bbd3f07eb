"""Pools of batches, and what comes out of one."""

from __future__ import annotations

from a3c.acting.batches import Batch, BatchPool, Transitions
from a3c.acting.unroll import Unroll

import numpy as np


def make_pool(batch_size, pool_states, reuse=1, gamma=0.99, gae_lambda=1.0, normalize=False, seed=0):
    items = Transitions(gamma, gae_lambda, normalize)
    return BatchPool(items, batch_size, pool_states, reuse, np.random.default_rng(seed))


def take(pool: BatchPool, unroll: Unroll) -> list[Batch]:
    """The batches that are complete with an unroll, made at once."""
    return [make_batch() for batches in pool.add(unroll) for make_batch in batches]
