"""The models that come with the project: they say what they are, and play better than chance."""

from __future__ import annotations

import contextlib
import itertools
import json
from pathlib import Path

from a3c.playing.episode import play_episode
from a3c.weights.file_policy import FilePolicy
from a3c.weights.model_file import check_model, read_model
from atari_wrapper import get_protocol, make_player

import numpy as np
import pytest

MODELS = Path(__file__).resolve().parents[2] / "models"
FILES = sorted(MODELS.glob("*.npz"))
FIRST = {"Pong-v0": 10, "Breakout-v0": 50}  # in full precision, and a score they reach
RANDOM = json.loads((MODELS.parent / "results" / "games.json").read_text())


def test_pong_is_there():
    assert MODELS / "Pong-v0.npz" in FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_model_says_what_it_is_and_how_it_was_scored(path):
    model = read_model(str(path))
    check_model(model, get_protocol(path.stem), "auto")
    assert path.stat().st_size < (3_000_000 if path.stem in FIRST else 1_500_000)
    assert model.metadata["env"] == path.stem
    assert model.metadata["train_minutes"] > 0
    scored = json.loads(path.with_suffix(".json").read_text())
    assert scored["env"] == path.stem
    assert scored["episodes"] == len(scored["scores"]) == 100
    assert scored["mean"] == pytest.approx(sum(scored["scores"]) / 100)
    if path.stem not in FIRST:
        assert model.metadata["evaluation"]["mean"] == scored["mean"]


@pytest.mark.long
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_plays(path):
    aim = FIRST.get(path.stem) or RANDOM[path.stem]["random"]["mean"]
    policy, rng = FilePolicy(read_model(str(path)), 1), np.random.default_rng(0)
    with contextlib.closing(make_player(path.stem)) as player:
        scores = itertools.accumulate(step.reward for step in play_episode(player, policy, rng, seed=0))
        assert any(score > aim for score in scores)
