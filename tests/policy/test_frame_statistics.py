"""The statistics of a game's frames, on frames of known distribution."""

from __future__ import annotations

from a3c.policy import frame_statistics
from atari_wrapper import FRAME_SHAPE

import gymnasium
import numpy as np
import pytest

NUM_ACTIONS = 4


class NoisyPlayer:
    """Frames around one colour, with deviation 20; an episode lasts 10 steps."""

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
        noise = self._rng.normal(0, 20, FRAME_SHAPE)
        self.frames.append((noise + np.array([100, 128, 150])).clip(0, 255).astype(np.uint8))
        return self.frames[-1]


def test_frame_statistics_are_those_of_the_frames(monkeypatch):
    player = NoisyPlayer()
    monkeypatch.setattr(frame_statistics, "make_player", lambda env_id, seed: player)
    monkeypatch.setattr(frame_statistics, "_STEPS", 50)
    mean, std = frame_statistics.frame_statistics("Pong-v0", seed=0)
    assert mean.dtype == np.float32
    np.testing.assert_allclose(mean, np.mean(player.frames[:50], axis=0), rtol=0.1)
    np.testing.assert_allclose(mean.mean(axis=(0, 1)), (100, 128, 150), atol=1)
    assert std == pytest.approx(20, abs=0.5)
    assert player.actions == set(range(NUM_ACTIONS))


def test_a_game_that_never_moves_has_deviation_one(monkeypatch):
    player = NoisyPlayer()
    player._frame = lambda: np.full(FRAME_SHAPE, 7, np.uint8)
    monkeypatch.setattr(frame_statistics, "make_player", lambda env_id, seed: player)
    monkeypatch.setattr(frame_statistics, "_STEPS", 20)
    mean, std = frame_statistics.frame_statistics("Pong-v0", seed=0)
    assert (mean.min(), mean.max(), std) == (7, 7, 1)
