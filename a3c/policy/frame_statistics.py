"""How a game's frames are distributed: what the networks that normalise their input need to know of it."""

from __future__ import annotations

from typing import NamedTuple

from a3c.seeds import Purpose, Seeds
from atari_wrapper import FRAME_SHAPE, make_player

import numpy as np

_STEPS = 2000


class FrameStatistics(NamedTuple):
    """Mean and deviation of a game's frames; pixels from 0 to 255.

    Attributes:
        mean: the mean frame, float32 ``[84, 84, 3]``.
        std: deviation of all pixels from it.
    """

    mean: np.ndarray
    std: float


def frame_statistics(env_id: str, seed: int) -> FrameStatistics:
    """Measure a game under random actions, of a run's seed. Raises UsageError as ``make_player`` does."""
    seeds = Seeds(seed, Purpose.FRAME_STATISTICS)
    rng, first_seed = seeds.generator(), seeds.of_life(0)
    player = make_player(env_id, seed=first_seed)
    frame, _ = player.reset(seed=first_seed)
    total, squares = np.zeros(FRAME_SHAPE), 0.0
    for _ in range(_STEPS):
        pixels = frame.astype(np.float64)
        total += pixels
        squares += np.square(pixels).mean()
        frame, _, terminated, truncated, _ = player.step(int(rng.integers(player.action_space.n)))
        if terminated or truncated:
            frame, _ = player.reset()
    player.close()
    mean = total / _STEPS
    variance = squares / _STEPS - np.square(mean).mean()
    return FrameStatistics(mean.astype(np.float32), float(np.sqrt(max(1.0, variance))))
