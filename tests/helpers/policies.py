"""Policies that need no network."""

from __future__ import annotations

import numpy as np

NUM_ACTIONS = 4


def uniform_policy(states: np.ndarray) -> list[np.ndarray]:
    return [np.full((len(states), NUM_ACTIONS), 1 / NUM_ACTIONS, np.float32), np.zeros(len(states), np.float32)]
