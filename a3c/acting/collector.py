"""What becomes of a simulator's step: it is counted, it joins its unroll, and its simulator may act again.

All of it runs on the master's thread, which owns the unroll builders, the pool being filled and the episodes' scores.
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable

from a3c.acting.batches import BatchPool, MakeBatch
from a3c.acting.predictor import Request
from a3c.acting.unroll import UnrollBuilder
from a3c.simulation.messages import RUNNING, StepBlock

import numpy as np

_ONLINE_EPISODES = 100


class Collector:
    """Turns steps into requests for the predictors and batches for the learner.

    Attributes:
        steps, emulator_frames, episodes: counted so far, in training; written by the master's thread, read by any.
    """

    def __init__(
        self,
        envs_per_simulator: tuple[int, ...],
        unroll_steps: int,
        pool: BatchPool,
        in_generations: bool,
        requests: queue.SimpleQueue[Request],
        put: Callable[[list[MakeBatch]], None],
        at_play: Callable[[], set[tuple[int, int]]],
    ):
        """
        Args:
            envs_per_simulator: how many games each simulator plays.
            unroll_steps: T.
            pool: what unrolls are collected in.
            in_generations: a simulator that has filled its unroll waits for the others. All of a pool is then of one
                policy, the newest, where free-running simulators would drift apart by whole pools.
            requests: what the predictors answer.
            put: gives the learner a pool's batches; returns when there is room for more.
            at_play: the simulators, each with its life, that are waited for: those whose present life has stepped.
        """
        self._unroll_steps = unroll_steps
        self._pool, self._in_generations = pool, in_generations
        self._requests, self._put, self._at_play = requests, put, at_play
        self._builders: list[UnrollBuilder | None] = [None] * len(envs_per_simulator)
        self._scores: list[np.ndarray | None] = [None] * len(envs_per_simulator)
        self._held: list[Request] = []
        self._online_scores: deque[float] = deque(maxlen=_ONLINE_EPISODES)
        self.steps = 0
        self.emulator_frames = 0
        self.episodes = 0

    @property
    def online_score(self) -> float | None:
        """Mean raw score of the last 100 training episodes; None before the first has ended."""
        scores = list(self._online_scores)
        return float(np.mean(scores)) if scores else None

    def on_step(self, block: StepBlock) -> None:
        """Take a step. Waits while the learner is behind."""
        self.emulator_frames += block.emulator_frames
        unroll, handed_out = None, False
        if block.sequence == 0:
            self._begin_life(block)
        else:
            self._count(block)
            unroll = self._builders[block.index].record(block.rewards, block.ends)
            if unroll is not None:
                for batches in self._pool.add(unroll):
                    self._put(batches)
                    handed_out = True
        request = Request(block.index, block.life, self._builders[block.index], block.frames)
        if unroll is None or not self._in_generations:
            self._requests.put(request)
            return
        self._held.append(request)
        if handed_out:
            self._release()
        else:
            self.look()

    def look(self) -> None:
        """Let the simulators that wait for each other go on if nobody else will come: one that is gone is no reason."""
        if self._held and self._at_play() <= {(held.index, held.life) for held in self._held}:
            self._release()

    def _release(self) -> None:
        for held in self._held:
            self._requests.put(held)
        self._held.clear()

    def _begin_life(self, block: StepBlock) -> None:
        # A new builder: a predictor may still be at work on the one of the life that ended.
        index = block.index
        self._builders[index] = UnrollBuilder(len(block.ends), self._unroll_steps)
        self._scores[index] = np.zeros(len(block.ends))
        self._held = [request for request in self._held if request.index != index]

    def _count(self, block: StepBlock) -> None:
        scores = self._scores[block.index]
        self.steps += len(scores)
        scores += block.rewards
        for env in np.flatnonzero(block.ends != RUNNING):
            self._online_scores.append(float(scores[env]))
            self.episodes += 1
            scores[env] = 0
