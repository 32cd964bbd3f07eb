"""The game against the written protocol (original.md), on real frames of the emulator."""

from __future__ import annotations

import json
from pathlib import Path

from atari_wrapper import Player, get_protocol, make_player, stack_frames

import cv2
import gymnasium
import numpy as np
import pytest
from ale_py.env import AtariEnv

GAMES = json.loads((Path(__file__).parents[1] / "a3c/reports/published_scores.json").read_text())["scores"]


@pytest.fixture(scope="module")
def film() -> tuple[np.ndarray, np.ndarray]:
    """30 steps of Breakout: the emulator's screens, uint8 [30, 210, 160, 3], and the player's frames."""
    player = make_player("Breakout-v0")
    rng = np.random.default_rng(0)
    frames, screens = [player.reset(seed=3)[0].copy()], [player.unwrapped.ale.getScreenRGB()]
    for _ in range(29):
        frames.append(player.step(int(rng.integers(4)))[0].copy())
        screens.append(player.unwrapped.ale.getScreenRGB())
    player.close()
    return np.stack(screens), np.stack(frames)


# The newest frame.


def literal_bilinear(screen: np.ndarray) -> np.ndarray:
    """84x84 pixels, each the mix of the four around its centre, float64."""

    def line(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        at = np.clip((np.arange(84) + 0.5) * size / 84 - 0.5, 0, size - 1)
        low = np.floor(at).astype(int)
        return low, np.minimum(low + 1, size - 1), at - low

    (top, bottom, y), (left, right, x) = line(screen.shape[0]), line(screen.shape[1])
    rows = screen[top] * (1 - y)[:, None, None] + screen[bottom] * y[:, None, None]
    return rows[:, left] * (1 - x)[:, None] + rows[:, right] * x[:, None]


def test_frame_is_the_screen_resized(film):
    screens, frames = film
    assert screens.shape[1:] == (210, 160, 3)
    assert frames.shape[1:] == (84, 84, 3)
    assert frames.dtype == np.uint8
    for screen, frame in zip(screens, frames, strict=True):
        np.testing.assert_array_equal(frame, cv2.resize(screen, (84, 84)))
        assert np.abs(frame - literal_bilinear(screen)).max() <= 1
    assert len({frame.tobytes() for frame in frames}) > 20


# The state.


def literal_states(frames: np.ndarray, firsts: np.ndarray) -> np.ndarray:
    """[T, 84, 84, 3] -> [T, 84, 84, 12]: channel = 3 * history + colour, oldest first, zeros before a first frame."""
    states = np.zeros((*frames.shape[:3], 12), np.uint8)
    for t in range(len(frames)):
        for age in range(4):
            if age > t:
                break
            for colour in range(3):
                states[t, :, :, 3 * (3 - age) + colour] = frames[t - age, :, :, colour]
            if firsts[t - age]:
                break
    return states


@pytest.mark.parametrize("envs", [1, 3])
def test_stack_frames(film, envs):
    block = np.stack([np.roll(film[1], 7 * env, axis=0) for env in range(envs)], axis=1)  # [T, E, 84, 84, 3]
    rng = np.random.default_rng(1)
    firsts = rng.random(block.shape[:2]) < 0.15
    firsts[0], firsts[1:6] = True, False
    # Of what was there nothing is left.
    previous, states = rng.integers(0, 256, (2, envs, 84, 84, 12), dtype=np.uint8)
    expected = np.stack([literal_states(block[:, env], firsts[:, env]) for env in range(envs)], axis=1)
    for frames, first, state in zip(block, firsts, expected, strict=True):
        before = frames.copy(), previous.copy()
        stack_frames(previous, frames, first, out=states)
        np.testing.assert_array_equal(states, state)
        np.testing.assert_array_equal(frames, before[0])
        np.testing.assert_array_equal(previous, before[1])
        previous, states = states, previous


# The FIRE reset.


class FakeFireGame(gymnasium.Env):
    """A fake game, and its own emulator, that logs its calls; the acts named in ``ends`` end the episode."""

    observation_space = gymnasium.spaces.Box(0, 255, (210, 160, 3), np.uint8)
    action_space = gymnasium.spaces.Discrete(4)
    _action_set = (0, 1, 3, 4)
    _frameskip = 1

    def __init__(self, ends: tuple[int, ...], meanings: list[str]):
        self.ale, self.calls = self, []
        self._ends, self._meanings, self._acts = ends, meanings, 0

    def get_action_meanings(self):
        return self._meanings

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.calls.append(f"reset {seed}")
        return None, {}

    def act(self, action):
        self.calls.append(action)
        self._acts += 1
        return 5.0

    def game_over(self, with_truncation=True):
        return self._acts in self._ends

    def game_truncated(self):
        return False

    def getScreenRGB(self, out):  # noqa: N802
        out[...] = len(self.calls)

    def lives(self):
        return 3

    def getFrameNumber(self):  # noqa: N802
        return self._acts


@pytest.mark.parametrize(
    ("ends", "calls"),
    [
        ((), ["reset 7", 1, 3]),
        ((1,), ["reset 7", 1, "reset None", 3]),
        ((2,), ["reset 7", 1, 3, "reset None"]),
        ((1, 2), ["reset 7", 1, "reset None", 3, "reset None"]),
    ],
)
def test_fire_reset(ends, calls):
    game = FakeFireGame(ends, ["NOOP", "FIRE", "RIGHT", "LEFT"])
    player = Player(game, max_episode_steps=2)
    frame, info = player.reset(seed=7)
    assert game.calls == calls
    assert (frame == len(calls)).all()  # the newest one
    assert info == {"lives": 3, "frame_number": 2}
    assert player.step(3)[1:4] == (5.0, False, False)  # the reset's rewards and steps are in no step's
    assert player.step(2)[1:4] == (5.0, False, True)
    assert game.calls[-2:] == [4, 3]


@pytest.mark.parametrize("meanings", [["NOOP", "UP", "FIRE"], ["NOOP", "FIRE"]])
def test_a_game_that_has_no_fire_is_only_reset(meanings):
    game = FakeFireGame((), meanings)
    Player(game, max_episode_steps=2).reset()
    assert game.calls == ["reset None"]


@pytest.mark.parametrize(
    ("env_id", "frames"), [("BreakoutNoFrameskip-v4", 2), ("ALE/Pong-v5", 8), ("MsPacmanNoFrameskip-v4", 0)]
)
def test_games_that_wait_for_fire(env_id, frames):
    player = make_player(env_id)
    for seed in (1, None):
        player.reset(seed=seed)
        assert player.unwrapped.ale.getEpisodeFrameNumber() == frames
    player.close()


# The step.


@pytest.mark.parametrize("env_id", ["BreakoutNoFrameskip-v4", "ALE/Qbert-v5"])
def test_a_step_is_that_of_gymnasium(env_id):
    player, game = make_player(env_id), gymnasium.make(env_id, obs_type="rgb")
    fire = game.unwrapped.get_action_meanings()[1] == "FIRE"
    rng = np.random.default_rng(0)
    for seed in (3, None):
        player.reset(seed=seed)
        game.reset(seed=seed)
        for action in (1, 2) if fire else ():
            game.step(action)
        for _ in range(400):
            action = int(rng.integers(player.action_space.n))
            frame, *step, info = player.step(action)
            screen, *expected, expected_info = game.step(action)
            np.testing.assert_array_equal(frame, cv2.resize(screen, (84, 84)))
            assert step == expected
            assert info == {name: expected_info[name] for name in info}
            if step[1]:
                break
    player.close()
    game.close()


def test_frameskips_are_drawn_from_the_seed():
    player = make_player("Pong-v0")

    def frames(seed, steps):
        before = player.reset(seed=seed)[1]["frame_number"]
        after = [player.step(0)[-1]["frame_number"] for _ in range(steps)]
        return np.diff([before, *after]).tolist()

    first = frames(1, 600)
    assert sorted(set(first)) == [2, 3, 4]
    assert min(first.count(skip) for skip in (2, 3, 4)) > 600 / 3 - 4 * np.sqrt(600 * 2 / 9)
    assert frames(1, 600) == first
    assert frames(2, 600) != first
    player.close()


# The protocol.

PROTOCOLS = {  # frameskip, sticky, fewest emulator frames before the emulator's own cut
    "Pong-v0": ((2, 4), 0.25, 4 * 60_000),
    "Pong-v4": ((2, 4), 0.0, 108_000),
    "ALE/Pong-v5": ((4, 4), 0.25, 108_000),
    "BreakoutNoFrameskip-v4": ((1, 1), 0.0, 108_000),
}
PONG = ("NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE")


def test_a_game_that_is_built_with_its_first_seed_is_loaded_once_and_plays_the_same(monkeypatch):
    loads, load = [], AtariEnv.load_game
    monkeypatch.setattr(AtariEnv, "load_game", lambda game: loads.append(game) or load(game))
    at_once, later = make_player("Breakout-v0", seed=5), make_player("Breakout-v0")
    actions = np.random.default_rng(0).integers(0, 4, 300).tolist()
    for seed, expected_loads in ((5, 3), (5, 5), (6, 7)):  # only the first time
        np.testing.assert_array_equal(at_once.reset(seed=seed)[0], later.reset(seed=seed)[0])
        assert len(loads) == expected_loads
        for action in actions:
            (frame, *result), (expected, *expected_result) = at_once.step(action), later.step(action)
            np.testing.assert_array_equal(frame, expected)
            assert result == expected_result
            if result[1]:
                np.testing.assert_array_equal(at_once.reset()[0], later.reset()[0])


@pytest.mark.parametrize("env_id", PROTOCOLS)
def test_protocol(env_id):
    (low, high), sticky, frames = PROTOCOLS[env_id]
    protocol = get_protocol(env_id)
    assert protocol.env == env_id
    assert protocol.frameskip == (low, high)
    assert protocol.sticky == sticky
    assert protocol.actions == (PONG if "Pong" in env_id else PONG[:4])
    assert protocol.max_episode_steps == 60_000
    assert protocol.max_episode_frames >= frames
    assert env_id in str(protocol)

    player = make_player(env_id)
    ale = player.unwrapped.ale
    assert ale.getFloat("repeat_action_probability") == sticky
    assert ale.getInt("max_num_frames_per_episode") == protocol.max_episode_frames
    assert player.action_space.n == len(protocol.actions)
    seen, before = [], player.reset(seed=1)[1]["frame_number"]
    for _ in range(150):
        *_, info = player.step(0)
        seen.append(info["frame_number"] - before)
        before = info["frame_number"]
    player.close()
    share = 1 / (high - low + 1)
    assert {skip for skip in range(10) if seen.count(skip)} == set(range(low, high + 1))
    assert min(seen.count(skip) for skip in range(low, high + 1)) > 100 * share


@pytest.mark.parametrize("env_id", ["Pong-v0", "Breakout-v0", "BreakoutNoFrameskip-v0", "MsPacman-v0"])
def test_emulator_does_not_cut_before_60000_steps(env_id):
    player = make_player(env_id)
    player.reset(seed=1)
    fired_frames = player.unwrapped.ale.getEpisodeFrameNumber()
    slowest = get_protocol(env_id).frameskip[1]
    assert player.unwrapped.ale.getInt("max_num_frames_per_episode") >= fired_frames + 60_000 * slowest
    player.close()


def first_end(player, action: int, limit: int = 400) -> tuple[int, bool, bool]:
    """Steps to the end of the episode, and whether it is terminated and truncated."""
    for step in range(1, limit + 1):
        _, _, terminated, truncated, _ = player.step(action)
        if terminated or truncated:
            return step, terminated, truncated
    raise AssertionError(f"no end in {limit} steps")


@pytest.mark.parametrize("env_id", ["Breakout-v0", "MsPacman-v0"])
def test_cut_at_the_last_step(env_id):
    player = make_player(env_id, max_episode_steps=5)
    for _ in range(2):
        player.reset()
        assert first_end(player, 0) == (5, False, True)
    player.close()


def test_the_emulators_own_cut_is_a_truncation():
    player = make_player("MsPacman-v4")
    player.unwrapped.ale.setInt("max_num_frames_per_episode", 60)
    player.reset(seed=1)  # it reads the setting
    steps, terminated, truncated = first_end(player, 0)
    assert 60 / 4 <= steps <= 60 / 2
    assert (terminated, truncated) == (False, True)
    player.close()


def test_the_games_end_is_a_termination_and_a_lost_life_is_none():
    player = make_player("BreakoutNoFrameskip-v4")
    _, info = player.reset(seed=1)
    lives, ended = [info["lives"]], False
    for step in range(5000):
        _, _, ended, truncated, info = player.step(step % 2)  # FIRE, and leave the ball
        lives.append(info["lives"])
        assert not truncated
        if ended:
            break
    assert ended
    assert sorted(set(lives), reverse=True) == [5, 4, 3, 2, 1, 0]
    player.close()


# All games of the published table.


@pytest.mark.long
@pytest.mark.parametrize("game", GAMES)
def test_game_plays(game):
    rng = np.random.default_rng(0)
    player = make_player(f"{game}-v0", seed=0)
    frame, info = player.reset(seed=0)
    frames, before = {frame.tobytes()}, info["frame_number"]
    for _ in range(300):
        frame, reward, terminated, truncated, info = player.step(int(rng.integers(player.action_space.n)))
        assert frame.shape == (84, 84, 3)
        assert frame.dtype == np.uint8
        assert np.isfinite(reward)
        assert not truncated
        assert 1 <= info["frame_number"] - before <= 4
        if terminated:
            frame, info = player.reset()
        before = info["frame_number"]
        frames.add(frame.tobytes())
    player.close()
    assert len(frames) > 20
    assert len(GAMES) == 47
