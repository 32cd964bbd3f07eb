"""The models that come with the project: they say what they are, and play as well as is said."""

from __future__ import annotations

import json
from pathlib import Path

from a3c.playing.evaluation import evaluate
from a3c.seeds import Purpose, Seeds
from a3c.weights.file_policy import FilePolicy
from a3c.weights.model_file import check_model, read_model
from atari_wrapper import get_protocol

import pytest

MODELS = Path(__file__).resolve().parents[2] / "models"
FILES = sorted(MODELS.glob("*.npz"))


def test_pong_is_there():
    assert MODELS / "Pong-v0.npz" in FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_model_says_what_it_is_and_how_it_was_scored(path):
    model = read_model(str(path))
    check_model(model, get_protocol(path.stem), "auto")
    assert path.stat().st_size < 4_000_000
    assert model.metadata["env"] == path.stem
    assert model.metadata["train_minutes"] > 0
    scored = json.loads(path.with_suffix(".json").read_text())
    assert scored["env"] == path.stem
    assert scored["episodes"] == len(scored["scores"]) == 100
    assert scored["mean"] == pytest.approx(sum(scored["scores"]) / 100)


@pytest.mark.long
def test_pong_plays():
    policy = FilePolicy(read_model(str(MODELS / "Pong-v0.npz")), 2)
    assert evaluate(policy, {"env_id": "Pong-v0"}, 1, processes=1, seeds=Seeds(1, Purpose.EVALUATION)).mean > 10
