"""From steps to batches: unrolls, returns, and the pool that batches are drawn from. numpy only.

An ``UnrollBuilder`` keeps the steps of one simulator's E games as arrays ``[T + 1, E, ...]``. The value of step T,
predicted when its action was chosen, is the bootstrap of steps 0 to T - 1; step T then opens the next unroll.
"""

from __future__ import annotations

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
