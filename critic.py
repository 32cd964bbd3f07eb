"""A critic that reads the console's memory, for the advantages alone: the policy never sees that. numpy only.

Where a game stands is plain in its 128 bytes of RAM: a small network over these told as much of Pong's returns after
560,000 states as the network over pictures after 16 M. So its advantages can look only a few steps ahead, with less
noise (Pinto et al. 2018, "Asymmetric Actor Critic": a critic that sees the state, an actor that sees the picture).
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from atari_wrapper import RAM_BYTES
from unroll import MEMORY_BYTES, Unroll, lambda_returns

import numpy as np

_HIDDEN = 256
_BYTE_INPUTS = 10  # its value, that before, its bits
_MAX_ACTIONS = 18
_REPLAY_STATES = 384_000
_WARM_STATES = 150_000  # before these its values are not used
_REUSE = 6  # unrolls that it learns from for each new one
_BATCH = 512
_LEARNING_RATE, _WEIGHT_DECAY = 1e-3, 1e-3
_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-7


class ValueNetwork:
    """Two hidden layers of ReLUs and one output, trained with AdamW (Loshchilov and Hutter 2019) on squared errors.

    Attributes:
        parameters: weights and biases of the three layers, float32.
        moments: Adam's means of the gradients, then of their squares, in the same order.
        updates: so far, int64 ``[1]``.
    """

    def __init__(self, inputs: int, rng: np.random.Generator):
        """The output starts near 0."""

        def layer(fan_in: int, units: int, scale: float) -> list[np.ndarray]:
            weights = rng.normal(0, np.sqrt(scale / fan_in), (fan_in, units))
            return [weights.astype(np.float32), np.zeros(units, np.float32)]

        self.parameters = [*layer(inputs, _HIDDEN, 2.0), *layer(_HIDDEN, _HIDDEN, 2.0), *layer(_HIDDEN, 1, 0.01)]
        self.moments = [np.zeros_like(p) for p in self.parameters * 2]
        self.updates = np.zeros(1, np.int64)

    def __call__(self, inputs: np.ndarray, used: np.ndarray) -> np.ndarray:
        """Values, float32 ``[N]``, of inputs ``[N, len(used)]``, those with the numbers ``used``; the rest are 0."""
        return self._forward(inputs, used)[2]

    def _forward(self, x: np.ndarray, used: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        w0, b0, w1, b1, w2, b2 = self.parameters
        h0 = np.maximum(x @ w0[used] + b0, 0)
        h1 = np.maximum(h0 @ w1 + b1, 0)
        return h0, h1, (h1 @ w2 + b2)[:, 0]

    def train(self, inputs: np.ndarray, used: np.ndarray, targets: np.ndarray) -> None:
        """One update towards targets, float32 ``[N]``; the inputs as above."""
        _, _, w1, _, w2, _ = self.parameters
        h0, h1, values = self._forward(inputs, used)
        d2 = ((values - targets) / len(targets))[:, None]
        d1 = (d2 @ w2.T) * (h1 > 0)
        d0 = (d1 @ w1.T) * (h0 > 0)
        self.updates += 1
        rate = _LEARNING_RATE * np.sqrt(1 - _BETA2 ** self.updates[0]) / (1 - _BETA1 ** self.updates[0])
        gradients = (inputs.T @ d0, d0.sum(0), h0.T @ d1, d1.sum(0), h1.T @ d2, d2.sum(0))
        for number, gradient in enumerate(gradients):
            rows = used if number == 0 else slice(None)
            parameter, mean, square = (
                array[rows] for array in (self.parameters[number], *self.moments[number :: len(gradients)])
            )
            mean += (1 - _BETA1) * (gradient - mean)
            square += (1 - _BETA2) * (gradient * gradient - square)
            if parameter.ndim == 2:
                parameter *= 1 - _LEARNING_RATE * _WEIGHT_DECAY
            parameter -= np.float32(rate) * mean / (np.sqrt(square) + _EPSILON)
            if number == 0:  # those are copies
                for array, part in zip(
                    (self.parameters[0], *self.moments[:: len(gradients)]), (parameter, mean, square), strict=True
                ):
                    array[used] = part

    def arrays(self) -> dict[str, np.ndarray]:
        """What it has learned, by name."""
        names = ("W0", "b0", "W1", "b1", "W2", "b2")
        arrays = zip((f"{name}{kind}" for kind in ("", "/mean", "/square") for name in names),
                     (*self.parameters, *self.moments), strict=True)  # fmt: skip
        return {"updates": self.updates, **dict(arrays)}


class Lesson(NamedTuple):
    """What is kept of an unroll: its ``memories``, ``rewards`` and ``ends``."""

    memories: np.ndarray
    rewards: np.ndarray
    ends: np.ndarray


class RamCritic:
    """Judges states by the console's memory, that of the step before and the action between; learns from a replay.

    The master's thread owns it. Of each unroll the values are told before it has learned from it.

    Attributes:
        gae_lambda: lambda of the advantages by its values.
    """

    def __init__(self, gamma: float, returns_lambda: float, gae_lambda: float, rng: np.random.Generator):
        """
        Args:
            gamma: discount per step.
            returns_lambda: lambda of the returns that it learns.
            gae_lambda: lambda of the advantages by its values.
            rng: draws the first weights, and what is learned again.
        """
        self.gae_lambda = gae_lambda
        self._gamma, self._returns_lambda, self._rng = gamma, returns_lambda, rng
        self._network = ValueNetwork(_BYTE_INPUTS * RAM_BYTES + _MAX_ACTIONS, rng)
        self._seen = np.zeros(1, np.int64)  # states
        self._seen_bits = np.zeros((2, RAM_BYTES), np.uint8)  # that were clear; that were set
        self._replay: deque[Lesson] = deque()
        self._replay_states = 0

    def judge(self, unroll: Unroll) -> np.ndarray | None:
        """Values of the unroll's states, float32 ``[T + 1, E]``; None before it has seen 150,000 states.

        Then keeps what it will learn from.
        """
        lesson = Lesson(unroll.memories.copy(), unroll.rewards.copy(), unroll.ends.copy())
        rams = lesson.memories[..., :RAM_BYTES].reshape(-1, RAM_BYTES)
        self._seen_bits |= np.bitwise_or.reduce([~rams, rams], axis=1)
        values = self._values(self._inputs(lesson), lesson) if self._seen[0] >= _WARM_STATES else None
        self._replay.append(lesson)
        self._seen[0] += lesson.rewards.size
        self._replay_states += lesson.rewards.size
        while self._replay_states > _REPLAY_STATES:
            self._replay_states -= self._replay.popleft().rewards.size
        return values

    def learn(self) -> None:
        """Learn from some unrolls of the replay: for each new one call it once."""
        chosen = [self._replay[i] for i in self._rng.integers(len(self._replay), size=_REUSE)]
        inputs, targets = [], []
        for lesson in chosen:
            x = self._inputs(lesson)
            values = self._values(x, lesson)
            returns = lambda_returns(
                lesson.rewards, values[:-1], lesson.ends, values[-1], self._gamma, self._returns_lambda
            )
            inputs.append(x[: returns.size])
            targets.append(returns.reshape(-1))
        inputs, targets, used = np.concatenate(inputs), np.concatenate(targets), self._used()
        order = self._rng.permutation(len(targets))
        for start in range(0, max(1, len(order) - _BATCH + 1), _BATCH):
            part = order[start : start + _BATCH]
            self._network.train(inputs[part], used, targets[part])

    def _changing(self) -> np.ndarray:
        return np.flatnonzero(self._seen_bits[0] & self._seen_bits[1])

    def _used(self) -> np.ndarray:
        of_bytes = _BYTE_INPUTS * self._changing()[:, None] + np.arange(_BYTE_INPUTS)
        return np.concatenate([of_bytes.reshape(-1), _BYTE_INPUTS * RAM_BYTES + np.arange(_MAX_ACTIONS)])

    def _inputs(self, lesson: Lesson) -> np.ndarray:
        """float32 ``[(T + 1) E, inputs]``: of each byte that changes its value, that before, its bits; the action."""
        memories, changing = lesson.memories.reshape(-1, MEMORY_BYTES), self._changing()
        count = len(changing)
        now, before = memories[:, changing], memories[:, RAM_BYTES + changing]
        x = np.zeros((len(memories), _BYTE_INPUTS * count + _MAX_ACTIONS), np.float32)
        of_bytes = x[:, : _BYTE_INPUTS * count].reshape(len(memories), count, _BYTE_INPUTS)
        of_bytes[..., 0], of_bytes[..., 1] = now / 64.0 - 2.0, before / 64.0 - 2.0
        of_bytes[..., 2:] = np.unpackbits(now[..., None], axis=2)
        x[np.arange(len(x)), _BYTE_INPUTS * count + memories[:, -1].astype(np.intp)] = 1
        return x

    def _values(self, inputs: np.ndarray, lesson: Lesson) -> np.ndarray:
        return self._network(inputs, self._used()).reshape(lesson.memories.shape[:2])

    def state(self) -> dict[str, np.ndarray]:
        """All that it has learned, by name, but the replay: copies, to be kept in checkpoints."""
        return {name: array.copy() for name, array in self._arrays().items()}

    def _arrays(self) -> dict[str, np.ndarray]:
        return {"seen": self._seen, "seen_bits": self._seen_bits, **self._network.arrays()}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Take up what ``state`` gave."""
        for name, array in self._arrays().items():
            array[...] = state[name]
