"""The learner: tensorpack's trainer, its callbacks, and what it keeps on disk.

An output directory holds one run: ``config.json``, tensorpack's checkpoints (``model-<step>``), ``stats.json`` and
TensorBoard events, ``hyper.txt`` for values changed by hand, and ``<env>.npz``, the newest weights for the other tasks.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import math
import os
import time
from pathlib import Path

from actor import ActorMaster
from atari_wrapper import Protocol
from common import EVALUATION, Scores, evaluate, frame_statistics
from config import CONFIG_FILE, Config, Schedule, UsageError, file_name
from model import NETWORKS, FrameStatistics, Model, make_policy, session_config
from model_file import ModelFile, write_model
from nursery import Nursery
from simulator import SimulatorMaster

import psutil
import tensorflow as tf
from tensorpack import (
    AsyncMultiGPUTrainer,
    Callback,
    FeedInput,
    HumanHyperParamSetter,
    ModelSaver,
    QueueInput,
    ScheduledHyperParamSetter,
    SimpleTrainer,
    tfv1,
)
from tensorpack.graph_builder.training import AsyncMultiGPUBuilder, DataParallelBuilder
from tensorpack.graph_builder.utils import LeastLoadedDeviceSetter
from tensorpack.tfutils.sesscreate import NewSessionCreator
from tensorpack.tfutils.sessinit import DictRestore, JustCurrentSession, SaverRestore
from tensorpack.utils import logger

HYPER_PARAM_FILE = "hyper.txt"


@dataclasses.dataclass(frozen=True)
class Devices:
    """Which devices train and which infer, by tensorpack's numbers; -1 is the CPU.

    Attributes:
        train: one tower each.
        infer: one predictor graph each.
    """

    train: tuple[int, ...]
    infer: tuple[int, ...]

    @classmethod
    def split(cls, num_devices: int) -> Devices:
        """One device trains and infers; of n > 1 the last ceil(n/2) infer and the rest train. 0 stands for the CPU."""
        if num_devices == 0:
            return cls((0,), (-1,))
        if num_devices == 1:
            return cls((0,), (0,))
        training = num_devices - math.ceil(num_devices / 2)
        return cls(tuple(range(training)), tuple(range(training, num_devices)))


class _AsyncBuilder(AsyncMultiGPUBuilder):
    """tensorpack's, whose way of placing variables for four and more towers is gone from TensorFlow 2."""

    def call_for_each_tower(self, tower_fn):
        devices = [f"/gpu:{tower}" for tower in self.towers]
        variables = ["/cpu:0"] if len(devices) >= 4 else devices
        setters = [LeastLoadedDeviceSetter(device, variables) for device in devices]
        return DataParallelBuilder.build_on_towers(self.towers, tower_fn, setters)


def _make_trainer(towers: tuple[int, ...]):
    if len(towers) == 1:
        return SimpleTrainer()
    trainer = AsyncMultiGPUTrainer(list(towers))
    trainer._builder = _AsyncBuilder(list(towers))
    return trainer


class Evaluator(Callback):
    """Evaluates the newest weights every few epochs; training waits meanwhile. On the trainer's thread."""

    def __init__(self, env_id: str, episodes: int, every_epochs: int, processes: int, device: int, seed: int):
        self._env_id, self._episodes, self._every = env_id, episodes, every_epochs
        self._processes, self._device, self._seed = processes, device, seed
        self.newest: Scores | None = None
        self.seconds = 0.0  # that all evaluations took

    def _setup_graph(self):
        self._predictor = self.trainer.get_predictor(["state"], ["policy", "value"], self._device)

    def _before_train(self):
        self._policy = make_policy(self.trainer.sess, self._predictor.input_tensors[0], self._predictor.output_tensors)

    def _trigger_epoch(self):
        self.newest = None
        if self._every == 0 or self.epoch_num % self._every:
            return
        seed = self._seed + 7919 * self.epoch_num
        start = time.perf_counter()
        scores = evaluate(self._policy, {"env_id": self._env_id}, self._episodes, self._processes, seed)
        self.seconds += time.perf_counter() - start
        self.newest = scores
        logger.info(f"{self._episodes} episodes, {EVALUATION}: mean {scores.mean:.2f} +- {scores.stderr:.2f}, "
                    f"max {scores.max:g}")  # fmt: skip
        for name, value in (("mean_score", scores.mean), ("max_score", scores.max), ("stderr_score", scores.stderr)):
            if math.isfinite(value):
                self.trainer.monitors.put_scalar(name, value)


class TrainingClock(Callback):
    """Publishes ``train_minutes``: from the command's start, of all its resumed parts; evaluations are left out."""

    def __init__(self, evaluator: Evaluator):
        self._evaluator = evaluator
        self.minutes = 0.0

    def _setup_graph(self):
        with tfv1.variable_scope("progress"):
            self._variable = tfv1.get_variable(
                "train_minutes", [], initializer=tfv1.zeros_initializer(), trainable=False
            )

    def _before_train(self):
        self._before = float(self.trainer.sess.run(self._variable))

    def _trigger_epoch(self):
        seconds = time.time() - psutil.Process().create_time() - self._evaluator.seconds
        self.minutes = self._before + seconds / 60
        self._variable.load(self.minutes, self.trainer.sess)
        self.trainer.monitors.put_scalar("train_minutes", self.minutes)


class ModelExporter(Callback):
    """Writes ``<output>/<env>.npz`` at each save: the variables and what they are. On the trainer's thread."""

    def __init__(self, path: Path, config: Config, protocol: Protocol, cores: int, actor: ActorMaster,
                 evaluator: Evaluator, clock: TrainingClock):  # fmt: skip
        self._path, self._config, self._protocol, self._cores = path, config, protocol, cores
        self._actor, self._evaluator, self._clock = actor, evaluator, clock

    def _trigger_epoch(self):
        names = NETWORKS[self._config.network].variable_shapes(len(self._protocol.actions))
        graph = self.graph
        tensors = {name: graph.get_tensor_by_name(f"{name}:0") for name in names}
        scores = self._evaluator.newest
        metadata = {
            "network": self._config.network,
            "env": self._protocol.env,
            "protocol": dataclasses.asdict(self._protocol),
            "steps": self._actor.steps,
            "emulator_frames": self._actor.emulator_frames,
            "updates": self._actor.updates,
            "train_minutes": round(self._clock.minutes, 2),
            "cores": self._cores,
            "seed": self._config.seed,
            "online_score": self._actor.online_score,
            "evaluation": scores and {"mean": scores.mean, "stderr": scores.stderr, "episodes": len(scores.scores),
                                      "protocol": EVALUATION},
            "versions": {name: importlib.metadata.version(name) for name in ("tensorflow", "tensorpack", "ale-py")},
        }  # fmt: skip
        write_model(self._path, self.trainer.sess.run(tensors), metadata)


def _session_creator(cores: int) -> NewSessionCreator:
    creator = NewSessionCreator()
    creator.config = session_config(cores)  # given to the constructor, it warns of GPUs that were used before
    return creator


def _schedule_setter(name: str, schedule: Schedule, updates_per_step: int) -> ScheduledHyperParamSetter:
    changes = [(0, schedule.initial), *((update // updates_per_step, value) for update, value in schedule.changes)]
    return ScheduledHyperParamSetter(name, changes, step_based=True)


def prepare_output(config: Config) -> str | None:
    """Make the output directory ready and find what to resume from.

    Returns:
        The newest checkpoint when resuming, else None.

    Raises:
        UsageError: the directory holds another run, or none to resume.
    """
    output = Path(config.output)
    if output.exists() and not output.is_dir():
        raise UsageError(f"{output} is a file: name a directory with --output")
    holds_run = (output / CONFIG_FILE).exists() or (output / "checkpoint").exists()
    if config.resume:
        checkpoint = tf.train.latest_checkpoint(str(output)) if holds_run else None
        if checkpoint is None and not (output / CONFIG_FILE).exists():
            raise UsageError(f"{output} holds no run to resume: leave --resume out to start one")
        return checkpoint
    if holds_run:
        raise UsageError(f"{output} holds another run: continue it with --resume, or name a new --output")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the output directory {output}: {error.strerror}") from None
    return None


def train(config: Config, protocol: Protocol, model_file: ModelFile | None, cores: int, num_gpus: int) -> None:
    """Train until the last epoch, or until it is interrupted.

    Args:
        config: the resolved configuration.
        protocol: of its environment.
        model_file: weights to start from.
        cores: usable cores.
        num_gpus: GPUs that TensorFlow sees. Towers for others that were asked for run on the CPU.
    """
    checkpoint = prepare_output(config)
    output = Path(config.output)
    logger.set_logger_dir(str(output), action="k")
    logger.info(describe(config, cores))
    config.save(output / CONFIG_FILE)
    tfv1.set_random_seed(config.seed)
    devices = Devices.split(max(num_gpus, len(config.gpu_ids)))
    updates_per_step = len(devices.train)
    nursery = Nursery()
    master = SimulatorMaster(nursery, config.envs_per_simulator, {"env_id": config.env}, seed=config.seed)
    actor = ActorMaster(config, master, list(devices.infer), updates_per_step)
    try:
        statistics = None
        if NETWORKS[config.network].normalize_input and checkpoint is None and model_file is None:
            statistics = FrameStatistics(*frame_statistics(config.env, config.seed))
        # At least a state to each shard, also where half of a batch is too old.
        shards = 1 if num_gpus else max(1, min(cores // len(devices.train), config.batch_size // 2))
        model = Model(config, len(protocol.actions), statistics, shards)
        if updates_per_step == 1:
            data = FeedInput(actor.dataflow())
        else:
            data = QueueInput(actor.dataflow(), tfv1.FIFOQueue(1, [spec.dtype for spec in model.inputs()]))
        trainer = _make_trainer(devices.train)
        trainer.setup_graph(model.get_input_signature(), data, model.build_graph, model.get_optimizer)
        evaluator = Evaluator(config.env, config.eval_episode, config.eval_every, 2 * cores, devices.infer[-1],
                              config.seed)  # fmt: skip
        clock = TrainingClock(evaluator)
        model_path = output / f"{file_name(config.env)}.npz"
        session_init = JustCurrentSession()
        starting_epoch = 1
        if checkpoint is not None:
            session_init = SaverRestore(checkpoint)
            step = int(tf.train.load_variable(checkpoint, "global_step"))
            starting_epoch = step // config.steps_per_epoch + 1
        elif model_file is not None:
            session_init = DictRestore(model_file.variables)
        trainer.train_with_defaults(
            callbacks=[
                actor,
                _schedule_setter("learning_rate", config.learning_rate, updates_per_step),
                _schedule_setter("entropy_beta", config.entropy_beta, updates_per_step),
                HumanHyperParamSetter("learning_rate", HYPER_PARAM_FILE),
                HumanHyperParamSetter("entropy_beta", HYPER_PARAM_FILE),
                clock,
                evaluator,
                ModelSaver(),
                ModelExporter(model_path, config, protocol, cores, actor, evaluator, clock),
            ],
            session_creator=_session_creator(cores),
            session_init=session_init,
            steps_per_epoch=config.steps_per_epoch,
            starting_epoch=starting_epoch,
            max_epoch=config.max_epoch,
        )
        actor.raise_failure()
    finally:
        actor.close()


def describe(config: Config, cores: int) -> str:
    """What a run is about to do, in words: what was chosen for this machine and what the learner's settings are."""
    small = " with settings for few cores (the original's: --network batch-a3c)" if config.network == "small" else ""
    return (
        f"network {config.network}{small}, {config.num_envs} games in {config.simulator_proc} simulators on {cores} "
        f"cores; unrolls of {config.local_time_max} steps, batches of {config.batch_size} states drawn from "
        f"{config.pool_states}, each used {config.sample_reuse}x; {config.correction}, gamma {config.gamma}, "
        f"lambda {config.gae_lambda}; Adam {config.learning_rate}, epsilon {config.adam_epsilon}, "
        f"gradient clip {config.gradient_clip} {config.gradient_clip_norm}; entropy {config.entropy_beta}"
    )


def visible_gpus(gpu_ids: tuple[int, ...]) -> int:
    """Show TensorFlow the GPUs asked for, or else the first one only, and count those it finds."""
    if gpu_ids:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(str(i) for i in gpu_ids)
    else:
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")
    found = len(tf.config.list_physical_devices("GPU"))
    return found if gpu_ids else min(1, found)


def warn_missing_gpus(config: Config, num_gpus: int) -> None:
    """Warn loudly that GPUs were asked for which are not there."""
    logger.warn(
        f"--gpu {config.gpu}: TensorFlow sees {num_gpus} GPU(s). Training goes on, on the CPU where GPUs are missing, "
        "far slower. Check that nvidia-smi works, and install TensorFlow with CUDA: pip install 'tensorflow[and-cuda]'"
    )
