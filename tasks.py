"""The tasks of the command line that need TensorFlow: each wires the parts together as the flags say."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import common
from a3c.config import DEFAULT_ENV, Config
from a3c.learning import learner
from a3c.playing import video
from a3c.playing.progress import EpisodeProgress
from a3c.reports import scores as score_report
from a3c.seeds import Purpose, Seeds
from a3c.system.files import output_directory
from a3c.system.machine import usable_cores
from a3c.system.stopping import StopRequest
from a3c.watch import player as watch
from a3c.weights.metadata import describe
from a3c.weights.model_file import FilePolicy, ModelFile, check_model, environment_of, read_model
from a3c.weights.paths import choose, expand
from atari_wrapper import Protocol, get_protocol

_EVALUATIONS = "train_log/eval"  # of several models


def train(config: Config, stop: StopRequest) -> None:
    """Train, from the start, from a model file's weights, or from where a run was stopped."""
    model = read_model(choose(config.model)) if config.model else None
    env = config.env or (model and model.metadata.get("env")) or DEFAULT_ENV
    protocol = get_protocol(env)
    print(protocol, flush=True)
    if model is not None:
        check_model(model, protocol, config.network)
        config = dataclasses.replace(config, network=model.network)
    num_gpus, cores = learner.usable_gpus(config), usable_cores()
    config = dataclasses.replace(config, env=env).resolve(cores, num_gpus)
    learner.train(config, protocol, model, cores, num_gpus, stop)


def _check_agent(path: str, config: Config) -> tuple[ModelFile, Protocol]:
    """A model file and its protocol, checked against the flags. Raises UsageError."""
    model = read_model(path)
    protocol = get_protocol(environment_of(model, config.env))
    print(protocol, flush=True)
    check_model(model, protocol, config.network)
    return model, protocol


def _load_agent(path: str, config: Config) -> tuple[Protocol, FilePolicy]:
    """A model file's protocol and policy. Raises UsageError as ``_check_agent`` does."""
    model, protocol = _check_agent(path, config)
    learner.usable_gpus(config)
    return protocol, FilePolicy(model, usable_cores())


def _directory(config: Config, protocol: Protocol) -> Path:
    return Path(dataclasses.replace(config, env=protocol.env).directory)


def play(config: Config, stop: StopRequest) -> None:
    """Show the agent play, in a window or on a page."""
    if config.watch is None:
        protocol, policy = _load_agent(choose(config.model), config)
        common.play(policy, protocol.env, config.episode, config.seed, check_stop=stop.check)
        return
    listener = watch.listen(config.watch)
    print(f"watch it at {watch.address(listener)}", flush=True)
    protocol, policy = _load_agent(choose(config.model), config)
    watch.play(listener, policy, protocol.env, config.episode, config.seed, check_stop=stop.check)


def dump_video(config: Config, stop: StopRequest) -> None:
    """Record videos of the agent."""
    protocol, policy = _load_agent(choose(config.model), config)
    directory = _directory(config, protocol)
    seeds = Seeds(config.seed, Purpose.VIDEO)
    with output_directory(directory, "dump_video"):
        video.record(policy, protocol.env, config.episode, directory, seeds, config.overlay, stop.check)


def evaluate(config: Config, stop: StopRequest) -> None:
    """Score each model, and report it when it is done; what has ended before a stop or a failure is reported too."""
    agents = [_check_agent(path, config) for path in expand(config.load)]
    alone = config.output or len(agents) == 1
    directory = _directory(config, agents[0][1]) if alone else Path(_EVALUATIONS)
    learner.usable_gpus(config)
    with output_directory(directory, "eval"):
        report = score_report.Report(directory)
        try:
            for model, protocol in agents:
                _evaluate(model, protocol, config, stop, report)
        finally:
            report.finish()


def _evaluate(
    model: ModelFile, protocol: Protocol, config: Config, stop: StopRequest, report: score_report.Report
) -> None:
    scores = None
    with EpisodeProgress(config.episode) as progress:

        def check_stop() -> None:
            stop.check()
            progress.tick()

        try:
            scores = common.evaluate(
                FilePolicy(model, usable_cores()),
                {"env_id": protocol.env},
                config.episode,
                2 * usable_cores(),
                Seeds(config.seed, Purpose.EVALUATION),
                on_episode=progress.add,
                check_stop=check_stop,
            )
        finally:
            scores = scores or score_report.Scores(tuple(progress.scores))
            if scores.scores:
                report.add(score_report.Evaluation(model.path, protocol, common.EVALUATION, scores, config.episode))
            if len(scores.scores) < config.episode:
                print(f"{model.path}: {len(scores.scores)} of {config.episode} episodes have ended", flush=True)


def info(config: Config, _: StopRequest) -> None:
    """Print what model files say of themselves."""
    print("\n\n".join(describe(read_model(path)) for path in expand(config.load)))


TASKS = {"train": train, "play": play, "dump_video": dump_video, "eval": evaluate, "info": info}
