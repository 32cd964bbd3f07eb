"""The soak's samples and their growth, on a real run; the README's animation and pictures."""

from __future__ import annotations

import signal
from pathlib import Path

import bench.pictures as pictures
import bench.soak as soak
from bench.animation import animate
from bench.command_line import SHORT, start

import imageio_ffmpeg
import numpy as np
import psutil
import pytest

MODEL = str(Path(__file__).resolve().parents[2] / "models" / "Pong-v0.npz")


@pytest.mark.long
def test_all_processes_of_a_run_are_sampled(monkeypatch, tmp_path):
    monkeypatch.setattr(soak, "_SAMPLES", 4)
    run = start(*SHORT, "--output", str(tmp_path / "run"))
    try:
        run.read_until("Start Epoch 1")
        samples = soak.watch(psutil.Process(run.process.pid), minutes=0.05)
    finally:
        run.process.send_signal(signal.SIGTERM)
        run.finish()
    assert len(samples) == 5
    assert set(samples[-1]) == {"minutes", "learner", "nursery", "simulator 0", "simulator 1"}
    assert samples[-1]["minutes"] == pytest.approx(0.05, abs=0.02)
    assert samples[-1]["learner"]["memory MB"] > samples[-1]["simulator 0"]["memory MB"] > 1
    assert samples[-1]["learner"]["threads"] > 4
    assert samples[-1]["simulator 1"]["open files"] > 3
    rows = soak.growth(samples)
    assert len(rows) == 4 * 3
    assert {row["growth"] for row in rows if row["what"] == "threads" and "simulator" in row["process"]} == {0}
    samples[-1]["learner"]["memory MB"] += 1
    grown = next(row for row in soak.growth(samples) if (row["process"], row["what"]) == ("learner", "memory MB"))
    assert grown["growth"] == pytest.approx(samples[-1]["learner"]["memory MB"] - samples[1]["learner"]["memory MB"])


def test_the_animation_shows_the_game(tmp_path):
    path = tmp_path / "pong.gif"
    assert animate(MODEL, path, skip_steps=60, steps=40, seed=0) == 40
    about, *pictures = imageio_ffmpeg.read_frames(str(path))
    assert about["size"] == (160, 210)
    assert 40 / 20 * 0.5 < len(pictures) / 20 < 4  # 40 steps of 2 to 4 frames, 60 to the second
    first, last = (np.frombuffer(picture, np.uint8) for picture in (pictures[0], pictures[-1]))
    assert (first != last).any()
    assert len(np.unique(first)) > 3


def test_a_terminals_screen_has_what_was_written_last():
    shown = "one\r\n\x1b[32mtwo\x1b[0m\r\nepoch 1\repoch 2  \r\n"
    assert pictures.screen(shown) == ["one", "two", "epoch 2", ""]
