"""The statistics of a game's frames, on frames of known distribution."""

from __future__ import annotations

from a3c.policy import frame_statistics
from atari_wrapper import FRAME_SHAPE

import gymnasium
import numpy as np
import pytest

NUM_ACTIONS = 4


class NoisyPlayer:
    """Frames around one colour, with deviation 20, and as much again for green and blue together; an episode lasts 10
    steps."""

    action_space = gymnasium.spaces.Discrete(NUM_ACTIONS)

    def __init__(self):
        self.frames: list[np.ndarray] = []
        self.actions: set[int] = set()

    def reset(self, seed=None):
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        self._t = 0
        return self._frame(), {}

    def step(self, action):
        self.actions.add(action)
        self._t += 1
        return self._frame(), 0.0, self._t == 10, False, {}

    def close(self):
        pass

    def _frame(self):
        noise = self._rng.normal(0, 20, FRAME_SHAPE) + self._rng.normal(0, 20, (*FRAME_SHAPE[:2], 1)) * (0, 0.6, 0.8)
        self.frames.append((noise + np.array([100, 128, 150])).clip(0, 255).astype(np.uint8))
        return self.frames[-1]


def test_frame_statistics_are_those_of_the_frames(monkeypatch):
    player = NoisyPlayer()
    monkeypatch.setattr(frame_statistics, "make_player", lambda env_id: player)
    monkeypatch.setattr(frame_statistics, "_STEPS", 50)
    mean, std, axis, axis_std = frame_statistics.frame_statistics("Pong-v0", seed=0)
    assert mean.dtype == axis.dtype == np.float32
    np.testing.assert_allclose(mean, np.mean(player.frames[:50], axis=0), rtol=0.1)
    np.testing.assert_allclose(mean.mean(axis=(0, 1)), (100, 128, 150), atol=1)
    assert std == pytest.approx(20 * (4 / 3) ** 0.5, abs=0.5)
    np.testing.assert_allclose(axis, (0, 0.6, 0.8), atol=0.02)
    assert axis_std == pytest.approx(20 * 2**0.5, abs=0.5)
    assert player.actions == set(range(NUM_ACTIONS))


def test_a_game_that_never_moves_has_deviation_one(monkeypatch):
    player = NoisyPlayer()
    player._frame = lambda: np.full(FRAME_SHAPE, 7, np.uint8)
    monkeypatch.setattr(frame_statistics, "make_player", lambda env_id: player)
    monkeypatch.setattr(frame_statistics, "_STEPS", 20)
    mean, std, axis, axis_std = frame_statistics.frame_statistics("Pong-v0", seed=0)
    assert (mean.min(), mean.max(), std, axis_std) == (7, 7, 1, 1)
    assert np.linalg.norm(axis) == pytest.approx(1)
