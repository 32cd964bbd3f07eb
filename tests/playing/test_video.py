"""Videos of the agent at play: what they show, and that each is whole or not there."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

from a3c.errors import RunError
from a3c.playing import video
from a3c.playing.episode import greedy_actions
from a3c.playing.video import VideoFile, record
from a3c.seeds import Purpose, Seeds
from atari_wrapper import make_player

import gymnasium
import imageio_ffmpeg
import numpy as np
import pytest
from policies import uniform_policy

SEEDS = Seeds(1, Purpose.VIDEO)


class Recorder(gymnasium.Wrapper):
    """Keeps what it shows for each emulator frame."""

    def __init__(self, env):
        super().__init__(env)
        self.shown: list[np.ndarray] = []
        self.score = 0.0
        self.closed = False

    def close(self):
        super().close()
        self.closed = True

    def reset(self, **kwargs):
        observation, info = self.env.reset(**kwargs)
        self._show(info)
        return observation, info

    def step(self, action):
        observation, reward, terminated, truncated, info = self.env.step(action)
        self.score += float(reward)
        self._show(info)
        return observation, reward, terminated, truncated, info

    def _show(self, info):
        self.shown += (info["frame_number"] - len(self.shown)) * [self.env.render()]


def read_video(path: Path) -> tuple[dict, np.ndarray]:
    reader = imageio_ffmpeg.read_frames(str(path))
    information = next(reader)
    width, height = information["size"]
    return information, np.array([np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader])


def picture_differences(frames: np.ndarray, pictures: np.ndarray) -> np.ndarray:
    return np.abs(frames.astype(np.int16) - pictures).mean(axis=(1, 2, 3))


def test_videos_show_the_episodes_at_their_own_speed(tmp_path, monkeypatch, capsys):
    players = []

    def make_short_player(env_id, render_mode):
        players.append(Recorder(make_player(env_id, render_mode, max_episode_steps=90)))
        return players[-1]

    monkeypatch.setattr(video, "make_player", make_short_player)
    directory = tmp_path / "2026-11-28T14:20:00"
    directory.mkdir()
    paths = record(uniform_policy, "Pong-v0", 2, directory, SEEDS)
    lines = capsys.readouterr().out.splitlines()
    assert paths == [
        directory / f"Pong-v0-episode-{i:03d}-score-{player.score:g}.mp4" for i, player in enumerate(players, start=1)
    ]
    assert sorted(directory.iterdir()) == sorted(paths)  # nothing unfinished is left
    assert any(player.score != 0 for player in players)
    for path, player, line in zip(paths, players, lines, strict=True):
        assert player.closed
        information, frames = read_video(path)
        assert information["codec"] == "h264"
        assert information["size"] == (160, 210)
        assert information["fps"] == 60
        assert frames.shape == (len(player.shown), 210, 160, 3)
        shown = np.array(player.shown, np.int16)
        assert picture_differences(frames, shown).max() < 4  # of 255: what the compression costs
        assert picture_differences(frames, shown).max() < picture_differences(frames[1:], shown[:-1]).max()
        assert frames.max(axis=(1, 2, 3)).min() > 150
        assert str(path) in line
        assert f"score {player.score:g}" in line
        assert len({frame.tobytes() for frame in player.shown}) > 50
    assert not np.array_equal(*(player.shown[-1] for player in players))


def test_a_video_of_the_same_name_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(video, "make_player", lambda *args, **kwargs: make_player(*args, **kwargs, max_episode_steps=3))
    paths = [path for _ in range(2) for path in record(uniform_policy, "Pong-v0", 1, tmp_path, SEEDS)]
    assert [path.name for path in paths] == ["Pong-v0-episode-001-score-0.mp4", "Pong-v0-episode-001-score-0-1.mp4"]
    assert paths[0].read_bytes() == paths[1].read_bytes()  # the seed is the same


def test_actions_are_chosen_as_told(tmp_path, monkeypatch):
    monkeypatch.setattr(video, "make_player", lambda *args, **kwargs: make_player(*args, **kwargs, max_episode_steps=3))
    choose = Mock(wraps=greedy_actions)
    record(uniform_policy, "Pong-v0", 2, tmp_path, SEEDS, choose)
    assert choose.call_count == 2 * 3


def write(file: VideoFile, frames: int) -> None:
    for _ in range(frames):
        file.write(np.zeros((210, 160, 3), np.uint8))


def test_what_ffmpeg_says_is_told(tmp_path):
    with VideoFile(tmp_path / "missing" / "v.mp4", (160, 210)) as file, pytest.raises(RunError) as caught:
        write(file, 10_000)
    assert str(caught.value).endswith("missing: ffmpeg says No such file or directory")


def test_a_video_that_is_given_up_leaves_nothing(tmp_path):
    with VideoFile(tmp_path / ".unfinished.mp4", (160, 210)) as file:
        write(file, 1000)
    assert list(tmp_path.iterdir()) == []


def test_frames_of_an_odd_size_fit(tmp_path):
    with VideoFile(tmp_path / ".unfinished.mp4", (161, 211)) as file:
        file.write(np.zeros((211, 161, 3), np.uint8))
        file.finish(tmp_path / "v.mp4")
    assert read_video(tmp_path / "v.mp4")[0]["size"] == (162, 212)
