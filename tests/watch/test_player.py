"""The player of the page of ``--watch``: which steps are shown, how fast, and with which weights."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from typing import ClassVar
from unittest.mock import Mock

from a3c.playing.episode import greedy_actions, sampled_actions
from a3c.watch import player as play_module
from a3c.watch import server as server_module
from a3c.watch.player import NewestPolicy, Pace, show
from a3c.watch.server import Server, listen
from a3c.weights.model_file import write_model
from atari_wrapper import FRAME_SHAPE, STATE_SHAPE
from bench.watch import Viewer

import numpy as np
import pytest
from model_files import small_variables
from pages import Reader, picture, read
from processes import wait_until

ACTIONS = ["NOOP", "FIRE", "RIGHT", "LEFT"]
EPISODE_STEPS = 30


class FakeGame:
    """Frames of random colours; an episode of 30 steps of 3 frames, each with reward 2. Counts what is asked of it."""

    made: ClassVar[list[FakeGame]] = []
    rendered = 0
    unwrapped = property(lambda self: self)

    def __init__(self):
        self.closed, self._rng = False, np.random.default_rng(len(FakeGame.made))
        FakeGame.made.append(self)
        self.seeds, self.actions, self.screens = [], [], []

    def get_action_meanings(self) -> list[str]:
        return ACTIONS

    def reset(self, seed: int):
        self.seeds.append(seed)
        return self._frame()

    def step(self, action: int):
        self.actions.append(action)
        frame, info = self._frame()
        return frame, 2.0, len(self.actions) == EPISODE_STEPS, False, info

    def render(self) -> np.ndarray:
        FakeGame.rendered += 1
        self.screens.append(self._rng.integers(0, 256, (210, 160, 3), np.uint8))
        return self.screens[-1]

    def close(self) -> None:
        self.closed = True

    def _frame(self):
        return self._rng.integers(0, 256, FRAME_SHAPE, np.uint8), {"frame_number": 4 + 3 * len(self.actions)}


class FakePolicy:
    """Prefers actions in turn; keeps the states that it saw."""

    def __init__(self):
        self.states: list[np.ndarray] = []

    def __call__(self, states: np.ndarray) -> list[np.ndarray]:
        self.states.append(states[0].copy())
        count = len(self.states)
        return [np.eye(4, dtype=np.float32)[[count % 4]] * 0.6 + 0.1, np.array([count / 10], np.float32)]


class Stopped(Exception):  # noqa: N818
    """What the player's ``check_stop`` raises."""


class Player:
    """Runs ``show`` on a thread of its own, with the fakes; counts how often it asked whether to stop."""

    def __init__(self, page: Server, about: dict | None = None, every_steps: int = 1):
        FakeGame.made, FakeGame.rendered = [], 0
        self.policy, self.scores, self.checks, self._stop = FakePolicy(), [], 0, False
        self._scores = show(FakeGame, self.policy, page.broadcast, 5, lambda: about or {}, self._check, every_steps)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _check(self) -> None:
        self.checks += 1
        if self._stop:
            raise Stopped

    def _run(self) -> None:
        with contextlib.suppress(Stopped):
            for score in self._scores:
                self.scores.append(score)

    def stop(self) -> None:
        self._stop = True
        self.thread.join(10)
        assert not self.thread.is_alive()


@pytest.fixture
def fast(monkeypatch):
    """No waiting for the game's own speed, and short pauses."""
    monkeypatch.setattr(Pace, "wait", lambda self, frames: time.sleep(0.005))
    monkeypatch.setattr(play_module, "_POLL_S", 0.01)
    monkeypatch.setattr(server_module, "_WAITING_MESSAGES", 10_000)


@pytest.mark.parametrize("every_steps", [3, 4])  # an episode's steps are a multiple of one of them
def test_of_every_so_many_steps_one_is_told_and_no_reward_is_lost(every_steps, page, fast):
    player = Player(page, every_steps=every_steps)
    steps = sorted({*range(0, EPISODE_STEPS + 1, every_steps), EPISODE_STEPS})
    told = read(page.port, len(steps) + 1)
    player.stop()
    *first, next_episode = told
    assert [message["step"] for message in first] == steps
    assert [message["score"] for message in first] == [2.0 * message["step"] for message in first]
    assert (next_episode["episode"], next_episode["step"]) == (2, 0)
    assert len(player.policy.states) >= EPISODE_STEPS


def test_each_step_is_told(page, fast):
    player = Player(page, about={"updates": 7})
    told = read(page.port, 2 * EPISODE_STEPS + 2)
    player.stop()
    first, second = told[: EPISODE_STEPS + 1], told[EPISODE_STEPS + 1 :]
    for episode, messages in enumerate((first, second), start=1):
        assert {message["episode"] for message in messages} == {episode}
        assert [message["step"] for message in messages] == list(range(len(messages)))
        assert [message["score"] for message in messages] == [2.0 * step for step in range(len(messages))]
    assert [message["frames"] for message in told] == [
        start + 3 * step for start in (4, 4 + 3 * EPISODE_STEPS + 4) for step in range(EPISODE_STEPS + 1)
    ]
    assert all(message["actions"] == ACTIONS and message["updates"] == 7 for message in told)
    assert player.scores[0] == 2.0 * EPISODE_STEPS
    assert FakeGame.made[0].closed
    assert FakeGame.made[0].seeds != FakeGame.made[1].seeds
    for message, state, screen in zip(first[:-1], player.policy.states, FakeGame.made[0].screens, strict=False):
        np.testing.assert_array_equal(picture(message["screen"]), screen)
        frames = np.split(picture(message["input"]), 4, axis=1)
        np.testing.assert_array_equal(np.concatenate(frames, axis=2), state)
    for number, message in enumerate(first[:-1], start=1):
        assert np.argmax(message["policy"]) == number % 4
        assert sum(message["policy"]) == pytest.approx(1)
        assert message["value"] == pytest.approx(number / 10)
    assert [message["action"] for message in first[:-1]] == FakeGame.made[0].actions
    assert (first[-1]["policy"], first[-1]["action"]) == (first[-2]["policy"], first[-2]["action"])


def test_nothing_is_played_or_drawn_while_nobody_watches(page, fast, monkeypatch):
    monkeypatch.setattr(server_module, "_SILENCE_S", 0.05)
    encoded = []
    monkeypatch.setattr(play_module, "encode", lambda *args: encoded.append(args) or b"{}")

    def assert_rests() -> None:
        checks, before = player.checks, (len(encoded), FakeGame.rendered, len(player.policy.states))
        wait_until(lambda: player.checks > checks + 5)
        assert (len(encoded), FakeGame.rendered, len(player.policy.states)) == before

    player = Player(page)
    wait_until(lambda: player.checks > 2)
    assert not encoded
    assert_rests()
    read(page.port, 10)
    wait_until(lambda: not page.broadcast._clients)
    assert len(encoded) >= 10
    wait_until(lambda: player.checks > 2)
    checks = player.checks
    wait_until(lambda: player.checks > checks + 1)  # the step in hand is over
    assert_rests()
    count = len(encoded)
    read(page.port, 5)
    assert len(encoded) >= count + 5
    player.stop()


def test_the_player_stops_when_asked_with_and_without_watchers(page, fast):
    player = Player(page)
    player.stop()
    player = Player(page)
    reader = Reader(page.port)
    wait_until(lambda: reader.seen)
    player.stop()
    assert FakeGame.made[-1].closed


class Clock:
    """A time that passes only by sleeping."""

    def __init__(self):
        self.now, self.slept = 100.0, []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def test_the_game_has_its_own_speed(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(play_module, "time", clock)
    pace = Pace()
    for frames in (3, 4, 2) * 20:
        clock.now += 0.004  # a step's work
        pace.wait(frames)
    assert clock.now - 100 == pytest.approx(180 / 60)
    clock.now += 60  # nobody watched
    before = clock.now
    for _ in range(60):
        pace.wait(3)
    assert clock.now - before == pytest.approx(3 - play_module._CATCH_UP_S, abs=0.06)


# The weights of a training


def test_the_newest_weights_play(tmp_path):
    path = tmp_path / "Pong-v0.npz"
    states = np.random.default_rng(0).integers(0, 256, (1, *STATE_SHAPE), np.uint8)
    policy = NewestPolicy(str(path))
    assert not policy.reload()
    write_model(path, small_variables(6, seed=1), {"network": "small", "updates": 8, "online_score": -20.5})
    assert policy.reload()
    first = policy(states)
    assert policy.about() == {"updates": 8, "online_score": -20.5, "age_s": pytest.approx(0, abs=5)}
    write_model(path, small_variables(6, seed=2), {"network": "small", "updates": 16, "online_score": None})
    os.utime(path, (time.time() - 100, time.time() - 100))
    second = policy(states)
    assert np.abs(first[0] - second[0]).max() > 1e-3
    assert policy.about() == {"updates": 16, "online_score": None, "age_s": pytest.approx(100, abs=5)}
    path.write_bytes(path.read_bytes()[:1000])
    np.testing.assert_array_equal(policy(states)[0], second[0])  # the last good ones
    path.unlink()
    np.testing.assert_array_equal(policy(states)[0], second[0])
    write_model(path, small_variables(6, seed=1), {"network": "small"})
    np.testing.assert_array_equal(policy(states)[0], first[0])


def test_the_page_waits_for_the_first_weights(tmp_path, monkeypatch):
    def show_once(make_game, policy, broadcast, seed, about, every_steps, choose):
        assert choose is sampled_actions
        broadcast.publish(json.dumps({"seed": seed, "every_steps": every_steps, **about()}).encode())
        return iter(())

    monkeypatch.setattr(play_module, "show", show_once)
    monkeypatch.setattr(play_module, "_POLL_S", 0.01)
    path, listener = tmp_path / "Pong-v0.npz", listen(0)
    reader = Reader(listener.getsockname()[1])
    arguments = (listener, str(path), "Pong-v0", 3)
    watcher = threading.Thread(target=play_module.watch_training, args=arguments, daemon=True)
    watcher.start()
    wait_until(lambda: len(reader.seen) > 2)
    assert all(message == {"env": "Pong-v0", "waiting": "the first weights"} for message in reader.seen)
    write_model(path, small_variables(6), {"network": "small", "updates": 8, "online_score": None})
    watcher.join(30)
    reader.thread.join(10)
    age_s = reader.seen[-1].pop("age_s")
    assert 0 <= age_s < 5
    told = {"seed": 3, "every_steps": 2, "env": "Pong-v0", "updates": 8, "online_score": None}
    assert reader.seen[-1] == told


def test_play_ends_after_its_episodes(monkeypatch):
    checks = []
    monkeypatch.setattr(play_module, "make_player", lambda env, render_mode: FakeGame())
    monkeypatch.setattr(Pace, "wait", lambda self, frames: None)
    FakeGame.made, FakeGame.rendered = [], 0
    policy, lines, listener = FakePolicy(), [], listen(0)
    policy.metadata = {}
    reader = Reader(listener.getsockname()[1])
    choose = Mock(wraps=greedy_actions)
    play_module.play(listener, policy, "Pong-v0", 2, 0, choose, lines.append, lambda: checks.append(1))
    assert choose.call_count == 2 * EPISODE_STEPS
    assert len(checks) >= 2 * EPISODE_STEPS
    assert lines == ["episode 1/2: score 60", "episode 2/2: score 60"]
    assert all(game.closed for game in FakeGame.made)
    reader.thread.join(10)
    assert not reader.thread.is_alive()


def test_a_viewer_tells_the_games_speed(page):
    with Viewer(page.port) as viewer:
        wait_until(lambda: page.broadcast._clients)
        page.broadcast.publish(b'{"waiting": "weights"}')
        begun = time.monotonic()
        for frames in range(6, 36, 3):
            page.broadcast.publish(json.dumps({"frames": frames}).encode())
            time.sleep(0.02)
        wait_until(lambda: viewer.game_speed > 0)
        seconds = time.monotonic() - begun
        page.broadcast.publish(b'{"waiting": "the end"}')
    assert viewer.game_speed >= 27 / 60 / seconds
    assert viewer.game_speed < 10
