"""The actor: what happens between a simulator's step and the learner's batch, and the threads it happens on.

Threads, and what each owns:

    master      the PULL socket and the collector; blocks when the queue is full
    predictors  P per inference device (see predictor.py); each its random generator, and a builder's newest step
                while it is theirs
    sender      the ROUTER socket

The master hands a block of states to the predictors, they hand its actions to the sender. Because the master blocks
when the learner is behind, simulators then wait and what is in flight stays fresh.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable

from a3c.acting.batches import Batch, BatchPool, BatchQueue, MakeBatch, Transitions, UnrollBatch, WholeUnrolls
from a3c.acting.collector import Collector
from a3c.acting.predictor import Actions, Predictor, Request
from a3c.config import Config
from a3c.errors import RunError
from a3c.seeds import Purpose, Seeds
from a3c.simulation.master import SimulatorMaster
from a3c.system.clock import running_s
from a3c.system.stopping import StopRequest

import numpy as np

_POLL_S = 0.5
_STOP_TIMEOUT_S = 12.0  # above what the sender may wait for a simulator to connect


class ActorStoppedError(Exception):
    """There are no more batches: the run stops."""


class StallError(RunError):
    """No batch reached the learner for too long; the text says where it is stuck, with the stacks of all threads."""

    def __init__(self, stage: str, seconds: float, restarts: int):
        """
        Args:
            stage: what is blocked: simulators, predictors, queue or learner.
            seconds: how long nothing came.
            restarts: simulators that were replaced so far.
        """
        super().__init__(
            f"stalled: no batch for {seconds:g} s (--stall-timeout); blocked: {stage}; simulators replaced so far: "
            f"{restarts}\n\n{_stacks()}"
        )


def _stacks() -> str:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return "\n".join(
        f"thread {names.get(ident, ident)}:\n{''.join(traceback.format_stack(frame))}"
        for ident, frame in sys._current_frames().items()
    )


class Actor:
    """Acts with the newest policy, and has batches for the learner.

    The trainer's thread starts it, takes its batches and closes it.

    Attributes:
        collector: what the master's thread does with steps; it counts them.
        updates: the learner's, so far; written by the trainer's thread.
        learning: whether the learner is in the midst of an epoch's updates; written by the trainer's thread.
        recent_batches: the newest batches taken: with several towers it is not known which of them takes which.
        simulator_wait_s, queue_wait_s: seconds that the master waited for steps, and for the learner.
        learner_wait_s: seconds that the learner waited for batches.
        dropped_transitions: older than ``--max-policy-lag``.
    """

    def __init__(self, config: Config, master: SimulatorMaster, devices: int, updates_per_step: int, stop: StopRequest):
        """
        Args:
            config: the resolved configuration.
            master: the simulators; the actor's threads own it from ``start`` on, and it is closed with the actor.
            devices: how many infer, with ``--predictor-thread-per-gpu`` predictors each.
            updates_per_step: learner updates in one step of the trainer.
            stop: ends the batches.
        """
        self._config, self._master, self._stop_request = config, master, stop
        # What is resumed has had lives of simulators before: it draws other numbers.
        seeds = Seeds(config.seed, Purpose.TRAINING_ACTIONS, master.lives)
        pool_rng, *rngs = (seeds.generator(part) for part in range(1 + devices * config.predictor_thread_per_gpu))
        if config.correction == "vtrace":
            items = WholeUnrolls(config.local_time_max)
        else:
            items = Transitions(config.gamma, config.gae_lambda, config.correction == "clipped-surrogate")
        self._requests: queue.SimpleQueue[Request] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Actions] = queue.SimpleQueue()
        self.collector = Collector(
            master.envs_per_simulator,
            config.local_time_max,
            BatchPool(items, config.batch_size, config.pool_states, config.sample_reuse, pool_rng),
            config.pool_states > config.batch_size,
            self._requests,
            self._put,
            master.at_play,
        )
        sizes = master.envs_per_simulator
        self._predictors = [
            Predictor(rng, self._requests, self._answers, sizes, config.predict_batch_size) for rng in rngs
        ]
        self._batches = BatchQueue(None if config.deterministic else config.queue_size)
        self.recent_batches: deque[Batch | UnrollBatch] = deque(maxlen=1 if updates_per_step == 1 else
                                                                updates_per_step + 2)  # fmt: skip
        self._threads: list[threading.Thread] = []
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self.updates = 0
        self.learning = False
        self.simulator_wait_s = 0.0
        self.queue_wait_s = 0.0
        self.learner_wait_s = 0.0
        self.dropped_transitions = 0

    # On the trainer's thread.

    def start(self, policies: list[Callable]) -> None:
        """Start the threads.

        Args:
            policies: one for each inference device: states to probabilities and values.
        """
        targets = [("master", self._run_master, ()), ("sender", self._run_sender, ())]
        threads_per_policy = self._config.predictor_thread_per_gpu
        for number, predictor in enumerate(self._predictors):
            args = (policies[number // threads_per_policy], lambda: self.updates, self._stop)
            targets.append((f"predictor-{number}", predictor.run, args))
        for name, target, args in targets:
            thread = threading.Thread(target=self._guard, args=(target, *args), name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def take_batch(self) -> Batch | UnrollBatch:
        """Wait for a batch; what is older than ``--max-policy-lag`` is left out of it.

        Raises:
            ActorStoppedError: the run stops.
            StallError: there was none for ``--stall-timeout``, while a host was there.
            RuntimeError: a thread of the actor failed.
        """
        waits, since = self._waits(), running_s()
        while True:
            self.raise_failure()
            if self._stop.is_set() or self._stop_request.signal:
                raise ActorStoppedError
            start = time.perf_counter()
            make_batch = self._batches.get(_POLL_S)
            self.learner_wait_s += time.perf_counter() - start
            if make_batch is None:
                if self._master.hosts_away:
                    waits, since = self._waits(), running_s()
                waited_s = running_s() - since
                if waited_s > self._config.stall_timeout:
                    self._failure = self._stalled(self._blocked_stage(waits, waited_s))
                continue
            batch = make_batch()
            if self._config.max_policy_lag is not None:
                batch = self._drop_old(batch, self._config.max_policy_lag)
            if len(batch.states):
                self.recent_batches.append(batch)
                return batch

    def _drop_old(self, batch: Batch | UnrollBatch, max_lag: int) -> Batch | UnrollBatch:
        lags = self.updates - batch.versions
        keep = (lags <= max_lag).reshape(len(lags), -1).all(axis=1)
        if 2 * keep.sum() < len(keep):  # too few for an update
            keep[:] = False
        self.dropped_transitions += int(lags[~keep].size)
        return batch if keep.all() else type(batch)(*(column[keep] for column in batch))

    def _blocked_stage(self, waits_before: np.ndarray, seconds: float) -> str:
        simulators, *predictors = (self._waits() - waits_before) / seconds
        if min(predictors) < 0.5:  # one of them does not wait for work
            return "predictors"
        return "simulators" if simulators > 0.5 else "queue"

    def _waits(self) -> np.ndarray:
        return np.array([self.simulator_wait_s, *self.predictor_wait_s])

    @property
    def predictor_wait_s(self) -> list[float]:
        """Seconds that each predictor waited for states to act on."""
        return [predictor.wait_s for predictor in self._predictors]

    @property
    def failed(self) -> bool:
        """Whether something stopped a thread of the actor."""
        return self._failure is not None

    def raise_failure(self) -> None:
        """Raise what stopped a thread of the actor, if anything did."""
        if isinstance(self._failure, RunError):
            raise self._failure
        if self._failure is not None:
            raise RuntimeError("a thread of the actor failed") from self._failure

    def close(self) -> None:
        """Stop the threads and the simulators. A second call does nothing."""
        if self._stop.is_set():
            return
        self._stop.set()
        for thread in self._threads:
            thread.join(_STOP_TIMEOUT_S)
        if not any(thread.is_alive() for thread in self._threads):
            self._master.close()

    # On the actor's threads.

    def _guard(self, target, *args) -> None:
        try:
            target(*args)
        except BaseException as error:  # of whatever kind: it must reach the trainer
            self._failure = error

    def _stalled(self, stage: str) -> StallError:
        return StallError(stage, self._config.stall_timeout, self._master.restarts)

    def _run_master(self) -> None:
        while not self._stop.is_set():
            start = time.perf_counter()
            block = self._master.receive(_POLL_S)
            self.simulator_wait_s += time.perf_counter() - start
            if block is None:
                self.collector.look()
            else:
                self.collector.on_step(block)

    def _put(self, batches: list[MakeBatch]) -> None:
        start = time.perf_counter()
        self._batches.put(batches)
        learning_since = running_s()
        while not (self._stop.is_set() or self._batches.wait_for_room(_POLL_S)):
            self._master.replace_dead()
            now = running_s()
            if not self.learning:  # it evaluates or saves
                learning_since = now
            elif now - learning_since > self._config.stall_timeout:  # nobody else could tell
                print(self._stalled("learner"), file=sys.stderr, flush=True)
                os._exit(1)
        self.queue_wait_s += time.perf_counter() - start

    def _run_sender(self) -> None:
        while not self._stop.is_set():
            try:
                answer = self._answers.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            self._master.send(*answer)
