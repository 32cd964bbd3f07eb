"""How a game's frames are distributed: what the networks that normalise their input need to know of it."""

from __future__ import annotations

from typing import NamedTuple

from a3c.seeds import Purpose, Seeds
from atari_wrapper import FRAME_SHAPE, make_player

import numpy as np

_STEPS = 2000


class FrameStatistics(NamedTuple):
    """Mean and deviations of a game's frames; pixels from 0 to 255.

    Attributes:
        mean: the mean frame, float32 ``[84, 84, 3]``.
        std: deviation of all pixels from it.
        axis: the principal axis of these deviations in the space of colours, float32 ``[3]``, of length 1.
        axis_std: deviation along it.
    """

    mean: np.ndarray
    std: float
    axis: np.ndarray
    axis_std: float


def frame_statistics(env_id: str, seed: int) -> FrameStatistics:
    """Measure a game under random actions, of a run's seed. Raises UsageError as ``make_player`` does."""
    player = make_player(env_id)
    seeds = Seeds(seed, Purpose.FRAME_STATISTICS)
    rng = seeds.generator()
    frame, _ = player.reset(seed=seeds.of_life(0))
    total, products = np.zeros(FRAME_SHAPE), np.zeros((3, 3))
    for _ in range(_STEPS):
        pixels = frame.astype(np.float64)
        total += pixels
        products += np.einsum("hwc,hwd->cd", pixels, pixels)
        frame, _, terminated, truncated, _ = player.step(int(rng.integers(player.action_space.n)))
        if terminated or truncated:
            frame, _ = player.reset()
    player.close()
    mean = total / _STEPS
    covariance = (products / _STEPS - np.einsum("hwc,hwd->cd", mean, mean)) / (mean.shape[0] * mean.shape[1])
    variances, axes = np.linalg.eigh(covariance)
    axis = axes[:, -1] * np.sign(axes[:, -1].sum() or 1)
    std, axis_std = (max(1.0, float(np.sqrt(max(0.0, v)))) for v in (np.trace(covariance) / 3, variances[-1]))
    return FrameStatistics(mean.astype(np.float32), std, axis.astype(np.float32), axis_std)
