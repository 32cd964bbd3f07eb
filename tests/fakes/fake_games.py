"""Fake games for the tests. Nothing is emulated: a script says what happens, and each frame tells what did.

A simulator makes one with ``player="fake_games:make_fake_counting_game"``.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

from atari_wrapper import FRAME_SHAPE

import numpy as np

FAKE_FRAMES_PER_STEP = 3
COUNTING = "fake_games:make_fake_counting_game"
RAISING = "fake_games:make_fake_raising_game"
DYING = "fake_games:make_fake_dying_game"
HANGING = "fake_games:make_fake_hanging_game"
SLOW = "fake_games:make_fake_slow_game"


class FakeFrame(NamedTuple):
    """What a frame of ``FakeCountingGame`` tells; ``action`` is -1 after a reset."""

    seed: int
    episode: int
    step: int
    action: int

    def paint(self) -> np.ndarray:
        """The frame, uint8 ``[84, 84, 3]``."""
        numbers = np.array(self, np.int64).tobytes()
        frame = np.zeros(FRAME_SHAPE, np.uint8)
        frame.reshape(-1)[: len(numbers)] = np.frombuffer(numbers, np.uint8)
        return frame


def read_fake_frame(frame: np.ndarray) -> FakeFrame:
    """The reverse of ``FakeFrame.paint``."""
    numbers = np.ascontiguousarray(frame).tobytes()[: 8 * len(FakeFrame._fields)]
    return FakeFrame(*np.frombuffer(numbers, np.int64).tolist())


class FakeCountingGame:
    """A fake game that counts.

    Args:
        lengths: steps of the episodes, over and over.
        truncated: whether the episodes are truncated rather than terminated, over and over.
        raise_at: the step of the game's life that raises, counted from 1.
        exit_at: the step of the game's life that ends the process.
        exit_status: the status that it ends with.
    """

    def __init__(
        self,
        lengths: Sequence[int] = (1_000_000,),
        truncated: Sequence[bool] = (False,),
        raise_at: int | None = None,
        exit_at: int | None = None,
        exit_status: int = 7,
    ):
        self._lengths, self._truncated = lengths, truncated
        self._raise_at, self._exit_at, self._exit_status = raise_at, exit_at, exit_status
        self._seed, self._episode, self._step, self._life_steps, self._frames = 0, -1, 0, 0, 0

    @staticmethod
    def reward(episode: int, step: int) -> float:
        """The reward of a step, counted from 1: no two of an episode's are equal, some are far outside of [-1, 1]."""
        return (-1) ** step * (100.0 * episode + step)

    def reset(self, seed: int | None = None):
        if seed is not None:
            self._seed = seed
        self._episode, self._step, self._frames = self._episode + 1, 0, self._frames + 1
        return FakeFrame(self._seed, self._episode, 0, -1).paint(), self._info()

    def step(self, action: int):
        self._step, self._life_steps = self._step + 1, self._life_steps + 1
        self._frames += FAKE_FRAMES_PER_STEP
        if self._life_steps == self._raise_at:
            raise ValueError(f"fake failure at step {self._life_steps}")
        if self._life_steps == self._exit_at:
            os._exit(self._exit_status)
        over = self._step == self._lengths[self._episode % len(self._lengths)]
        cut = over and self._truncated[self._episode % len(self._truncated)]
        frame = FakeFrame(self._seed, self._episode, self._step, action).paint()
        return frame, self.reward(self._episode, self._step), over and not cut, bool(cut), self._info()

    def close(self) -> None:
        pass

    def _info(self) -> dict:
        return {"frame_number": self._frames}


class FakePoisonedGame(FakeCountingGame):
    """A fake game that counts, one of whose rewards is not finite."""

    def __init__(self, reward: str, step: int):
        """The ``step``-th step of its life gives ``reward``: nan, inf or -inf."""
        super().__init__()
        self._bad_reward, self._bad_step = float(reward), step

    def reward(self, episode: int, step: int) -> float:
        return self._bad_reward if self._life_steps == self._bad_step else 0.0


def make_fake_counting_game(seed: int, **script) -> FakeCountingGame:
    """Make a fake game; ``script`` holds the arguments of ``FakeCountingGame``."""
    return FakeCountingGame(**script)


def make_fake_poisoned_game(seed: int, reward: str, step: int) -> FakePoisonedGame:
    """Make a fake game with such a reward at such a step."""
    return FakePoisonedGame(reward, step)


def make_fake_raising_game(seed: int):
    """Fail to make a fake game."""
    raise ValueError("fake game that cannot be made")


def make_fake_dying_game(seed: int):
    """End the process, with status 7, instead of making a fake game."""
    os._exit(7)


def make_fake_hanging_game(seed: int):
    """Never come back."""
    threading.Event().wait()


def make_fake_slow_game(seed: int, start_s: float) -> FakeCountingGame:
    """Make a fake game, which takes ``start_s`` seconds."""
    time.sleep(start_s)
    return FakeCountingGame()
