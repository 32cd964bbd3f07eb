"""A game whose score is in proportion to its length, and whose length is short or long at random.

An evaluation that takes the episodes which finish first gets too many short ones. A game writes down each step. It can
kill its process once, or leave it for ever, as the game does whose window is closed.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

from atari_wrapper import FRAME_SHAPE

import numpy as np

SHORT, LONG = 3, 40
REWARD = 2.5  # of each step; it would show if rewards were clipped


def episode_lengths(seed: int, episodes: int) -> list[int]:
    """The lengths of a game's first episodes."""
    rng = np.random.default_rng(seed)
    return [int(rng.choice((SHORT, LONG))) for _ in range(episodes)]


class LengthsPlayer:
    """Every frame is uniform: 1 after the reset, and one more with each step. Short episodes end, long ones are cut."""

    def __init__(self, log: Path, die_at_step: int | None, leave_at_step: int | None):
        self._log, self._die_at_step, self._leave_at_step = log, die_at_step, leave_at_step
        self._steps = 0

    def reset(self, seed: int | None = None):
        if seed is not None:
            self._rng = np.random.default_rng(seed)
            self._file = self._log / f"{seed}.actions"
            self._file.touch()
        self._length = int(self._rng.choice((SHORT, LONG)))
        self._t = 0
        return self._frame()

    def step(self, action: int):
        self._t += 1
        self._steps += 1
        if self._steps == self._die_at_step and not (self._log / "died").exists():
            (self._log / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if self._steps == self._leave_at_step:
            os._exit(0)
        with self._file.open("a") as file:
            file.write(f"{action}\n")
        over = self._t == self._length
        frame, info = self._frame()
        return frame, REWARD, over and self._length == SHORT, over and self._length == LONG, info

    def _frame(self):
        return np.full(FRAME_SHAPE, 1 + self._t, np.uint8), {"frame_number": 3 * self._steps + 7}


def make_player(
    log: str, die_at_step: int | None = None, leave_at_step: int | None = None, seed: int | None = None
) -> LengthsPlayer:
    return LengthsPlayer(Path(log), die_at_step, leave_at_step)
