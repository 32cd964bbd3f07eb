"""The learner: tensorpack's trainer and what it is made of.

An output directory holds one run: ``config.json``, checkpoints (``model-<step>``), ``stats.json`` and TensorBoard
events, ``hyper.txt`` for values changed by hand, and for the other tasks ``<env>.npz``, the newest weights, and
``<env>-best.npz``, those with the best evaluation.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import os
from pathlib import Path

from actor import PROGRESS, ActorMaster
from atari_wrapper import Protocol
from callbacks import (
    CurveDrawer,
    Evaluator,
    EventWriter,
    FiniteGuard,
    ModelExporter,
    StatsWriter,
    TrainingClock,
    WholeEpochs,
)
from checkpoint import Checkpointer, mend_stats, newest_whole, saved_steps
from config import CONFIG_FILE, Config, Schedule, UsageError, file_name, output_errors_told
from frame_statistics import frame_statistics
from model import Model, session_config
from model_file import ModelFile
from networks import NETWORKS
from nursery import Nursery
from simulator_master import SimulatorMaster
from status import StatusLine
from stopping import StopRequest
from watch import listen
from watcher import Watcher

import tensorflow as tf
from tensorpack import (
    AsyncMultiGPUTrainer,
    FeedInput,
    HumanHyperParamSetter,
    QueueInput,
    ScheduledHyperParamSetter,
    SimpleTrainer,
    tfv1,
)
from tensorpack.callbacks import MergeAllSummaries, MovingAverageSummary, RunUpdateOps, ScalarPrinter
from tensorpack.dataflow import DataFlowTerminated
from tensorpack.graph_builder.training import AsyncMultiGPUBuilder, DataParallelBuilder
from tensorpack.graph_builder.utils import LeastLoadedDeviceSetter
from tensorpack.tfutils.sesscreate import NewSessionCreator
from tensorpack.tfutils.sessinit import DictRestore, JustCurrentSession, SaverRestore
from tensorpack.utils import logger

HYPER_PARAM_FILE = "hyper.txt"
_OPTIMIZERS = {"adam": "Adam", "soap": "SOAP"}
# After each epoch, besides what the status line says; the statistics and TensorBoard have all.
_PRINTED = ["^(steps|train_minutes|learning_rate|entropy|policy_loss|value_loss)$", "^(dropped_|simulator_|malformed_)"]


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
        The newest whole checkpoint when resuming, else None.

    Raises:
        UsageError: the directory holds another run, or none to resume, or cannot be written.
    """
    output = Path(config.directory)
    if output.exists() and not output.is_dir():
        raise UsageError(f"{output} is a file: name a directory with --output")
    holds_run = (output / CONFIG_FILE).exists() or bool(saved_steps(output))
    if config.resume and not holds_run:
        raise UsageError(f"{output} holds no run to resume: leave --resume out to start one")
    if holds_run and not config.resume:
        raise UsageError(f"{output} holds another run: continue it with --resume, or name a new --output")
    try:
        output.mkdir(parents=True, exist_ok=True)
        config.save(output / CONFIG_FILE)
    except OSError as error:
        raise UsageError(f"the output directory {output} cannot be written: {error.strerror}") from None
    return newest_whole(output)


def train(
    config: Config, protocol: Protocol, model_file: ModelFile | None, cores: int, num_gpus: int, stop: StopRequest
) -> None:
    """Train until the last epoch, or until a signal stops it.

    Args:
        config: the resolved configuration.
        protocol: of its environment.
        model_file: weights to start from.
        cores: usable cores.
        num_gpus: GPUs that TensorFlow sees. Towers for others that were asked for run on the CPU.
        stop: heard between two updates; what there is is saved then.

    Raises:
        RunError: it cannot go on.
        UsageError: the output directory or the page's port cannot be used.
    """
    listener = listen(config.watch) if config.watch is not None else None
    output = Path(config.directory)
    with output_errors_told(output):
        checkpoint = prepare_output(config)
    logging.raiseExceptions = False  # a log that cannot be written, on a full disk, is no reason to print tracebacks
    logger.set_logger_dir(str(output), action="k")
    logger.info(describe(config, cores))
    tfv1.set_random_seed(config.seed)
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    starting_epoch, lives = 1, 0
    if checkpoint is not None:
        starting_epoch = int(tf.train.load_variable(checkpoint, "global_step")) // config.steps_per_epoch + 1
        lives = _load_progress(checkpoint)["simulator_lives"]
        mend_stats(output, starting_epoch)
    devices = Devices.split(max(num_gpus, len(config.gpu_ids)))
    updates_per_step = len(devices.train)
    nursery = Nursery()
    master = SimulatorMaster(
        nursery,
        config.envs_per_simulator,
        {"env_id": config.env},
        seed=config.seed,
        step_timeout_s=config.simulator_timeout,
        lives_before=lives,
    )
    actor = ActorMaster(config, master, list(devices.infer), updates_per_step, stop)
    try:
        statistics = None
        if NETWORKS[config.network].normalize_input and checkpoint is None and model_file is None:
            statistics = frame_statistics(config.env, config.seed)
        # At least a state to each shard, also where half of a batch is too old.
        shards = 1 if num_gpus else max(1, min(cores // len(devices.train), config.batch_size // 2))
        model = Model(config, len(protocol.actions), statistics, shards)
        if updates_per_step == 1:
            data = FeedInput(actor.dataflow())
        else:
            data = QueueInput(
                actor.dataflow(DataFlowTerminated), tfv1.FIFOQueue(1, [spec.dtype for spec in model.inputs()])
            )
        trainer = _make_trainer(devices.train)
        trainer.setup_graph(model.get_input_signature(), data, model.build_graph, model.get_optimizer)
        evaluator = Evaluator(
            config.env,
            config.eval_episode,
            config.eval_every,
            1 if config.deterministic else 2 * cores,
            devices.infer[-1],
            config.seed,
            stop,
        )
        clock = TrainingClock(evaluator)
        model_path = output / f"{file_name(config.env)}.npz"
        session_init = JustCurrentSession()
        if checkpoint is not None:
            session_init = SaverRestore(checkpoint)
        elif model_file is not None:
            session_init = DictRestore(model_file.variables)
        trainer.train_with_defaults(
            callbacks=[
                actor,
                StatusLine(actor, config.max_epoch, cores, num_gpus > 0),
                WholeEpochs(config.steps_per_epoch),
                FiniteGuard(output, actor, [spec.name for spec in model.inputs()]),
                _schedule_setter("learning_rate", config.learning_rate, updates_per_step),
                _schedule_setter("entropy_beta", config.entropy_beta, updates_per_step),
                HumanHyperParamSetter("learning_rate", HYPER_PARAM_FILE),
                HumanHyperParamSetter("entropy_beta", HYPER_PARAM_FILE),
                clock,
                evaluator,
                Checkpointer(output, config.max_to_keep, stop),
                ModelExporter(model_path, config, protocol, model_file, cores, actor, evaluator, clock, stop),
                CurveDrawer(output, stop),
                *([Watcher(listener, model_path, config.env, config.seed)] if listener is not None else []),
            ],
            extra_callbacks=[MovingAverageSummary(), MergeAllSummaries(), RunUpdateOps()],
            monitors=[EventWriter(output), StatsWriter(), ScalarPrinter(whitelist=_PRINTED)],
            session_creator=_session_creator(cores),
            session_init=session_init,
            steps_per_epoch=config.steps_per_epoch,
            starting_epoch=starting_epoch,
            max_epoch=config.max_epoch,
        )
        actor.raise_failure()
    finally:
        actor.close()


def _load_progress(checkpoint: str) -> dict[str, int]:
    """What a checkpoint knows of ``PROGRESS``; 0 where it is from before that was kept."""
    reader = tf.train.load_checkpoint(checkpoint)
    names = {name: f"progress/{name}" for name in PROGRESS}
    return {name: int(reader.get_tensor(key)) if reader.has_tensor(key) else 0 for name, key in names.items()}


def describe(config: Config, cores: int) -> str:
    """What a run is about to do, in words: what was chosen for this machine and what the learner's settings are."""
    few_cores = config.network != "batch-a3c"
    settings = " with settings for few cores (the original's: --network batch-a3c)" if few_cores else ""
    return (
        f"network {config.network}{settings}, {config.num_envs} games in {config.simulator_proc} simulators on {cores} "
        f"cores; unrolls of {config.local_time_max} steps, batches of {config.batch_size} states drawn from "
        f"{config.pool_states}, each used {config.sample_reuse}x; {config.correction}, gamma {config.gamma}, "
        f"lambda {config.gae_lambda}; {_OPTIMIZERS[config.optimizer]} {config.learning_rate}, "
        f"epsilon {config.adam_epsilon}, "
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


def usable_gpus(config: Config) -> int:
    """Count the GPUs that there are of those asked for; warns loudly if some are not."""
    num_gpus = visible_gpus(config.gpu_ids)
    if len(config.gpu_ids) > num_gpus:
        logger.warn(
            f"--gpu {config.gpu}: TensorFlow sees {num_gpus} GPU(s). Training goes on, on the CPU where GPUs are "
            "missing, far slower. Check that nvidia-smi works, and install TensorFlow with CUDA: "
            "pip install 'tensorflow[and-cuda]'"
        )
    return num_gpus
