"""The learning experiments, on a few seconds of real training: that they run, go on, and draw what was measured."""

from __future__ import annotations

import json
import signal

import bench.command_line as command_line
import bench.learning as learning
from a3c.flags import parse_args
from bench.learning import Experiment

import cv2
import numpy as np
import pytest
from processes import wait_until

FLAGS = ("--num-envs", "8", "--simulator-proc", "2", "--local-time-max", "16", "--pool-states", "256",
         "--batch-size", "64", "--steps-per-epoch", "4", "--eval-every", "0")  # fmt: skip
TINY = Experiment("Pong-v0", 0.001, (0, 1), {"plain": FLAGS, "vtrace": (*FLAGS, "--correction", "vtrace")},
                  episodes=2, sampled_steps=20)  # fmt: skip


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
    assert set(record["settings"]) == {"plain", "vtrace"}
    for setting, found in record["settings"].items():
        assert set(found["runs"]) == {"0", "1"}
        for seed, run in found["runs"].items():
            config = json.loads(
                (directory / "train_log" / "learning" / "tiny" / f"{setting}-{seed}" / "config.json").read_text()
            )
            assert config["seed"] == int(seed)
            assert (config["correction"] == "vtrace") == (setting == "vtrace")
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
    output = directory / "train_log" / "learning" / "tiny" / "plain-0"
    minutes = learning.curve(output)[-1]["train_minutes"]
    learning.train("Pong-v0", FLAGS, 0, minutes + 0.001, output)
    continued = learning.curve(output)
    assert continued[-1]["train_minutes"] >= minutes + 0.001
    assert continued[0] == json.loads(before)["settings"]["plain"]["runs"]["0"]["curve"][0]


def test_a_run_that_ends_early_says_where_to_look(directory):
    with pytest.raises(RuntimeError, match=r"output\.txt"):
        learning.train("Pong-v0", ("--batch-size", "0"), 0, 1.0, directory / "broken")
    assert "--batch-size 0 is out of range" in (directory / "broken" / "output.txt").read_text()


def test_sigterm_ends_the_training_too(tmp_path):
    waiting = tmp_path / "waiting.py"
    waiting.write_text(f"import pathlib, time; pathlib.Path({str(tmp_path / 'waits')!r}).touch(); time.sleep(600)")
    script = tmp_path / "experiment.py"
    script.write_text(
        f"import pathlib, sys; sys.path.insert(0, {str(command_line.ROOT)!r}); import bench.learning as learning\n"
        f"learning._SCRIPT = pathlib.Path({str(waiting)!r}); learning.main()"
    )
    run = command_line.start("queue", script=str(script), cwd=tmp_path)
    wait_until((tmp_path / "waits").exists, 60)
    run.process.send_signal(signal.SIGTERM)
    run.finish(60)
    assert run.process.returncode == 128 + signal.SIGTERM
    assert run.wait_all_gone(3)


def curve_of(scores: list[float]) -> list[dict]:
    return [
        {"steps": 1e6 * i, "emulator_frames": 3e6 * i, "train_minutes": i, "online_score": score}
        for i, score in enumerate(scores, start=1)
    ]


def run_of(mean: float) -> dict:
    final = {"mean": mean, "train_minutes": 3.0, "steps": 10}
    return {"final": final, "curve": curve_of([mean - 2, mean - 1, mean])}


def test_rows_and_the_drawing(tmp_path):
    record = {
        "env": "Pong-v0",
        "settings": {
            "three": {"flags": "", "runs": {str(seed): run_of(mean) for seed, mean in enumerate([1.0, 2.0, 6.0])}},
            "one": {"flags": "", "runs": {"0": run_of(-5.0)}},
        },
    }
    three, one = learning.rows(record)
    assert (three["seeds"], three["mean"], three["least"], three["most"]) == (3, 3.0, 1.0, 6.0)
    assert three["stderr of seeds"] == pytest.approx(np.std([1, 2, 6], ddof=1) / np.sqrt(3))
    assert one["stderr of seeds"] is None
    learning.draw(record, tmp_path / "a.png")
    image = cv2.imread(str(tmp_path / "a.png"))
    record["settings"]["one"]["runs"]["0"] = run_of(-9.0)
    learning.draw(record, tmp_path / "b.png")
    assert image.std() > 10
    assert (image != cv2.imread(str(tmp_path / "b.png"))).any()  # it shows what was measured


@pytest.mark.parametrize("name", learning.EXPERIMENTS)
def test_the_experiments_flags_are_the_command_lines(name):
    experiment = learning.EXPERIMENTS[name]
    for flags in experiment.settings.values():
        parse_args(["--env", experiment.env, *flags]).resolve(cores=2, num_gpus=0)
