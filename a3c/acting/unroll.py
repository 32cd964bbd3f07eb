"""From steps to batches: unrolls, returns, and the pool that batches are drawn from. numpy only.

An ``UnrollBuilder`` keeps the steps of one simulator's E games as arrays ``[T + 1, E, ...]``. The value of step T,
predicted when its action was chosen, is the bootstrap of steps 0 to T - 1; step T then opens the next unroll.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from a3c.simulation.messages import RUNNING, TERMINATED, TRUNCATED
from atari_wrapper import FRAME_SHAPE, STATE_SHAPE, stack_frames

import numpy as np

_ALIGNMENT_BYTES = 64  # TensorFlow takes arrays so aligned without a copy


class Unroll(NamedTuple):
    """T consecutive steps of E games. Views of a builder's arrays: good until they are given back.

    Attributes:
        states: uint8 ``[T + 1, E, 84, 84, 12]``; the last is the one after the T steps.
        actions: int32 ``[T, E]``.
        mus: behaviour probability of the action, float32 ``[T, E]``.
        values: value predicted when acting, float32 ``[T, E]``.
        versions: learner updates when acting, int64 ``[T, E]``.
        rewards: clipped rewards, float32 ``[T, E]``.
        ends: how the episode went on after the step, uint8 ``[T, E]``.
        bootstrap_values: value of the state after the last step, float32 ``[E]``.
        give_back: lets the builder use the arrays again.
    """

    states: np.ndarray
    actions: np.ndarray
    mus: np.ndarray
    values: np.ndarray
    versions: np.ndarray
    rewards: np.ndarray
    ends: np.ndarray
    bootstrap_values: np.ndarray
    give_back: Callable[[], None]


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


class _Arrays(NamedTuple):
    """Room for an unroll and the step after it, ``[T + 1, E, ...]``; the columns are those of ``Unroll``."""

    states: np.ndarray
    actions: np.ndarray
    mus: np.ndarray
    values: np.ndarray
    versions: np.ndarray
    rewards: np.ndarray
    ends: np.ndarray


class UnrollBuilder:
    """Collects the steps of one life of a simulator's games.

    Between a simulator's message and its actions the newest step belongs to the predictor, which calls ``push`` and
    then ``decide``; with the next message the master's thread calls ``record``. An unroll keeps its arrays until it is
    given back, which any thread may do: meanwhile the next one is built in others.
    """

    def __init__(self, num_envs: int, unroll_steps: int):
        self._steps, self._num_envs = unroll_steps, num_envs
        self._t = -1
        self._spare: deque[_Arrays] = deque()
        self._arrays = self._make_arrays()

    def _make_arrays(self) -> _Arrays:
        shape = (self._steps + 1, self._num_envs)
        columns = (np.int32, np.float32, np.float32, np.int64, np.float32, np.uint8)
        return _Arrays(aligned_empty((*shape, *STATE_SHAPE), np.uint8), *(np.zeros(shape, dtype) for dtype in columns))

    def push(self, frames: np.ndarray) -> np.ndarray:
        """Open the next step with its newest frames, uint8 ``[E, 84, 84, 3]``. Returns the states to act on.

        The first frames have no history: zeros.
        """
        if self._t < 0:
            states = self._arrays.states[0]
            states[:] = 0
            states[..., -FRAME_SHAPE[-1] :] = frames
            self._t = 0
            return states
        if self._t == self._steps:
            full, self._arrays = self._arrays, self._spare.popleft() if self._spare else self._make_arrays()
            for old, new in zip(full, self._arrays, strict=True):
                new[0] = old[self._steps]
            self._t = 0
        t, arrays = self._t, self._arrays
        stack_frames(arrays.states[t], frames, arrays.ends[t] != RUNNING, out=arrays.states[t + 1])
        self._t = t + 1
        return arrays.states[t + 1]

    def decide(self, actions: np.ndarray, mus: np.ndarray, values: np.ndarray, version: int) -> None:
        """Complete the newest step with the behaviour policy's choice; arrays ``[E]``."""
        t, arrays = self._t, self._arrays
        arrays.actions[t], arrays.mus[t], arrays.values[t], arrays.versions[t] = actions, mus, values, version

    def record(self, rewards: np.ndarray, ends: np.ndarray) -> Unroll | None:
        """Add what came of the newest step's actions.

        Args:
            rewards: raw rewards, float32 ``[E]``; clipped to [-1, 1] here.
            ends: uint8 ``[E]``.

        Returns:
            The unroll of the T steps before the newest one, if it is complete.
        """
        t, arrays = self._t, self._arrays
        np.clip(rewards, -1, 1, out=arrays.rewards[t])
        arrays.ends[t] = ends
        if t < self._steps:
            return None
        states, *columns = arrays
        give_back = partial(self._spare.append, arrays)
        return Unroll(states, *(column[:t] for column in columns), arrays.values[t], give_back)
