"""The learning experiments, on a few seconds of real training: that they run, go on, and draw what was measured."""

from __future__ import annotations

import json

import bench.learning as learning
from a3c.flags import parse_args
from bench.command_line import ROOT, SHORT
from bench.learning import Experiment

import cv2
import numpy as np
import pytest

pytestmark = pytest.mark.long

FLAGS = (*SHORT, "--steps-per-epoch", "4")
TINY = Experiment("Pong-v0", 0.001, (3,), {"vtrace": (*FLAGS, "--correction", "vtrace")},
                  episodes=2, sampled_steps=20)  # fmt: skip
OUTPUT = "train_log/learning/tiny/vtrace-3"


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("learning")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        learning.run("tiny", TINY)
        yield directory


def test_each_run_is_trained_and_scored(directory):
    record = json.loads((directory / "results" / "tiny.json").read_text())
    assert record["env"] == "Pong-v0"
    assert set(record["settings"]) == {"vtrace"}
    assert set(record["settings"]["vtrace"]["runs"]) == {"3"}
    run = record["settings"]["vtrace"]["runs"]["3"]
    config = json.loads((directory / OUTPUT / "config.json").read_text())
    assert (config["seed"], config["correction"]) == (3, "vtrace")
    assert run["curve"][-1]["train_minutes"] >= 0.001
    later = run["final"]["steps"] - run["curve"][-1]["steps"]  # games go on while a model is written
    assert 0 <= later < 512
    assert len(run["final"]["scores"]) == 2
    assert run["final"]["mean"] == np.mean(run["final"]["scores"])
    assert "sampled actions, episodes cut at 20 steps" in run["final"]["protocol"]


def test_what_is_there_is_not_run_again_and_a_run_is_continued(directory):
    path = directory / "results" / "tiny.json"
    before = path.read_text()
    learning.run("tiny", TINY)
    assert path.read_text() == before
    output = directory / OUTPUT
    minutes = learning.curve(output)[-1]["train_minutes"]
    learning.train("Pong-v0", FLAGS, 3, minutes + 0.001, output)
    continued = learning.curve(output)
    assert continued[-1]["train_minutes"] >= minutes + 0.001
    assert continued[0] == json.loads(before)["settings"]["vtrace"]["runs"]["3"]["curve"][0]


@pytest.mark.parametrize("name", learning.EXPERIMENTS)
def test_the_experiments_flags_are_the_command_lines(name):
    experiment = learning.EXPERIMENTS[name]
    for flags in experiment.settings.values():
        parse_args(["--env", experiment.env, *flags]).resolve(cores=2, num_gpus=0)


@pytest.mark.parametrize("name", ["pong", "breakout"])
def test_the_stored_results_are_drawn(name, tmp_path):
    record = json.loads((ROOT / "results" / f"{name}.json").read_text())
    for row in learning.rows(record):
        assert row["least"] <= row["mean"] <= row["most"]
    learning.draw(record, tmp_path / "all.png")
    record["settings"].popitem()
    learning.draw(record, tmp_path / "some.png")
    whole, part = (cv2.imread(str(tmp_path / f"{drawn}.png")) for drawn in ("all", "some"))
    assert whole.std() > 10
    assert (whole != part).any()  # it shows what was measured
