"""Runs packed as the models that come with the project, on weights at random."""

from __future__ import annotations

import json

from a3c.playing.evaluation import evaluate
from a3c.seeds import Purpose, Seeds
from a3c.weights.file_policy import FilePolicy
from a3c.weights.model_file import read_model, write_model
from bench import models
from bench.models import Compared, pack, rounded
from tests.helpers.model_files import small_variables

import numpy as np
import pytest

LARGEST = "fc0/W"


@pytest.fixture
def model(tmp_path):
    write_model(tmp_path / "run.npz", small_variables(6), {"env": "Pong-v0", "network": "small", "steps": 1000})
    return read_model(str(tmp_path / "run.npz"))


def policy_of(action):
    return lambda states: (np.eye(3, dtype=np.float32)[np.full(len(states), action)], np.zeros(len(states)))


def test_a_model_is_written_in_half_its_bytes_with_its_evaluation(model, tmp_path):
    line = pack(model, tmp_path, episodes=2, max_episode_steps=40)
    packed, exact = read_model(str(tmp_path / "Pong-v0.npz")), model.variables
    for name, value in packed.variables.items():
        np.testing.assert_array_equal(value, exact[name].astype(np.float16) if name == LARGEST else exact[name])
    with np.load(tmp_path / "Pong-v0.npz") as file:
        assert [name for name in file.files if file[name].dtype == np.float16] == [LARGEST]
    assert line["MB"] == (tmp_path / "Pong-v0.npz").stat().st_size / 1e6 < 1.5
    assert packed.metadata == model.metadata | {
        "evaluation": {"mean": line["mean"], "stderr": line["stderr"], "episodes": 2,
                       "protocol": "greedy with 1% random actions"},
    }  # fmt: skip
    record = json.loads((tmp_path / "Pong-v0.json").read_text())
    assert (record["env"], record["model"], record["mean"]) == ("Pong-v0", "Pong-v0.npz", line["mean"])
    args = {"env_id": "Pong-v0", "max_episode_steps": 40}
    again = evaluate(FilePolicy(packed, 1), args, 2, processes=2, seeds=Seeds(0, Purpose.EVALUATION))
    assert list(again.scores) == record["scores"]


def test_what_would_act_differently_is_not_written(model, monkeypatch, tmp_path):
    other = model._replace(variables=small_variables(6, seed=1))
    monkeypatch.setattr(models, "rounded", lambda _: other)
    with pytest.raises(RuntimeError, match=r"it acts differently in \d+ of \d+ states"):
        pack(model, tmp_path, episodes=1, max_episode_steps=20)
    assert not (tmp_path / "Pong-v0.npz").exists()


def test_the_largest_layer_alone_is_rounded(model):
    values = rounded(model).variables
    assert {name for name, value in values.items() if value.dtype == np.float16} == {LARGEST}


@pytest.mark.parametrize(("asked", "others"), [(1, 0), (2, 6)])
def test_the_other_policy_is_asked_until_there_are_enough_states(asked, others):
    compared = Compared(policy_of(1), policy_of(asked), states=5)
    for _ in range(4):
        policy, value = compared(np.zeros((3, 1)))
        assert (policy.argmax(axis=1).tolist(), len(value)) == ([1, 1, 1], 3)
    assert (compared.states, compared.others) == (6, others)


def test_the_page_of_results_has_the_models(model, tmp_path):
    assert models.table(models.MODELS) in models.DOCUMENT.read_text()
    write_model(tmp_path / "Breakout-v0.npz", model.variables, {"steps": 5})  # no evaluation: not packed
    pack(model._replace(metadata=model.metadata | {"train_minutes": 2.6}), tmp_path, episodes=2, max_episode_steps=40)
    (line,) = models.table(tmp_path).splitlines()[2:]
    scores = json.loads((tmp_path / "Pong-v0.json").read_text())["scores"]
    assert line.startswith(f"| [Pong-v0](../models/Pong-v0.npz) | **{np.mean(scores):,.0f}** ± ")
    assert line.endswith(f"| {min(scores):,.0f} to {max(scores):,.0f} | 21 | 0.0 M | 3 |")
