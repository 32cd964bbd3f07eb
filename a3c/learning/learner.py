"""The learner: tensorpack's trainer and what it is made of.

An output directory holds one run: ``config.json``, checkpoints (``model-<step>``), ``stats.json`` and TensorBoard
events, ``hyper.txt`` for values changed by hand, and for the other tasks ``<env>.npz``, the newest weights, and
``<env>-best.npz``, those with the best evaluation.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import socket
from collections.abc import Iterator
from functools import partial

from a3c.acting.actor import Actor
from a3c.cluster.cluster import Cluster, ClusterLostError
from a3c.cluster.latency import games_per_core
from a3c.config import DEFAULT_ENV, Config
from a3c.errors import RunError, problem
from a3c.learning.acting import Acting, trainer_input
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
from a3c.learning.devices import Devices, make_trainer, session_creator, usable_gpus
from a3c.learning.logs import EventWriter, StatsWriter
from a3c.learning.model import Model
from a3c.learning.progress import Progress, read_progress
from a3c.learning.run_directory import RunDirectory
from a3c.learning.status import StatusLine
from a3c.policy.frame_statistics import frame_statistics
from a3c.policy.networks import NETWORKS
from a3c.seeds import Purpose, Seeds
from a3c.simulation.master import SimulatorMaster
from a3c.simulation.nursery import Nursery
from a3c.system import gpu
from a3c.system.machine import usable_cores
from a3c.system.stopping import StopRequest
from a3c.watch.server import listen
from a3c.watch.watcher import Watcher
from a3c.weights.model_file import ModelFile, check_model, environment_of, read_model
from a3c.weights.paths import choose
from atari_wrapper import Protocol, get_protocol

import tensorflow as tf
from tensorpack import tfv1
from tensorpack.callbacks import MergeAllSummaries, MovingAverageSummary, RunUpdateOps, ScalarPrinter
from tensorpack.tfutils.sessinit import DictRestore, JustCurrentSession, SaverRestore, SessionInit
from tensorpack.utils import logger

HYPER_PARAM_FILE = "hyper.txt"
# After each epoch, besides what the status line says; the statistics and TensorBoard have all.
_PRINTED = ["^(steps|train_minutes|learning_rate|entropy|policy_loss|value_loss)$", "^(dropped_|simulator_|malformed_)"]


def train(config: Config, stop: StopRequest) -> None:
    """Train, from the start, from a model file's weights, or from where a run was stopped.

    It ends with the last epoch, or when a signal is heard between two updates; what there is is saved then.

    Raises:
        RunError: it cannot go on.
        UsageError: the flags, the model file, the output directory or the page's port cannot be used.
    """
    model_file = read_model(choose(config.model)) if config.model else None
    env = config.env or (environment_of(model_file, None) if model_file else DEFAULT_ENV)
    protocol = get_protocol(env)
    print(protocol, flush=True)
    if model_file is not None:
        check_model(model_file, protocol, config.network)
        config = dataclasses.replace(config, network=model_file.network)
    num_gpus, cores = usable_gpus(config), usable_cores()
    gpu_bytes = gpu.smallest_bytes(gpu.query()) if num_gpus else None
    config = dataclasses.replace(config, env=env)
    with Cluster(config, stop.ask, stop.check) if config.ray else contextlib.nullcontext() as cluster:
        if cluster is None:
            config = config.resolve(cores, num_gpus, gpu_bytes)
        else:
            games = games_per_core(cluster.round_trip_s)
            config = config.resolve(cores, num_gpus, gpu_bytes, playing_cores=cluster.cores, games_per_core=games)
        listener = listen(config.watch) if config.watch is not None else None
        directory = RunDirectory(config)
        with directory.claimed(), _failures_told():
            _train(directory, config, protocol, model_file, cores, num_gpus, listener, cluster, stop)


def _train(
    directory: RunDirectory,
    config: Config,
    protocol: Protocol,
    model_file: ModelFile | None,
    cores: int,
    num_gpus: int,
    listener: socket.socket | None,
    cluster: Cluster | None,
    stop: StopRequest,
) -> None:
    """The wiring: simulators, actor, model and trainer, and what looks on. ``config`` is resolved."""
    devices = Devices.split(max(num_gpus, len(config.gpu_ids)))
    begin = read_progress(directory.checkpoint, config, len(protocol.actions), devices.updates_per_step)
    playing_cores = cluster.cores if cluster else cores
    _prepare(directory, config, playing_cores, begin)

    simulators = partial(SimulatorMaster, Nursery()) if cluster is None else cluster.fixed_master
    master = simulators(
        config.envs_per_simulator,
        {"env_id": config.env},
        seeds=Seeds(config.seed, Purpose.TRAINING_GAMES),
        step_timeout_s=config.simulator_timeout,
        lives_before=begin.lives,
    )
    actor = Actor(config, master, len(devices.infer), devices.updates_per_step, stop)
    try:
        # At least a state to each shard, also where half of a batch is too old.
        shards = 1 if num_gpus else max(1, min(cores // len(devices.train), config.batch_size // 2))
        begins_anew = directory.checkpoint is None and model_file is None
        statistics = None
        if begins_anew and NETWORKS[config.network].normalize_input:
            statistics = frame_statistics(config.env, config.seed)
        model = Model(config, len(protocol.actions), statistics, shards)

        trainer = make_trainer(devices.train)
        batches = trainer_input(actor, model.inputs(), devices.updates_per_step)
        trainer.setup_graph(model.get_input_signature(), batches, model.build_graph, model.get_optimizer)

        acting = Acting(actor, master, devices, stop)
        evaluator = Evaluator(
            config, 1 if config.deterministic else 2 * playing_cores, devices.infer[-1], stop, cluster
        )
        clock = TrainingClock(evaluator)
        checkpointer = Checkpointer(directory.path, config.max_to_keep, actor, stop)
        by_hand = HandFile(directory.path / HYPER_PARAM_FILE, ("learning_rate", "entropy_beta"))
        trainer.train_with_defaults(
            callbacks=[
                RunBegins(directory),
                acting,
                StatusLine(acting, config.max_epoch, cores, num_gpus > 0, cluster),
                WholeEpochs(config.steps_per_epoch),
                FiniteGuard(directory.path, actor, [spec.name for spec in model.inputs()]),
                ScheduleSetter("learning_rate", config.learning_rate, devices.updates_per_step),
                ScheduleSetter("entropy_beta", config.entropy_beta, devices.updates_per_step),
                *(HandSetter(name, by_hand) for name in by_hand.names),
                clock,
                checkpointer,
                ModelExporter(directory, config, protocol, model_file, cores, actor, evaluator, clock, stop),
                evaluator,
                CurveDrawer(directory.path, stop),
                *([Watcher(listener, directory.model, config.env, config.seed)] if listener is not None else []),
            ],
            extra_callbacks=[MovingAverageSummary(), MergeAllSummaries(), RunUpdateOps()],
            monitors=[EventWriter(directory.path), StatsWriter(), ScalarPrinter(whitelist=_PRINTED)],
            session_creator=session_creator(cores),
            session_init=_first_weights(directory.checkpoint, model_file),
            steps_per_epoch=config.steps_per_epoch,
            starting_epoch=begin.epoch,
            max_epoch=config.max_epoch,
        )
        checkpointer.raise_loss()
        actor.raise_failure()
    finally:
        actor.close()
        directory.trained = bool(actor.updates or stop.signal)


@contextlib.contextmanager
def _failures_told() -> Iterator[None]:
    """Raise RunError, with what to do, where memory ends or the cluster is gone."""
    try:
        yield
    except ClusterLostError as error:
        raise RunError(f"{error}: --resume goes on from the newest checkpoint") from None
    except Exception as error:
        cause = error.__cause__ or error  # of a failure of the actor's threads
        if not isinstance(cause, (MemoryError, tf.errors.ResourceExhaustedError)):
            raise
        raise RunError(
            f"there is not enough memory ({problem(cause)}): lower --pool-states, --batch-size, --num-envs or "
            "--local-time-max"
        ) from None


def _prepare(directory: RunDirectory, config: Config, cores: int, begin: Progress) -> None:
    """Logs, random numbers, and the statistics of a run that goes on."""
    logging.raiseExceptions = False  # a log that cannot be written, on a full disk, is no reason to print tracebacks
    logger.set_logger_dir(str(directory.path), action="k")
    logger.info(describe(config, cores))
    tfv1.set_random_seed(config.seed)
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    if directory.checkpoint is not None:
        mend_stats(directory.path, begin.step)


def _first_weights(checkpoint: str | None, model_file: ModelFile | None) -> SessionInit:
    if checkpoint is not None:
        return SaverRestore(checkpoint)
    return JustCurrentSession() if model_file is None else DictRestore(model_file.variables)


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
