"""The tasks that use a trained policy: a fair evaluation, and the window."""

from __future__ import annotations

import time
from pathlib import Path

from a3c.errors import RunError, UsageError
from a3c.playing import evaluation, window
from a3c.playing.episode import greedy_actions, play_episode, sampled_actions
from a3c.playing.evaluation import evaluate
from a3c.playing.window import play
from a3c.reports.scores import Scores
from a3c.seeds import Purpose, Seeds
from a3c.simulation.messages import RUNNING, TERMINATED, StepBlock
from atari_wrapper import STATE_SHAPE

import fake_lengths
import numpy as np
import pytest
from fake_lengths import LONG, REWARD, SHORT, episode_lengths
from policies import NUM_ACTIONS, uniform_policy


class HistoryPolicy:
    """Checks that its states are the frames of one episode: uniform 1, 2, 3 ..., with zeros before the first."""

    def __init__(self):
        self.newest: list[int] = []

    def __call__(self, states: np.ndarray) -> list[np.ndarray]:
        assert states.shape == (1, *STATE_SHAPE)
        newest = int(states.flat[-1])
        history = [max(0, newest - ago) for ago in (3, 2, 1, 0)]
        np.testing.assert_array_equal(states, np.broadcast_to(np.repeat(history, 3), states.shape))
        self.newest.append(newest)
        return uniform_policy(states)


# evaluate


SEEDS = Seeds(5, Purpose.EVALUATION)
SHORT_FIRST = 3  # with this seed the first game of play begins with a short episode


def run_evaluate(log: Path, policy=uniform_policy, seeds=SEEDS, **arguments) -> Scores:
    return evaluate(policy, {"log": str(log)} | arguments.pop("player_args", {}), player="fake_lengths:make_player",
                    seeds=seeds, **arguments)  # fmt: skip


def logged_games(log: Path, seeds=SEEDS) -> list[tuple[int, list[int]]]:
    """Each game's seed and actions, in the order of the simulators' lives and their games."""
    games = {life_seed + env: (life, env) for life in range(1, 20) for life_seed in [seeds.of_life(life)]
             for env in range(8)}  # fmt: skip
    files = sorted(log.glob("*.actions"), key=lambda file: games[int(file.stem)])
    return [(int(file.stem), [int(line) for line in file.read_text().split()]) for file in files]


EVALUATIONS = {
    "one episode": ({"episodes": 1, "processes": 2}, [1]),
    "fewer episodes than games": ({"episodes": 3, "processes": 2}, [1, 1, 1]),
    "no multiple of the games": ({"episodes": 21, "processes": 2}, 5 * [2] + 11 * [1]),
    "several rounds": ({"episodes": 24, "processes": 1}, 8 * [3]),
    "fewer games": ({"episodes": 5, "processes": 2, "max_games": 3}, [2, 2, 1]),
}


@pytest.mark.parametrize(("arguments", "quotas"), EVALUATIONS.values(), ids=EVALUATIONS)
def test_each_game_plays_its_episodes_and_then_rests(tmp_path, arguments, quotas):
    told = []
    scores = run_evaluate(tmp_path, on_episode=told.append, **arguments)
    games = logged_games(tmp_path)
    lengths = [episode_lengths(seed, quota) for (seed, _), quota in zip(games, quotas, strict=True)]
    assert scores.scores == tuple(REWARD * length for game in lengths for length in game)
    assert len(scores.scores) == arguments["episodes"]
    for (_, actions), game in zip(games, lengths, strict=True):
        assert len(actions) == sum(game)
        assert set(actions) <= set(range(NUM_ACTIONS))
    assert sorted(told) == sorted(scores.scores)


class FakeMaster:
    """Simulators of 50 steps an episode, whose steps come in an order of its own."""

    def __init__(self, order: np.random.Generator, sizes: tuple[int, ...]):
        self._order, self._sizes = order, sizes
        self._sequences, self._waiting = [0] * len(sizes), set(range(len(sizes)))
        self.actions: list[list[int]] = [[] for _ in sizes]

    def receive(self, timeout_s: float) -> StepBlock:
        index = int(self._order.choice(sorted(self._waiting)))
        self._waiting.remove(index)
        sequence, envs = self._sequences[index], self._sizes[index]
        self._sequences[index] += 1
        ends = np.full(envs, TERMINATED if sequence and sequence % 50 == 0 else RUNNING, np.uint8)
        return StepBlock(index, 1, sequence, 3, np.zeros(envs, np.float32), ends, np.zeros((envs, 84, 84, 3), np.uint8))

    def send(self, index: int, life: int, actions: np.ndarray) -> None:
        self.actions[index] += actions.tolist()
        self._waiting.add(index)

    def close(self) -> None:
        pass


def test_an_evaluation_repeats_whatever_arrives_first(monkeypatch):
    def actions(order: int, seed: int) -> list[list[int]]:
        masters = []

        def make_fake_master(nursery, sizes, *_):
            nursery.close()
            masters.append(FakeMaster(np.random.default_rng(order), sizes))
            return masters[-1]

        monkeypatch.setattr(evaluation, "SimulatorMaster", make_fake_master)
        evaluate(uniform_policy, {}, 8, 3, Seeds(seed, Purpose.EVALUATION), max_games=4)
        return masters[0].actions

    first = actions(order=0, seed=1)
    assert {action for simulator in first for action in simulator} > {0}
    assert first == actions(order=1, seed=1)
    assert first != actions(order=0, seed=2)


def test_short_episodes_are_not_over_represented(tmp_path):
    scores = run_evaluate(tmp_path, episodes=32, processes=4)
    truth = REWARD * (SHORT + LONG) / 2
    assert abs(scores.mean - truth) < 2 * scores.stderr
    ends = []  # what the episodes that end first would have told of the same games
    for seed, _ in logged_games(tmp_path):
        lengths = episode_lengths(seed, 32)
        ends += zip(np.cumsum(lengths), lengths, strict=True)
    assert np.mean([REWARD * length for _, length in sorted(ends)[:32]]) < truth - 3 * scores.stderr


def test_a_killed_simulator_loses_only_its_unfinished_episodes(tmp_path):
    scores = run_evaluate(tmp_path, episodes=16, processes=1, player_args={"die_at_step": SHORT + 2})
    assert (tmp_path / "died").exists()
    games = logged_games(tmp_path)
    expected = []
    for (first_life, _), (second_life, actions) in zip(games[:8], games[8:], strict=True):
        finished = [length for length in episode_lengths(first_life, 1) if length == SHORT]
        rest = episode_lengths(second_life, 2 - len(finished))
        expected += [*finished, *rest]
        assert len(actions) == sum(rest)
    assert len(games) == 16
    assert scores.scores == tuple(REWARD * length for length in expected)


def test_evaluation_shows_the_policy_the_history_of_each_episode(tmp_path):
    policy = HistoryPolicy()
    scores = run_evaluate(tmp_path, policy, episodes=3, processes=1, max_games=1)
    assert policy.newest == [t for score in scores.scores for t in range(1, int(score / REWARD) + 1)]
    assert len(set(scores.scores)) == 2


class SilentMaster:
    """A master whose simulators never make a step."""

    def __init__(self, looks_without_hosts: int = 0):
        self.closed, self._looks, self._looks_without_hosts = False, 0, looks_without_hosts

    def receive(self, timeout_s: float):
        assert timeout_s > 0
        time.sleep(0.01)

    @property
    def hosts_away(self) -> bool:
        self._looks += 1
        return self._looks <= self._looks_without_hosts

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("looks_without_hosts", [0, 50])
def test_silent_simulators_end_an_evaluation_once_there_is_a_host(looks_without_hosts, monkeypatch):
    master = SilentMaster(looks_without_hosts)
    monkeypatch.setattr(evaluation, "Nursery", lambda: None)
    monkeypatch.setattr(evaluation, "SimulatorMaster", lambda *_: master)
    with pytest.raises(RunError, match="no simulator made a step"):
        evaluate(uniform_policy, {}, episodes=1, processes=1, seeds=SEEDS, step_timeout_s=0.05)
    assert master.closed
    assert master._looks > looks_without_hosts


# Choices


def test_greedy_actions_are_random_one_time_in_a_hundred():
    best = np.random.default_rng(0).integers(NUM_ACTIONS, size=200_000)
    policy = np.full((len(best), NUM_ACTIONS), 0.2, np.float32)
    policy[np.arange(len(best)), best] = 0.4
    actions = greedy_actions(policy, np.random.default_rng(1))
    np.testing.assert_array_equal(actions, greedy_actions(policy, np.random.default_rng(1)))
    others = (actions - best)[actions != best] % NUM_ACTIONS
    assert len(others) / len(best) == pytest.approx(0.01 * 3 / 4, rel=0.1)  # a random action may be the best one
    for other in range(1, NUM_ACTIONS):
        assert np.mean(others == other) == pytest.approx(1 / 3, abs=0.06)


# play


def test_play_without_a_display_names_the_alternative(monkeypatch):
    monkeypatch.setattr(window, "no_window", lambda: "no window can be opened on DISPLAY=:7")
    monkeypatch.setattr(window, "evaluate", pytest.fail)
    with pytest.raises(UsageError, match=r"^no window can be opened on DISPLAY=:7; .*--task dump_video"):
        play(uniform_policy, "Pong-v0", episodes=1, seed=0)


def test_play_in_a_window_chooses_actions_as_told(monkeypatch):
    told = []
    monkeypatch.setattr(window, "evaluate", lambda *args, choose, **options: told.append(choose))
    monkeypatch.setattr(window, "no_window", lambda: "")
    play(uniform_policy, "Pong-v0", 1, 0)
    play(uniform_policy, "Pong-v0", 1, 0, sampled_actions)
    assert told == [greedy_actions, sampled_actions]


def play_fake(monkeypatch, log: Path, seed: int = 1, **player_args) -> tuple[list[dict], list[str]]:
    """Play four episodes of the fake game; returns the arguments of Pong's player, and what was told."""
    calls, lines = [], []

    def evaluate_fake(policy, player_args_of_pong, *args, **options):
        calls.append(player_args_of_pong)
        return evaluate(policy, {"log": str(log)} | player_args, *args, player="fake_lengths:make_player", **options)

    monkeypatch.setattr(window, "evaluate", evaluate_fake)
    monkeypatch.setattr(window, "no_window", lambda: "")
    play(uniform_policy, "Pong-v0", episodes=4, seed=seed, report=lines.append)
    return calls, lines


def test_play_shows_one_game_and_tells_the_score_of_each_episode(monkeypatch, tmp_path):
    calls, lines = play_fake(monkeypatch, tmp_path)
    assert calls == [{"env_id": "Pong-v0", "render_mode": "human"}]
    ((seed, _),) = logged_games(tmp_path, Seeds(1, Purpose.PLAY))
    scores = [REWARD * length for length in episode_lengths(seed, 4)]
    assert lines == [f"episode {i}/4: score {score:g}" for i, score in enumerate(scores, start=1)]


def test_play_ends_when_the_window_is_closed(monkeypatch, tmp_path):
    _, lines = play_fake(monkeypatch, tmp_path, seed=SHORT_FIRST, leave_at_step=SHORT + 1)
    ((seed, actions),) = logged_games(tmp_path, Seeds(SHORT_FIRST, Purpose.PLAY))
    assert len(actions) == SHORT
    assert episode_lengths(seed, 1) == [SHORT]
    assert lines == [f"episode 1/4: score {REWARD * SHORT:g}"]


def test_play_episode_yields_each_step_and_keeps_the_history(tmp_path):
    player, policy = fake_lengths.make_player(str(tmp_path)), HistoryPolicy()
    for seed in range(4):
        length = episode_lengths(seed, 1)[0]
        policy.newest.clear()
        steps = list(play_episode(player, policy, np.random.default_rng(0), seed))
        assert [step.reward for step in steps] == [0] + length * [REWARD]
        assert [step.emulator_frames for step in steps[1:]] == length * [3]
        assert policy.newest == list(range(1, length + 1))


@pytest.mark.parametrize(("choose", "often"), [(greedy_actions, 0.99 + 0.01 / NUM_ACTIONS), (sampled_actions, 0.4)])
def test_play_episode_chooses_actions_as_told(tmp_path, choose, often):
    def policy(states):
        return np.array([[0.4, *[0.6 / (NUM_ACTIONS - 1)] * (NUM_ACTIONS - 1)]], np.float32), np.zeros(1, np.float32)

    player, rng = fake_lengths.make_player(str(tmp_path)), np.random.default_rng(0)
    chosen = [step.action for seed in range(400) for step in list(play_episode(player, policy, rng, seed, choose))[:-1]]
    assert np.mean(np.array(chosen) == 0) == pytest.approx(often, abs=0.05)
