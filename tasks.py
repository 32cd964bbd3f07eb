"""The tasks of the command line that need TensorFlow: each wires the parts together as the flags say."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import common
import learner
import score_report
import watch
from atari_wrapper import Protocol, get_protocol
from config import DEFAULT_ENV, Config
from machine import usable_cores
from model_file import FilePolicy, check_model, environment_of, load_policy, read_model
from model_metadata import describe
from model_paths import choose, expand
from stopping import StopRequest

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


def _load_agent(path: str, config: Config) -> tuple[Protocol, FilePolicy]:
    """A model file's protocol and policy, checked against the flags. Raises UsageError."""
    model = read_model(path)
    protocol = get_protocol(environment_of(model, config.env))
    print(protocol, flush=True)
    check_model(model, protocol, config.network)
    learner.usable_gpus(config)
    return protocol, load_policy(model, usable_cores())


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
    common.record(policy, protocol.env, config.episode, directory, config.seed, config.overlay, check_stop=stop.check)


def evaluate(config: Config, stop: StopRequest) -> None:
    """Score each model, and report them together."""
    evaluations = []
    for path in expand(config.load):
        protocol, policy = _load_agent(path, config)
        scores = common.evaluate(
            policy, {"env_id": protocol.env}, config.episode, 2 * usable_cores(), config.seed, check_stop=stop.check
        )
        evaluations.append(score_report.Evaluation(path, protocol, common.EVALUATION, scores))
    alone = config.output or len(evaluations) == 1
    directory = _directory(config, evaluations[0].protocol) if alone else Path(_EVALUATIONS)
    score_report.report(evaluations, directory)


def info(config: Config, _: StopRequest) -> None:
    """Print what model files say of themselves."""
    print("\n\n".join(describe(read_model(path)) for path in expand(config.load)))


TASKS = {"train": train, "play": play, "dump_video": dump_video, "eval": evaluate, "info": info}
