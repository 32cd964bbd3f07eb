"""The trainer's callbacks: evaluation, clock, exported models, and guards. All run on the trainer's thread."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import math
import subprocess
import textwrap
import time
from pathlib import Path

from a3c.acting.actor import Actor
from a3c.cluster.cluster import Cluster, ClusterLostError
from a3c.config import Config, Schedule
from a3c.errors import RunError, UsageError
from a3c.learning.checkpoint import disk_errors_told
from a3c.learning.run_directory import RunDirectory
from a3c.playing.episode import GREEDY
from a3c.playing.evaluation import evaluate
from a3c.policy.networks import NETWORKS
from a3c.policy.session import make_policy
from a3c.reports.scores import Scores
from a3c.run_files import CURVE_FILE, STATS_FILE
from a3c.seeds import Purpose, Seeds
from a3c.system.clock import running_s
from a3c.system.processes import start_program
from a3c.system.stopping import StoppedError, StopRequest
from a3c.weights.model_file import ModelFile, origin, read_model, write_arrays, write_model
from atari_wrapper import Protocol

import numpy as np
from tensorpack import Callback, tfv1
from tensorpack.callbacks import HyperParamSetter
from tensorpack.utils import logger

_LONGEST_LINE = 40  # that is told of a file
_HIGHEST = float(np.finfo(np.float32).max)
_DRAW_EVERY_S = 60.0
_DRAW_S = 20.0  # it may take, with the lowest priority


class Evaluator(Callback):
    """Evaluates the newest weights every few epochs; training waits meanwhile."""

    def __init__(self, config: Config, processes: int, device: int, stop: StopRequest, cluster: Cluster | None = None):
        """``device``: tensorpack's number of the one that infers, -1 for the CPU; ``cluster``: whose hosts play."""
        self._env_id, self._episodes, self._every = config.env, config.eval_episode, config.eval_every
        self._processes, self._device, self._seed, self._stop = processes, device, config.seed, stop
        self._step_timeout_s, self._cluster = config.simulator_timeout, cluster
        self.newest: Scores | None = None
        self.seconds = 0.0  # that all evaluations took

    def _setup_graph(self):
        self._predictor = self.trainer.get_predictor(["state"], ["policy", "value"], self._device)

    def _before_train(self):
        state = self._predictor.input_tensors[0]
        self._policy = make_policy(self.trainer.sess, state, self._predictor.output_tensors)

    def _trigger_epoch(self):
        self.newest = None
        if self._every == 0 or self.epoch_num % self._every or self._stop.signal:
            return
        seeds = Seeds(self._seed, Purpose.TRAINING_EVALUATION, self.epoch_num)
        start = running_s()
        try:
            scores = evaluate(self._policy, {"env_id": self._env_id}, self._episodes, self._processes, seeds,
                              step_timeout_s=self._step_timeout_s, check_stop=self._stop.check,
                              cluster=self._cluster)  # fmt: skip
        except StoppedError:
            return  # training hears it too
        except ClusterLostError:
            raise
        except Exception as error:  # of whatever kind: what was learned is worth more
            logger.warn(f"this evaluation failed, training goes on: {error or type(error).__name__}")
            return
        finally:
            self.seconds += running_s() - start
        self.newest = scores
        logger.info(f"{self._episodes} episodes, {GREEDY}: mean {scores.mean:.2f} +- {scores.stderr:.2f}, "
                    f"max {scores.max:g}")  # fmt: skip
        for name, value in (("mean_score", scores.mean), ("max_score", scores.max), ("stderr_score", scores.stderr)):
            if math.isfinite(value):
                self.trainer.monitors.put_scalar(name, value)


class TrainingClock(Callback):
    """Publishes ``train_minutes``: of all resumed parts from the command's start, without evaluations and pauses."""

    def __init__(self, evaluator: Evaluator):
        self._evaluator = evaluator
        self._before, self.minutes = 0.0, 0.0

    def _setup_graph(self):
        with tfv1.variable_scope("progress"):
            self._variable = tfv1.get_variable(
                "train_minutes", [], initializer=tfv1.zeros_initializer(), trainable=False
            )

    def _before_train(self):
        self._before = float(self.trainer.sess.run(self._variable))

    def _trigger_epoch(self):
        self._keep_time()
        self.trainer.monitors.put_scalar("train_minutes", self.minutes)

    def _after_train(self):
        self._keep_time()

    def _keep_time(self) -> None:
        self.minutes = self._before + (running_s() - self._evaluator.seconds) / 60
        self._variable.load(self.minutes, self.trainer.sess)


class RunBegins(Callback):
    """Writes the run's configuration when its session stands and nothing was trained yet."""

    def __init__(self, directory: RunDirectory):
        self._directory = directory

    def _before_train(self):
        self._directory.begin()


class ModelExporter(Callback):
    """Writes ``<env>.npz`` at each save, the newest weights and what they are; ``<env>-best.npz`` at the best score.

    It comes before ``evaluator``, and writes again what that has found.
    """

    def __init__(self, directory: RunDirectory, config: Config, protocol: Protocol, model_file: ModelFile | None,
                 cores: int, actor: Actor, evaluator: Evaluator, clock: TrainingClock,
                 stop: StopRequest):  # fmt: skip
        self._path, self._best_path = directory.model, directory.best_model
        self._config, self._protocol, self._cores = config, protocol, cores
        self._actor, self._evaluator, self._clock, self._stop = actor, evaluator, clock, stop
        self._begun_from = _origin_told_by(self._path) if model_file is None else origin(model_file)
        self._written = True
        self.best_score = _score_of(self._best_path)

    def _before_train(self):
        if not self._path.exists():  # a run that is resumed from its first checkpoint still says what it began from
            self._export()

    def _trigger_epoch(self):  # ahead of an evaluation, in which the run may be killed
        self._export()

    def _before_epoch(self):
        if self._evaluator.newest is not None:
            self._export()

    def _after_train(self):
        if self._stop.signal or self._actor.failed or not self._written or self._evaluator.newest is not None:
            self._export()

    def _export(self) -> None:
        names = NETWORKS[self._config.network].variable_shapes(len(self._protocol.actions))
        variables = self.trainer.sess.run({name: self.graph.get_tensor_by_name(f"{name}:0") for name in names})
        scores, self._evaluator.newest = self._evaluator.newest, None
        metadata = {
            "network": self._config.network,
            "env": self._protocol.env,
            "protocol": dataclasses.asdict(self._protocol),
            "steps": self._actor.collector.steps,
            "emulator_frames": self._actor.collector.emulator_frames,
            "updates": self._actor.updates,
            "train_minutes": round(self._clock.minutes, 2),
            "cores": self._cores,
            "seed": self._config.seed,
            "begun_from": self._begun_from,
            "online_score": self._actor.collector.online_score,
            "evaluation": scores and {"mean": scores.mean, "stderr": scores.stderr, "episodes": len(scores.scores),
                                      "protocol": GREEDY},
            "versions": {name: importlib.metadata.version(name) for name in ("tensorflow", "tensorpack", "ale-py")},
        }  # fmt: skip
        self._written = False
        with disk_errors_told(str(self._path)):
            write_model(self._path, variables, metadata)
            self._written = True
            if scores and scores.mean > self.best_score:
                write_model(self._best_path, variables, metadata)
                self.best_score = scores.mean


def _origin_told_by(path: Path) -> dict | None:
    """Which weights the run that wrote this model began from; None if it began from new ones, or wrote none."""
    with contextlib.suppress(UsageError):
        return read_model(str(path)).metadata.get("begun_from")


def _score_of(path: Path) -> float:
    """The score of the best model so far; minus infinity if there is none."""
    if not path.exists():
        return -math.inf
    try:
        return float(read_model(str(path)).metadata["evaluation"]["mean"])
    except (UsageError, KeyError) as error:
        logger.warn(f"{path} does not tell its score ({error}): the next evaluation counts as the best")
        return -math.inf


class FiniteGuard(Callback):
    """Stops the run at the update whose loss, or whose behaviour policy, is not finite, and writes its batch."""

    def __init__(self, directory: Path, actor: Actor, batch_columns: list[str]):
        self._directory, self._actor, self._columns = directory, actor, batch_columns

    def _setup_graph(self):
        self._costs = [tower.get_tensor("cost") for tower in self.trainer.towers.training()]

    def _before_run(self, _):
        return tfv1.train.SessionRunArgs(self._costs)

    def _after_run(self, _, run_values):
        batches = list(self._actor.recent_batches)
        # Not every device's minimum hands a probability that is no number on to the loss.
        if all(map(math.isfinite, run_values.results)) and all(np.isfinite(batch.mus).all() for batch in batches):
            return
        update = self._actor.updates
        path = self._directory / f"batch-of-update-{update}.npz"
        arrays = {
            f"{name}-{number}" if number else name: column
            for number, batch in enumerate(reversed(batches))
            for name, column in zip(self._columns, batch, strict=True)
        }
        bad = [name for name, column in arrays.items() if not np.isfinite(column).all()]
        with disk_errors_told(str(path)):
            write_arrays(path, arrays)
        losses = ", ".join(map(str, run_values.results))
        where = (
            f"not finite in its batch: {', '.join(bad)}"
            if bad
            else "its batch is finite: is the learning rate too high"
        )
        raise RunError(
            f"update {update}: the loss is {losses}; {where}. Its batch is in {path}; the last checkpoint is from "
            "before it: --resume continues there"
        )


class ScheduleSetter(HyperParamSetter):
    """Sets a hyper-parameter to what its schedule says, at the start and at each change; until the next, others may.

    tensorpack's own takes a value of 0 for none when a run is resumed.
    """

    def __init__(self, name: str, schedule: Schedule, updates_per_step: int):
        super().__init__(name)
        self._schedule, self._updates_per_step = schedule, updates_per_step
        self._scheduled: float | None = None

    def _get_value_to_set(self) -> float | None:
        value = self._schedule.at(self.global_step * self._updates_per_step)
        if value == self._scheduled:
            return None
        self._scheduled = value
        return value

    def _trigger_step(self):
        self.trigger()


class WholeEpochs(Callback):
    """Ends epochs at multiples of their length also where a run resumes in the midst of one."""

    def __init__(self, steps_per_epoch: int):
        self._steps = steps_per_epoch

    def _before_epoch(self):
        self.trainer.loop.steps_per_epoch = self._steps - self.global_step % self._steps


class HandFile:
    """Values that are set by hand while training runs: a file with a line such as ``learning_rate: 0.0001`` for each.

    Attributes:
        names: of the values that it may have.
    """

    def __init__(self, path: Path, names: tuple[str, ...]):
        self.names = names
        self._path = path
        self._newest: tuple[str, str] | None = None

    def read(self) -> dict[str, float]:
        """The values that there are. What cannot be read is left out, and told once for each state of the file."""
        text = failure = ""
        if self._path.is_file():
            try:
                text = self._path.read_text(encoding="utf-8-sig", errors="replace")
            except OSError as error:
                failure = str(error.strerror)
        values, unreadable = self._parse(text)
        if (failure or unreadable) and self._newest != (text, failure):
            reason = failure or f"no value of {' or '.join(self.names)}: {', '.join(unreadable)}"
            logger.warn(f"{self._path} is read in part, or not at all: {reason}")
        self._newest = (text, failure)
        return values

    def _parse(self, text: str) -> tuple[dict[str, float], list[str]]:
        values, unreadable = {}, []
        for line in filter(None, (line.partition("#")[0].strip() for line in text.splitlines())):
            name, _, value = line.partition(":")
            name = name.strip().lower().replace("-", "_")
            try:
                number = float(value)
            except ValueError:
                number = math.nan
            if name in self.names and 0 <= number <= _HIGHEST:
                values[name] = number
            else:
                unreadable.append(repr(textwrap.shorten(line, _LONGEST_LINE)))
        return values, unreadable


class HandSetter(HyperParamSetter):
    """Sets a value to that of the hand-written file, if it has one, before training and after each epoch."""

    def __init__(self, name: str, file: HandFile):
        super().__init__(name)
        self._name, self._file = name, file

    def _get_value_to_set(self):
        return self._file.read().get(self._name)


class CurveDrawer(Callback):
    """Keeps ``learning_curve.png`` up to date: every minute, and at the end, a process of low priority draws it."""

    def __init__(self, directory: Path, stop: StopRequest):
        self._directory, self._stop = directory, stop
        self._process: subprocess.Popen | None = None
        self._started_s = time.monotonic()

    def _before_epoch(self):  # now the statistics of the epoch before are written
        if time.monotonic() - self._started_s > _DRAW_EVERY_S and self._ended(0):
            self._draw()

    def _after_train(self):
        if self._stop.signal or not self._ended(_DRAW_S):
            self._kill()
            return
        self._draw()
        if not self._ended(_DRAW_S):
            self._kill()

    def _draw(self) -> None:
        if not (self._directory / STATS_FILE).exists():
            return
        self._started_s = time.monotonic()
        try:
            self._process = start_program(
                "a3c.reports.curves", self._directory, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )
        except OSError as error:  # there may be no process more
            logger.warn(f"{CURVE_FILE} was not drawn: {error.strerror}")

    def _ended(self, timeout_s: float) -> bool:
        """Whether no process is drawing, at least after so long; tells if it failed."""
        if self._process is None:
            return True
        try:
            _, error = self._process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            return False
        if self._process.returncode != 0:
            *_, reason = error.strip().splitlines() or [f"status {self._process.returncode}"]
            logger.warn(f"{CURVE_FILE} was not drawn: {reason}")
        self._process = None
        return True

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
