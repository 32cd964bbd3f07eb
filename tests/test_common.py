"""How the tasks that use a trained policy choose its actions. The games themselves are played in the rooms' tests."""

from __future__ import annotations

import json
import types
from pathlib import Path

import common
from a3c.config import Config
from a3c.playing.episode import GREEDY, SAMPLED, greedy_actions, sampled_actions
from a3c.reports.scores import Scores
from a3c.system.stopping import StopRequest
from a3c.watch import server
from atari_wrapper import get_protocol

import pytest

SHOWN = {
    "play": (common.window, "play", {}),
    "play on a page": (common.player, "play", {"watch": 8080}),
    "dump_video": (common.video, "record", {}),
    "eval": (common, "evaluate", {"episode": 1}),
}


@pytest.mark.parametrize("sample", [False, True])
@pytest.mark.parametrize("shown", SHOWN)
def test_actions_are_chosen_as_the_flag_says(monkeypatch, tmp_path, shown, sample):
    module, function, flags = SHOWN[shown]
    told = []

    def record(*args, **options):
        told.extend(value for value in (*args, *options.values()) if value in (greedy_actions, sampled_actions))
        return Scores((1.0,))

    monkeypatch.setattr(module, function, record)
    monkeypatch.setattr(server, "listen", lambda port: None)
    monkeypatch.setattr(server, "address", lambda listener: "")
    model = types.SimpleNamespace(path="Pong-v0.npz")
    monkeypatch.setattr(common, "_check_agent", lambda path, config: (model, get_protocol("Pong-v0")))
    monkeypatch.setattr(common, "choose", lambda path: path)
    monkeypatch.setattr(common, "expand", list)
    monkeypatch.setattr(common, "FilePolicy", lambda model, cores: None)
    monkeypatch.setattr(common.devices, "usable_gpus", lambda config: ())
    task = shown.partition(" ")[0]
    config = Config(task=task, load=("Pong-v0.npz",), output=(str(tmp_path / "out"),), sample_actions=sample, **flags)
    common.TASKS[task](config, StopRequest())
    assert told == [sampled_actions if sample else greedy_actions]
    if task == "eval":
        (evaluation,) = json.loads(Path(tmp_path / "out" / "eval.json").read_text())
        assert evaluation["protocol"].startswith(SAMPLED if sample else GREEDY)


def test_an_evaluation_has_the_games_simulators_and_time_that_the_flags_say(monkeypatch, tmp_path):
    told = {}

    def record(policy, player_args, episodes, processes, seeds, **options):
        told.update(options, processes=processes)
        return Scores((1.0,))

    monkeypatch.setattr(common, "evaluate", record)
    monkeypatch.setattr(common, "FilePolicy", lambda model, cores: None)
    monkeypatch.setattr(common, "usable_cores", lambda: 3)
    agent = types.SimpleNamespace(path="Pong-v0.npz"), get_protocol("Pong-v0")
    report = common.score_report.Report(tmp_path)
    common._evaluate(*agent, Config(episode=1), StopRequest(), report, None)
    assert (told["processes"], told["max_games"], told["step_timeout_s"]) == (6, None, 60)
    flags = Config(episode=1, simulator_proc=2, num_envs=5, simulator_timeout=7.0)
    common._evaluate(*agent, flags, StopRequest(), report, None)
    assert (told["processes"], told["max_games"], told["step_timeout_s"]) == (2, 5, 7.0)


def test_each_model_is_told_before_its_episodes(monkeypatch, tmp_path, capsys):
    def fake_evaluation(*args, on_episode, **options):
        on_episode(3.0)
        return Scores((3.0,))

    games = {"a.npz": get_protocol("Pong-v0"), "b.npz": get_protocol("Breakout-v0")}
    monkeypatch.setattr(common, "evaluate", fake_evaluation)
    monkeypatch.setattr(common, "_check_agent", lambda path, config: (types.SimpleNamespace(path=path), games[path]))
    monkeypatch.setattr(common, "expand", list)
    monkeypatch.setattr(common, "FilePolicy", lambda model, cores: None)
    monkeypatch.setattr(common.devices, "usable_gpus", lambda config: ())
    config = Config(task="eval", load=tuple(games), output=(str(tmp_path / "out"),), episode=1)
    common.evaluate_models(config, StopRequest())
    lines = [line[:15] for line in capsys.readouterr().out.splitlines()]
    heads = [line for line in lines if line in ("a.npz, Pong-v0:", "b.npz, Breakout", "episode 1 of 1:")]
    assert heads == ["a.npz, Pong-v0:", "episode 1 of 1:", "b.npz, Breakout", "episode 1 of 1:"]
