"""Where all random numbers come from: the run's seed, what they are for, and which of its kind.

No two purposes, no two ``--seed``s and no two lives of a simulator share any: numpy's ``SeedSequence`` tells streams
apart by their keys (https://numpy.org/doc/stable/reference/random/parallel.html).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np


class Purpose(enum.IntEnum):
    """What random numbers are drawn for. A value that was used once is never given another meaning."""

    TRAINING_GAMES = 0
    TRAINING_ACTIONS = 1
    TRAINING_EVALUATION = 2  # of each epoch
    EVALUATION = 3
    PLAY = 4
    VIDEO = 5
    WATCH = 6
    FRAME_STATISTICS = 7


# Games of a simulator have seeds that follow each other: that many to a life.
GAMES_PER_LIFE = 1 << 16
_LIFE_BITS = 46  # with those of the game, a seed fits into an int64


@dataclass(frozen=True)
class Seeds:
    """The random numbers of one purpose.

    Attributes:
        seed: of the run, from ``--seed``.
        purpose: what for.
        number: which of its kind: the epoch of an evaluation, the lives before a run was resumed.
    """

    seed: int
    purpose: Purpose
    number: int = 0

    def of_life(self, life: int) -> int:
        """The seed of the first game of a simulator's life, or of an episode; those of its other games follow."""
        (drawn,) = self._sequence(0, life).generate_state(1, np.uint64)
        return (int(drawn) >> (64 - _LIFE_BITS)) * GAMES_PER_LIFE

    def generator(self, part: int = 0) -> np.random.Generator:
        """A generator for one of those who draw: a simulator, a predictor."""
        return np.random.default_rng(self._sequence(1, part))

    def _sequence(self, kind: int, part: int) -> np.random.SeedSequence:
        # Keys of one length: SeedSequence takes a key that ends in zeros for the shorter one.
        return np.random.SeedSequence(self.seed, spawn_key=(self.purpose, self.number, kind, part))
