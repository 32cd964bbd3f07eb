"""What is drawn beside the frames of a video."""

from __future__ import annotations

from a3c.playing import video
from a3c.playing.episode import Step
from a3c.playing.overlay import _LINE, SCALE, Overlay
from a3c.seeds import Purpose, Seeds
from atari_wrapper import STATE_SHAPE, make_player

import imageio_ffmpeg
import numpy as np
import pytest

ACTIONS = ["NOOP", "FIRE", "RIGHT", "LEFT"]
RNG = np.random.default_rng(0)
FRAME = RNG.integers(0, 256, (210, 160, 3), np.uint8)


def step(policy=(0.1, 0.2, 0.3, 0.4), value=0.5, action=3) -> Step:
    return Step(0.0, 3, np.zeros(STATE_SHAPE, np.uint8), np.array(policy, np.float32), value, action, False)


def panel(picture: np.ndarray) -> np.ndarray:
    return picture[:, SCALE * 160 :]


@pytest.mark.parametrize("frame_size", [(210, 160), (250, 160), (211, 161)])
def test_the_game_is_whole_and_the_size_is_even(frame_size):
    height, width = frame_size
    frame = RNG.integers(0, 256, (height, width, 3), np.uint8)
    drawing = Overlay(frame_size, ACTIONS)
    picture = drawing.draw(frame, step(), 0)
    assert picture.dtype == np.uint8
    assert picture.shape == (*drawing.size[::-1], 3)
    assert drawing.size[0] % 2 == drawing.size[1] % 2 == 0
    for dy in range(SCALE):
        for dx in range(SCALE):
            np.testing.assert_array_equal(picture[dy : SCALE * height : SCALE, dx : SCALE * width : SCALE], frame)


@pytest.mark.parametrize(
    ("other", "score"),
    [
        (step(policy=(0.1, 0.2, 0.4, 0.3)), 0),
        (step(action=2), 0),
        (step(value=-0.5), 0),
        (step(), 7),
    ],
    ids=["policy", "action", "value", "score"],
)
def test_the_panel_shows_it(other, score):
    before = Overlay(FRAME.shape[:2], ACTIONS).draw(FRAME, step(), 0)
    after = Overlay(FRAME.shape[:2], ACTIONS).draw(FRAME, other, score)
    assert (panel(before) != panel(after)).any()


def lengths_of_bars(policy: tuple[float, ...], action: int) -> list[int]:
    picture = panel(Overlay(FRAME.shape[:2], ACTIONS).draw(FRAME, step(policy, action=action), 0))
    coloured = (picture == (86, 180, 233)).all(axis=2) | (picture == (230, 159, 0)).all(axis=2)
    # Of each bar one row of pixels: those of its name and of the curve are fewer in a row, or blended with the ground.
    rows = [int(np.diff(np.flatnonzero(np.diff(np.pad(row, 1).astype(int)))).max(initial=0)) for row in coloured]
    upper = rows[: SCALE * 210 // 3]
    return [length for length, before in zip(upper[1:], upper, strict=False) if length > 10 and before <= 10]


def test_bars_are_as_long_as_the_action_is_probable():
    lengths = lengths_of_bars((0.1, 0.2, 0.3, 0.4), action=1)
    np.testing.assert_allclose(np.array(lengths) / lengths[3], (0.25, 0.5, 0.75, 1), atol=0.03)


def test_the_curve_grows_with_the_steps():
    drawing = Overlay(FRAME.shape[:2], ACTIONS)
    pictures = [panel(drawing.draw(FRAME, step(value=value), 0)) for value in (0, 1, 0, 1, 0, 1)]
    inked = [int((picture[SCALE * 100 :] == (86, 180, 233)).all(axis=2).sum()) for picture in pictures]
    assert inked == sorted(inked)
    assert inked[-1] > inked[1]


def test_the_zero_line_stays_below_the_actions_where_all_values_are_negative():
    drawing = Overlay(FRAME.shape[:2], ACTIONS)
    for value in (-3.0, -0.6):
        picture = panel(drawing.draw(FRAME, step(value=value), 0))
    gray = np.abs(picture.astype(int) - np.array(_LINE)).max(axis=2) < 8
    rows = np.flatnonzero(gray.mean(axis=1) > 0.5)
    assert rows.size
    assert rows.min() > SCALE * 60  # where the curve begins


def test_eighteen_actions_leave_room_for_the_curve():
    drawing = Overlay(FRAME.shape[:2], [f"ACTION {number}" for number in range(18)])
    one = drawing.draw(FRAME, step(policy=np.full(18, 1 / 18)), 0)
    two = drawing.draw(FRAME, step(policy=np.full(18, 1 / 18), value=0.4), 0)
    assert (one[-80:] != two[-80:]).any()


def frames_of(path) -> np.ndarray:
    reader = imageio_ffmpeg.read_frames(str(path))
    width, height = next(reader)["size"]
    return np.array([np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader])


@pytest.mark.long
def test_a_video_with_overlay_has_the_game_of_one_without(tmp_path, monkeypatch):
    monkeypatch.setattr(video, "make_player", lambda env, render_mode: make_player(env, render_mode, 40))

    def policy(states):
        return [np.full((1, 6), 1 / 6, np.float32), states.mean(axis=(1, 2, 3), dtype=np.float32) / 255]

    seeds = Seeds(1, Purpose.VIDEO)
    (plain,) = video.record(policy, "Pong-v0", 1, tmp_path, seeds)
    (overlaid,) = video.record(policy, "Pong-v0", 1, tmp_path, seeds, overlay=True)
    plain, overlaid = frames_of(plain), frames_of(overlaid)
    assert overlaid.shape == (len(plain), 630, 960, 3)
    game = overlaid[:, 1 : SCALE * 210 : SCALE, 1 : SCALE * 160 : SCALE].astype(int)
    assert np.abs(game - plain).mean() < 4  # of 255: what the compression costs
    assert np.abs(panel(overlaid[-1]).astype(int) - panel(overlaid[20])).max() > 100
