"""The actor: what happens between a simulator's step and the learner's batch.

Threads, and what each owns:

    master      the PULL socket, the unroll builders, the pool being filled, the episode scores; blocks when the queue
                is full
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
from collections import deque

from a3c.acting.batch_queue import BatchQueue
from a3c.acting.predictor import Actions, Predictor, Request
from a3c.acting.stall import StallError
from a3c.acting.unroll import Batch, BatchPool, MakeBatch, Transitions, UnrollBatch, UnrollBuilder, WholeUnrolls
from a3c.config import Config, RunError
from a3c.learning.model import make_policy
from a3c.seeds import Purpose, Seeds
from a3c.simulation.master import SimulatorMaster
from a3c.simulation.messages import RUNNING, StepBlock
from a3c.system.clock import running_s
from a3c.system.stopping import StopRequest

import numpy as np
from tensorpack import Callback, DataFlow, tfv1
from tensorpack.train import StopTraining

_POLL_S = 0.5
_STOP_TIMEOUT_S = 12.0  # above what the sender may wait for a simulator to connect
_ONLINE_EPISODES = 100
PROGRESS = ("steps", "emulator_frames", "simulator_lives", "updates")  # kept in checkpoints, under progress/


class ActorMaster(Callback):
    """Acts with the newest policy, collects unrolls, and feeds the trainer through ``dataflow()``.

    As a callback it lives on the trainer's thread, counts the learner's updates and publishes the counters.
    """

    def __init__(
        self,
        config: Config,
        master: SimulatorMaster,
        inference_devices: list[int],
        updates_per_step: int,
        stop: StopRequest,
    ):
        """
        Args:
            config: the resolved configuration.
            master: the simulators; the actor's threads own it from ``before_train`` on and close it after training.
            inference_devices: tensorpack's device numbers, -1 for the CPU.
            updates_per_step: learner updates in one step of the trainer: the number of training towers.
            stop: ends the training between two updates.
        """
        self._config = config
        self._master = master
        self._devices = inference_devices
        self._updates_per_step = updates_per_step
        self._stop_request = stop
        simulators = len(master.envs_per_simulator)
        self._builders: list[UnrollBuilder | None] = [None] * simulators
        self._scores: list[np.ndarray | None] = [None] * simulators
        # With a pool, a simulator that has filled its unroll waits for the others: all of a pool is of one policy,
        # the newest, where free-running simulators would drift apart by whole pools.
        self._in_generations = config.pool_states > config.batch_size
        self._held: list[Request] = []
        # What is resumed has had lives of simulators before: it draws other numbers.
        seeds = Seeds(config.seed, Purpose.TRAINING_ACTIONS, master.lives)
        predictors = len(inference_devices) * config.predictor_thread_per_gpu
        pool_rng, *rngs = (seeds.generator(part) for part in range(1 + predictors))
        if config.correction == "vtrace":
            items = WholeUnrolls(config.local_time_max)
        else:
            items = Transitions(config.gamma, config.gae_lambda, config.correction == "clipped-surrogate")
        self._pool = BatchPool(items, config.batch_size, config.pool_states, config.sample_reuse, pool_rng)
        self._requests: queue.SimpleQueue[Request] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Actions] = queue.SimpleQueue()
        self._predictors = [
            Predictor(
                rng,
                self._requests,
                self._answers,
                master.envs_per_simulator,
                config.predict_batch_size,
            )
            for rng in rngs
        ]
        self._batches = BatchQueue(None if config.deterministic else config.queue_size)
        self._learning = False  # in the midst of an epoch's updates
        # The newest batches taken: with several towers it is not known which of them takes which.
        self.recent_batches: deque[Batch | UnrollBatch] = deque(maxlen=1 if updates_per_step == 1 else
                                                                updates_per_step + 2)  # fmt: skip
        self._threads: list[threading.Thread] = []
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        # Counters: each is written by one thread and read by any.
        self.updates = 0
        self.steps = 0
        self.emulator_frames = 0
        self._online_scores: deque[float] = deque(maxlen=_ONLINE_EPISODES)
        self.episodes = 0
        self.simulator_wait_s = 0.0  # the master waits for steps
        self.queue_wait_s = 0.0  # the master waits for the learner
        self.learner_wait_s = 0.0
        self.dropped_transitions = 0  # older than --max-policy-lag
        self._lag_sum, self._lag_count, self._lag_max = 0, 0, 0

    # The learner's side, on the trainer's thread.

    def dataflow(self, end: type[BaseException] = StopTraining) -> DataFlow:
        """The batches, as the model's inputs; iterated by the trainer's thread, or by tensorpack's enqueue thread.

        ``end`` is raised when training stops: what the thread that iterates takes for the end.
        """
        return _BatchFlow(self, end)

    def take_batch(self) -> Batch | UnrollBatch:
        """Wait for a batch; what is older than ``--max-policy-lag`` is left out of it.

        Raises:
            StopTraining: training stops.
            StallError: there was none for ``--stall-timeout``.
            RuntimeError: a thread of the actor failed.
        """
        waits = self._actor_waits()
        since = running_s()
        while True:
            self.raise_failure()
            if self._stop.is_set() or self._stop_request.signal:
                raise StopTraining("the run stops")
            start = time.perf_counter()
            make_batch = self._batches.get(_POLL_S)
            self.learner_wait_s += time.perf_counter() - start
            if make_batch is None:
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

    def _blocked_stage(self, waits_before: np.ndarray, seconds: float) -> str:
        simulators, *predictors = (self._actor_waits() - waits_before) / seconds
        if min(predictors) < 0.5:  # one of them does not wait for work
            return "predictors"
        return "simulators" if simulators > 0.5 else "queue"

    def _stalled(self, stage: str) -> StallError:
        return StallError(stage, self._config.stall_timeout, self._master.restarts)

    def _drop_old(self, batch: Batch | UnrollBatch, max_lag: int) -> Batch | UnrollBatch:
        lags = self.updates - batch.versions
        keep = (lags <= max_lag).reshape(len(lags), -1).all(axis=1)
        if 2 * keep.sum() < len(keep):  # too few for an update
            keep[:] = False
        self.dropped_transitions += int(lags[~keep].size)
        return batch if keep.all() else type(batch)(*(column[keep] for column in batch))

    @property
    def online_score(self) -> float | None:
        """Mean raw score of the last 100 training episodes; None before the first has ended."""
        scores = list(self._online_scores)
        return float(np.mean(scores)) if scores else None

    def raise_failure(self) -> None:
        """Raise what stopped a thread of the actor, if anything did."""
        if isinstance(self._failure, RunError):
            raise self._failure
        if self._failure is not None:
            raise RuntimeError("a thread of the actor failed") from self._failure

    def _setup_graph(self):
        self._policy_versions = [tower.get_tensor("policy_version") for tower in self.trainer.towers.training()]
        self._towers = [self.trainer.get_predictor(["state"], ["policy", "value"], d) for d in self._devices]
        with tfv1.variable_scope("progress"):
            self._progress = [
                tfv1.get_variable(name, [], tfv1.int64, tfv1.zeros_initializer(), trainable=False) for name in PROGRESS
            ]

    def _before_train(self):
        self.steps, self.emulator_frames, *_ = (int(value) for value in self.trainer.sess.run(self._progress))
        self.updates = self.global_step * self._updates_per_step
        targets = [("master", self._run_master, ()), ("sender", self._run_sender, ())]
        predictors = iter(self._predictors)
        for tower in self._towers:
            policy = make_policy(self.trainer.sess, tower.input_tensors[0], tower.output_tensors)
            for _ in range(self._config.predictor_thread_per_gpu):
                args = (policy, lambda: self.updates, self._stop)
                targets.append((f"predictor-{len(targets) - 2}", next(predictors).run, args))
        for name, target, args in targets:
            thread = threading.Thread(target=self._guard, args=(target, *args), name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def _before_epoch(self):
        self._learning = True
        self._lag_sum, self._lag_count, self._lag_max = 0, 0, 0

    def _before_run(self, _):
        return tfv1.train.SessionRunArgs(self._policy_versions)

    def _after_run(self, _, run_values):
        for versions in run_values.results:
            lags = self.updates - versions
            self._lag_sum += int(lags.sum())
            self._lag_count += len(lags)
            self._lag_max = max(self._lag_max, int(lags.max()))
        self.updates += self._updates_per_step

    def _trigger_step(self):
        # With an epoch's last update comes its end, which is not left out.
        if self._stop_request.signal and self.local_step + 1 < self.trainer.steps_per_epoch:
            raise StopTraining(f"{self._stop_request.signal.name} asked for it")

    @property
    def predictor_wait_s(self) -> list[float]:
        """Seconds that each predictor waited for states to act on."""
        return [predictor.wait_s for predictor in self._predictors]

    def _actor_waits(self) -> np.ndarray:
        return np.array([self.simulator_wait_s, *self.predictor_wait_s])

    @property
    def policy_lag_mean(self) -> float:
        """Learner updates between acting and learning, the mean over what was learned from in this epoch."""
        return self._lag_sum / max(1, self._lag_count)

    def _after_epoch(self):
        self._learning = False
        scalars = {
            "policy_lag_mean": self.policy_lag_mean,
            "policy_lag_max": self._lag_max,
            "dropped_transitions": self.dropped_transitions,
            "steps": self.steps,
            "emulator_frames": self.emulator_frames,
            "updates": self.updates,
            "episodes": self.episodes,
            "simulator_restarts": self._master.restarts,
            "malformed_messages": self._master.malformed_messages,
        }
        if self.online_score is not None:
            scalars["online_score"] = self.online_score
        for name, value in scalars.items():
            self.trainer.monitors.put_scalar(name, value)
        self._keep_progress()

    def _keep_progress(self) -> None:
        values = (self.steps, self.emulator_frames, self._master.lives, self.updates)
        for variable, value in zip(self._progress, values, strict=True):
            variable.load(value, self.trainer.sess)

    def _after_train(self):
        self._learning = False
        self.close()
        self._keep_progress()

    def close(self) -> None:
        """Stop the threads and the simulators. A second call does nothing."""
        if self._stop.is_set():
            return
        self._stop.set()
        for thread in self._threads:
            thread.join(_STOP_TIMEOUT_S)
        if not any(thread.is_alive() for thread in self._threads):
            self._master.close()

    # The actor's threads.

    def _guard(self, target, *args) -> None:
        try:
            target(*args)
        except BaseException as error:  # of whatever kind: it must reach the trainer
            self._failure = error

    def _run_master(self) -> None:
        while not self._stop.is_set():
            start = time.perf_counter()
            block = self._master.receive(_POLL_S)
            self.simulator_wait_s += time.perf_counter() - start
            if block is not None:
                self._on_step(block)

    def _on_step(self, block: StepBlock) -> None:
        self.emulator_frames += block.emulator_frames
        unroll, handed_out = None, False
        if block.sequence == 0:
            states = self._begin_life(block)
        else:
            self._count(block)
            builder = self._builders[block.index]
            unroll = builder.record(block.rewards, block.ends)
            if unroll is not None:
                for batches in self._pool.add(unroll):
                    self._put(batches)
                    handed_out = True
            states = builder.push(block.frames)
        request = Request(block.index, block.life, self._builders[block.index], states)
        if unroll is None or not self._in_generations:
            self._requests.put(request)
            return
        self._held.append(request)
        if handed_out or len(self._held) == len(self._builders):
            for held in self._held:
                self._requests.put(held)
            self._held.clear()

    def _begin_life(self, block: StepBlock) -> np.ndarray:
        # A new builder: a predictor may still be at work on the one of the life that ended.
        index = block.index
        self._builders[index] = UnrollBuilder(len(block.ends), self._config.local_time_max)
        self._scores[index] = np.zeros(len(block.ends))
        self._held = [request for request in self._held if request.index != index]
        return self._builders[index].start(block.frames)

    def _count(self, block: StepBlock) -> None:
        scores = self._scores[block.index]
        self.steps += len(scores)
        scores += block.rewards
        for env in np.flatnonzero(block.ends != RUNNING):
            self._online_scores.append(float(scores[env]))
            self.episodes += 1
            scores[env] = 0

    def _put(self, batches: list[MakeBatch]) -> None:
        start = time.perf_counter()
        self._batches.put(batches)
        learning_since = running_s()
        while not (self._stop.is_set() or self._batches.wait_for_room(_POLL_S)):
            self._master.replace_dead()
            now = running_s()
            if not self._learning:  # it evaluates or saves
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


class _BatchFlow(DataFlow):
    def __init__(self, actor: ActorMaster, end: type[BaseException]):
        self._actor, self._end = actor, end

    def __iter__(self):
        while True:
            try:
                states, *columns = self._actor.take_batch()
            except StopTraining:
                raise self._end from None
            yield [states.reshape(-1, *states.shape[-3:]), *(column.reshape(-1) for column in columns)]
