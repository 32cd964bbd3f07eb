"""The learner: tensorpack's trainer and what it is made of.

An output directory holds one run: ``config.json``, checkpoints (``model-<step>``), ``stats.json`` and TensorBoard
events, ``hyper.txt`` for values changed by hand, and for the other tasks ``<env>.npz``, the newest weights, and
``<env>-best.npz``, those with the best evaluation.
"""

from __future__ import annotations

import logging
import socket

from a3c.acting.actor import Actor
from a3c.config import REMOVED, Config
from a3c.errors import RunError, UsageError, first_line
from a3c.learning.acting import PROGRESS, Acting, ActorInput
from a3c.learning.callbacks import (
    CurveDrawer,
    Evaluator,
    FiniteGuard,
    HandFile,
    HandSetter,
    ModelExporter,
    RunBegins,
    ScheduleSetter,
    TrainingClock,
    WholeEpochs,
)
from a3c.learning.checkpoint import Checkpointer, mend_stats
from a3c.learning.devices import Devices, make_trainer, session_creator
from a3c.learning.logs import EventWriter, StatsWriter
from a3c.learning.model import Model
from a3c.learning.run_directory import RunDirectory
from a3c.learning.status import StatusLine
from a3c.policy.frame_statistics import frame_statistics
from a3c.policy.networks import NETWORKS, is_of_one_colour
from a3c.run_files import CONFIG_FILE
from a3c.seeds import Purpose, Seeds
from a3c.simulation.master import SimulatorMaster
from a3c.simulation.nursery import Nursery
from a3c.system.stopping import StopRequest
from a3c.watch.server import listen
from a3c.watch.watcher import Watcher
from a3c.weights.model_file import ModelFile
from atari_wrapper import Protocol

import tensorflow as tf
from tensorpack import (
    FeedInput,
    QueueInput,
    tfv1,
)
from tensorpack.callbacks import MergeAllSummaries, MovingAverageSummary, RunUpdateOps, ScalarPrinter
from tensorpack.dataflow import DataFlowTerminated
from tensorpack.tfutils.sessinit import DictRestore, JustCurrentSession, SaverRestore
from tensorpack.utils import logger

HYPER_PARAM_FILE = "hyper.txt"
# After each epoch, besides what the status line says; the statistics and TensorBoard have all.
_PRINTED = ["^(steps|train_minutes|learning_rate|entropy|policy_loss|value_loss)$", "^(dropped_|simulator_|malformed_)"]


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
    directory = RunDirectory(config)
    with directory.claimed():
        try:
            _train(directory, listener, config, protocol, model_file, cores, num_gpus, stop)
        except (MemoryError, tf.errors.ResourceExhaustedError) as error:
            raise RunError(
                f"there is not enough memory ({first_line(error)}): lower --pool-states, --batch-size or --num-envs"
            ) from None


def _train(
    directory: RunDirectory,
    listener: socket.socket | None,
    config: Config,
    protocol: Protocol,
    model_file: ModelFile | None,
    cores: int,
    num_gpus: int,
    stop: StopRequest,
) -> None:
    output, checkpoint = directory.path, directory.checkpoint
    devices = Devices.split(max(num_gpus, len(config.gpu_ids)))
    updates_per_step = len(devices.train)
    starting_epoch, lives = 1, 0
    if checkpoint is not None:
        step, lives = _check_checkpoint(checkpoint, config, len(protocol.actions), updates_per_step)
        starting_epoch = step // config.steps_per_epoch + 1
        check_unfinished(starting_epoch, config)
    logging.raiseExceptions = False  # a log that cannot be written, on a full disk, is no reason to print tracebacks
    logger.set_logger_dir(str(output), action="k")
    logger.info(describe(config, cores))
    tfv1.set_random_seed(config.seed)
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    if checkpoint is not None:
        mend_stats(output, step)
    nursery = Nursery()
    master = SimulatorMaster(
        nursery,
        config.envs_per_simulator,
        {"env_id": config.env},
        seeds=Seeds(config.seed, Purpose.TRAINING_GAMES),
        step_timeout_s=config.simulator_timeout,
        lives_before=lives,
    )
    actor = Actor(config, master, len(devices.infer), updates_per_step, stop)
    acting = Acting(actor, master, list(devices.infer), updates_per_step, stop)
    try:
        statistics = None
        if NETWORKS[config.network].normalize_input and checkpoint is None and model_file is None:
            statistics = frame_statistics(config.env, config.seed)
        # At least a state to each shard, also where half of a batch is too old.
        shards = 1 if num_gpus else max(1, min(cores // len(devices.train), config.batch_size // 2))
        model = Model(config, len(protocol.actions), statistics, shards)
        if updates_per_step == 1:
            data = FeedInput(ActorInput(actor))
        else:
            data = QueueInput(
                ActorInput(actor, DataFlowTerminated), tfv1.FIFOQueue(1, [spec.dtype for spec in model.inputs()])
            )
        trainer = make_trainer(devices.train)
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
        session_init = JustCurrentSession()
        if checkpoint is not None:
            session_init = SaverRestore(checkpoint)
        elif model_file is not None:
            session_init = DictRestore(model_file.variables)
        by_hand = HandFile(output / HYPER_PARAM_FILE, ("learning_rate", "entropy_beta"))
        trainer.train_with_defaults(
            callbacks=[
                RunBegins(directory),
                acting,
                StatusLine(acting, config.max_epoch, cores, num_gpus > 0),
                WholeEpochs(config.steps_per_epoch),
                FiniteGuard(output, actor, [spec.name for spec in model.inputs()]),
                ScheduleSetter("learning_rate", config.learning_rate, updates_per_step),
                ScheduleSetter("entropy_beta", config.entropy_beta, updates_per_step),
                *(HandSetter(name, by_hand) for name in by_hand.names),
                clock,
                evaluator,
                Checkpointer(output, config.max_to_keep, stop),
                ModelExporter(directory, config, protocol, model_file, cores, actor, evaluator, clock, stop),
                CurveDrawer(output, stop),
                *([Watcher(listener, directory.model, config.env, config.seed)] if listener is not None else []),
            ],
            extra_callbacks=[MovingAverageSummary(), MergeAllSummaries(), RunUpdateOps()],
            monitors=[EventWriter(output), StatsWriter(), ScalarPrinter(whitelist=_PRINTED)],
            session_creator=session_creator(cores),
            session_init=session_init,
            steps_per_epoch=config.steps_per_epoch,
            starting_epoch=starting_epoch,
            max_epoch=config.max_epoch,
        )
        actor.raise_failure()
    finally:
        actor.close()
        directory.trained = bool(actor.updates or stop.signal)


def check_unfinished(starting_epoch: int, config: Config) -> None:
    """Raise UsageError if a resumed run has no epoch left to train."""
    done = starting_epoch - 1
    if done >= config.max_epoch:
        raise UsageError(
            f"{config.directory} has finished: {done} epochs are done, --max-epoch is {config.max_epoch}; to train on "
            f"type --resume --max-epoch {done + config.max_epoch}"
        )


def _check_checkpoint(checkpoint: str, config: Config, num_actions: int, updates_per_step: int) -> tuple[int, int]:
    """Where a run goes on: the trainer's step, and how many lives its simulators have had.

    Raises:
        UsageError: the checkpoint is of another network, or of another number of training devices.
    """
    reader = tf.train.load_checkpoint(checkpoint)
    shapes = reader.get_variable_to_shape_map()
    if is_of_one_colour(shapes):
        raise UsageError(f"the run in {config.directory} is of nature over one colour, which {REMOVED}")
    for name, shape in NETWORKS[config.network].variable_shapes(num_actions).items():
        if name not in shapes or tuple(shapes[name]) != shape:
            raise UsageError(
                f"the run in {config.directory} is not of network {config.network} on {config.env}: its {name} is "
                f"{shapes.get(name, 'missing')} and not {list(shape)}; has its {CONFIG_FILE} been changed?"
            )
    keys = {name: f"progress/{name}" for name in PROGRESS}  # some are missing in checkpoints of earlier versions
    progress = {name: int(reader.get_tensor(key)) if reader.has_tensor(key) else 0 for name, key in keys.items()}
    step = int(reader.get_tensor("global_step"))
    if progress["updates"] not in (0, step * updates_per_step):
        raise UsageError(
            f"the run in {config.directory} makes {progress['updates'] // step} updates in a step, with as many "
            f"training GPUs, and not {updates_per_step}: name as many with --gpu as it had"
        )
    return step, progress["simulator_lives"]


def describe(config: Config, cores: int) -> str:
    """What a run is about to do, in words: what was chosen for this machine and what the learner's settings are."""
    few_cores = config.network != "batch-a3c"
    settings = " with settings for few cores (the original's: --network batch-a3c)" if few_cores else ""
    return (
        f"network {config.network}{settings}, {config.num_envs} games in {config.simulator_proc} simulators on {cores} "
        f"cores; unrolls of {config.local_time_max} steps, batches of {config.batch_size} states drawn from "
        f"{config.pool_states}, each used {config.sample_reuse}x; {config.correction}, gamma {config.gamma}, "
        f"lambda {config.gae_lambda}; Adam {config.learning_rate}, "
        f"epsilon {config.adam_epsilon}, "
        f"gradient clip {config.gradient_clip} {config.gradient_clip_norm}; entropy {config.entropy_beta}"
    )
