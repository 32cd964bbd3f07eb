"""Who may begin or continue a run in a directory, and what is left there."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from a3c.config import Config
from a3c.errors import UsageError
from a3c.learning.run_directory import RunDirectory

import pytest
import tensorflow as tf
from tensorpack import tfv1


def config_of(path: Path, **options) -> Config:
    return dataclasses.replace(Config(env="Pong-v0", output=(str(path),), network="small"), **options)


def save_checkpoint(directory: Path, step: int = 8) -> None:
    with tf.Graph().as_default(), tfv1.Session() as session:
        session.run(tfv1.get_variable("v", initializer=1.0).initializer)
        tfv1.train.Saver().save(session, str(directory / "model"), step, write_meta_graph=False)


def train(directory: RunDirectory, fail: bool = False) -> None:
    """What a training does there."""
    with directory.claimed():
        (directory.path / "log.log").touch()
        directory.begin()
        save_checkpoint(directory.path, 0)
        directory.model.touch()
        if fail:
            raise ZeroDivisionError
        directory.trained = True


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def refusal(path: Path, **options) -> str:
    before = names(path) if path.is_dir() else None
    with pytest.raises(UsageError) as caught, RunDirectory(config_of(path, **options)).claimed():
        pytest.fail("it was not refused")
    assert (names(path) if path.is_dir() else None) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_run_that_was_trained_stays_and_is_continued(tmp_path):
    train(RunDirectory(config_of(tmp_path / "a" / "run")))
    path = tmp_path / "a" / "run"
    assert {"config.json", "model-0.index", "Pong-v0.npz", "log.log"} <= names(path)
    assert ".train.lock" not in names(path)
    assert "--resume" in refusal(path)
    again = RunDirectory(config_of(path, resume=True))
    with again.claimed():
        assert again.checkpoint == str(path / "model-0")
    assert {"config.json", "model-0.index", "Pong-v0.npz"} <= names(path)


def test_a_run_that_is_resumed_still_says_what_it_began_with(tmp_path):
    path = tmp_path / "run"
    train(RunDirectory(config_of(path, load=("weights.npz",))))
    for _ in range(2):
        train(RunDirectory(config_of(path, resume=True)))
        assert json.loads((path / "config.json").read_text())["load"] == ["weights.npz"]
        assert config_of(path, resume=True).saved().load == ()  # and loads none


def test_nothing_is_left_by_a_run_that_never_trained(tmp_path):
    path = tmp_path / "new" / "run"
    with pytest.raises(ZeroDivisionError):
        train(RunDirectory(config_of(path)), fail=True)
    assert names(tmp_path) == set()
    train(RunDirectory(config_of(path)))  # the same, mended


def test_what_was_there_before_stays(tmp_path):
    mine = ("notes.txt", "model-notes.txt", "log.log", "hyper.txt", "events.out.tfevents.1.host")
    for name in mine:
        (tmp_path / name).write_text("mine")
    with pytest.raises(ZeroDivisionError):
        train(RunDirectory(config_of(tmp_path)), fail=True)
    assert names(tmp_path) == set(mine)


def test_a_run_killed_before_its_first_checkpoint_is_none(tmp_path):
    (tmp_path / "config.json").write_text(config_of(tmp_path).as_json())
    assert "no run to resume" in refusal(tmp_path, resume=True)
    train(RunDirectory(config_of(tmp_path)))


@pytest.mark.parametrize("name", ["Pong-v0.npz", "Pong-v0-best.npz", "stats.json", "config.json", "checkpoint",
                                  "learning_curve.png"])  # fmt: skip
def test_what_a_training_would_write_over_is_not_written_over(tmp_path, name):
    (tmp_path / name).write_text('{"mine": 1}')
    assert name in refusal(tmp_path)


def test_models_of_other_games_are_in_nobodys_way(tmp_path):
    (tmp_path / "Breakout-v0.npz").touch()
    train(RunDirectory(config_of(tmp_path)))


def test_nothing_to_resume(tmp_path):
    assert "no run to resume" in refusal(tmp_path / "nowhere", resume=True)
    assert "no run to resume" in refusal(tmp_path, resume=True)
    assert names(tmp_path) == set()


def test_checkpoints_that_do_not_say_what_they_are(tmp_path):
    save_checkpoint(tmp_path)
    assert "config.json" in refusal(tmp_path, resume=True)


def test_a_file_is_no_directory(tmp_path):
    (tmp_path / "file").touch()
    assert "it is no directory" in refusal(tmp_path / "file")


def test_only_one_trains_there(tmp_path):
    with RunDirectory(config_of(tmp_path)).claimed():
        with pytest.raises(UsageError, match="in use by process"), RunDirectory(config_of(tmp_path)).claimed():
            pytest.fail("it was not refused")
        with pytest.raises(UsageError, match="in use"), RunDirectory(config_of(tmp_path, resume=True)).claimed():
            pytest.fail("it was not refused")
