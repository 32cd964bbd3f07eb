"""A predictor: acts for the simulators that wait, as many at a time as fit into a batch, with the newest policy."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from a3c.acting.unroll import UnrollBuilder, aligned_empty
from atari_wrapper import STATE_SHAPE

import numpy as np

_POLL_S = 0.5


class Request(NamedTuple):
    """A simulator waits for actions.

    Attributes:
        index, life: of the simulator.
        builder: of its unrolls; its newest step is the predictor's until the actions are out.
        frames: the newest ones of its games, uint8 ``[E, 84, 84, 3]``.
    """

    index: int
    life: int
    builder: UnrollBuilder
    frames: np.ndarray


class Actions(NamedTuple):
    """What a simulator is to do: actions, int8 ``[E]``."""

    index: int
    life: int
    actions: np.ndarray


def sample_actions(policy: np.ndarray, uniform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draw actions from a policy by inverting its cumulative distribution.

    Args:
        policy: probabilities, float32 ``[B, A]``.
        uniform: random numbers in [0, 1), ``[B]``.

    Returns:
        Actions, int64 ``[B]``, and their probabilities, float32 ``[B]``.
    """
    cumulative = policy.cumsum(axis=1)
    actions = (cumulative <= uniform[:, None] * cumulative[:, -1:]).sum(axis=1)
    actions = np.minimum(actions, policy.shape[1] - 1)
    return actions, np.take_along_axis(policy, actions[:, None], axis=1)[:, 0]


class Predictor:
    """Answers requests on a thread of its own, which runs ``run``; several predictors share the two queues.

    Attributes:
        wait_s: seconds that it waited for requests; written by its thread, read by any.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        requests: queue.SimpleQueue[Request],
        answers: queue.SimpleQueue[Actions],
        envs_per_simulator: Sequence[int],
        batch_size: int,
    ):
        """
        Args:
            rng: what actions are drawn with; the predictor owns it.
            requests: where it takes them from.
            answers: where it puts the actions.
            envs_per_simulator: how many states a request can have.
            batch_size: the most states of an inference, where not one request has more.
        """
        self._rng = rng
        self._requests = requests
        self._answers = answers
        self._most_of_one = max(envs_per_simulator)
        self._batch_size = batch_size
        self.wait_s = 0.0

    def run(
        self,
        policy: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
        version: Callable[[], int],
        stop: threading.Event,
    ) -> None:
        """Act until ``stop`` is set.

        Args:
            policy: states uint8 ``[B, 84, 84, 12]`` to probabilities float32 ``[B, A]`` and values float32 ``[B]``.
            version: of the policy, the learner's updates up to now.
            stop: is looked at twice a second.
        """
        several = aligned_empty((max(self._batch_size, self._most_of_one), *STATE_SHAPE), np.uint8)
        while not stop.is_set():
            start = time.perf_counter()
            requests = self._take_requests()
            self.wait_s += time.perf_counter() - start
            if not requests:
                continue
            acting_version = version()
            blocks = [request.builder.push(request.frames) for request in requests]
            states = blocks[0] if len(blocks) == 1 else np.concatenate(blocks, out=several[: sum(map(len, blocks))])
            probabilities, values = policy(states)
            actions, mus = sample_actions(probabilities, self._rng.random(len(values)))
            at = 0
            for request in requests:
                part = slice(at, at + len(request.frames))
                request.builder.decide(actions[part], mus[part], values[part], acting_version)
                self._answers.put(Actions(request.index, request.life, actions[part].astype(np.int8)))
                at = part.stop

    def _take_requests(self) -> list[Request]:
        """Wait for a request and take what else waits and fits; empty if there was none for half a second."""
        requests, states = [], 0
        try:
            while not requests or states + self._most_of_one <= self._batch_size:
                requests.append(self._requests.get(block=not requests, timeout=_POLL_S))
                states += len(requests[-1].frames)
        except queue.Empty:
            pass
        return requests
