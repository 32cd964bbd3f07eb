"""What is done with a trained model: it is shown, recorded, or scored, as the flags say."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

from a3c.cluster.cluster import Cluster
from a3c.config import Config
from a3c.learning import devices
from a3c.playing import video, window
from a3c.playing.episode import GREEDY, SAMPLED, ChooseActions, greedy_actions, sampled_actions
from a3c.playing.evaluation import evaluate
from a3c.playing.progress import EpisodeProgress, tell
from a3c.reports import scores as score_report
from a3c.seeds import Purpose, Seeds
from a3c.system.files import output_directory
from a3c.system.machine import usable_cores
from a3c.system.stopping import StopRequest
from a3c.watch import player, server
from a3c.weights.file_policy import FilePolicy
from a3c.weights.model_file import ModelFile, check_model, environment_of, read_model
from a3c.weights.paths import choose, expand
from atari_wrapper import Protocol, get_protocol

_EVALUATIONS = "train_log/eval"  # of several models


def _check_agent(path: str, config: Config) -> tuple[ModelFile, Protocol]:
    """A model file and its protocol, checked against the flags. Raises UsageError."""
    model = read_model(path)
    protocol = get_protocol(environment_of(model, config.env))
    check_model(model, protocol, config.network)
    return model, protocol


def _load_agent(path: str, config: Config) -> tuple[Protocol, FilePolicy]:
    """A model file's protocol and policy. Raises UsageError as ``_check_agent`` does."""
    model, protocol = _check_agent(path, config)
    tell(str(protocol))
    devices.usable_gpus(config)
    return protocol, FilePolicy(model, usable_cores())


def _directory(config: Config, protocol: Protocol) -> Path:
    return Path(dataclasses.replace(config, env=protocol.env).directory)


def _choice(config: Config) -> tuple[ChooseActions, str]:
    """How the agent chooses its actions, also in words."""
    return (sampled_actions, SAMPLED) if config.sample_actions else (greedy_actions, GREEDY)


def play(config: Config, stop: StopRequest) -> None:
    """Show the agent play, in a window or on a page."""
    choose_actions, _ = _choice(config)
    if config.watch is None:
        protocol, policy = _load_agent(choose(config.model), config)
        window.play(policy, protocol.env, config.episode, config.seed, choose_actions, check_stop=stop.check)
        return
    listener = server.listen(config.watch)
    tell(f"watch it at {server.address(listener)}")
    protocol, policy = _load_agent(choose(config.model), config)
    player.play(listener, policy, protocol.env, config.episode, config.seed, choose_actions, check_stop=stop.check)


def dump_video(config: Config, stop: StopRequest) -> None:
    """Record videos of the agent."""
    protocol, policy = _load_agent(choose(config.model), config)
    directory = _directory(config, protocol)
    seeds, (choose_actions, _) = Seeds(config.seed, Purpose.VIDEO), _choice(config)
    with output_directory(directory, "dump_video"):
        video.record(policy, protocol.env, config.episode, directory, seeds, choose_actions, config.overlay, stop.check)


def evaluate_models(config: Config, stop: StopRequest) -> None:
    """Score each model, and report it when it is done; what has ended before a stop or a failure is reported too."""
    agents = [_check_agent(path, config) for path in expand(config.load)]
    alone = config.output or len(agents) == 1
    directory = _directory(config, agents[0][1]) if alone else Path(_EVALUATIONS)
    devices.usable_gpus(config)
    cluster_or_none = Cluster(config, check_stop=stop.check) if config.ray else contextlib.nullcontext()
    with output_directory(directory, "eval"), cluster_or_none as cluster:
        report = score_report.Report(directory)
        try:
            for model, protocol in agents:
                _evaluate(model, protocol, config, stop, report, cluster)
        finally:
            report.finish()


def _evaluate(
    model: ModelFile,
    protocol: Protocol,
    config: Config,
    stop: StopRequest,
    report: score_report.Report,
    cluster: Cluster | None,
) -> None:
    tell(f"{model.path}, {protocol}")
    scores, (choose_actions, words) = None, _choice(config)
    with EpisodeProgress(config.episode) as progress:

        def check_stop() -> None:
            stop.check()
            progress.tick()

        try:
            scores = evaluate(
                FilePolicy(model, usable_cores()),
                {"env_id": protocol.env},
                config.episode,
                config.simulator_proc or 2 * (cluster.cores if cluster else usable_cores()),
                Seeds(config.seed, Purpose.EVALUATION),
                max_games=config.num_envs,
                step_timeout_s=config.simulator_timeout,
                choose=choose_actions,
                on_episode=progress.add,
                check_stop=check_stop,
                cluster=cluster,
            )
        finally:
            scores = scores or score_report.Scores(tuple(progress.scores))
            if scores.scores:
                report.add(score_report.Evaluation(model.path, protocol, words, scores, config.episode))
            if len(scores.scores) < config.episode:
                tell(f"{model.path}: {len(scores.scores)} of {config.episode} episodes have ended")


TASKS = {"play": play, "dump_video": dump_video, "eval": evaluate_models}
