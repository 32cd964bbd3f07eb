"""Which checkpoints are kept and found; the statistics of a run that resumes. Saving itself: tests/faults/saving.py."""

from __future__ import annotations

import json
import logging
import sys

from a3c.config import Config
from a3c.errors import RunError, UsageError
from a3c.learning.checkpoint import disk_errors_told, mend_stats, remove_old
from a3c.learning.progress import read_progress
from a3c.weights.checkpoints import newest_whole, plain_name, read_variables, saved_steps

import numpy as np
import pytest
import tensorflow as tf
from tensorpack import tfv1
from tensorpack.tfutils.sessinit import SaverRestore


@pytest.fixture
def save(tmp_path):
    """Makes checkpoints of these steps, in their order."""

    def save(*steps: int) -> None:
        with tf.Graph().as_default(), tfv1.Session() as session:
            variable = tfv1.get_variable("v", initializer=np.arange(1000, dtype=np.float32))
            session.run(variable.initializer)
            saver = tfv1.train.Saver(max_to_keep=None)
            for step in steps:
                saver.save(session, str(tmp_path / "model"), step, write_meta_graph=False)

    return save


def names(directory) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_steps_are_sorted_as_numbers(save, tmp_path):
    assert saved_steps(tmp_path) == []
    save(1000, 8, 96)
    assert saved_steps(tmp_path) == [8, 96, 1000]


def test_the_newest_are_kept_and_what_failed_saves_left_is_removed(save, tmp_path):
    save(8, 96, 1000)
    (tmp_path / "model-2000.data-00000-of-00001").touch()
    (tmp_path / "model-1000.data-00000-of-00001.tempstate42").touch()
    (tmp_path / "Pong-v0.npz").touch()
    remove_old(tmp_path, 2, 1000)
    assert names(tmp_path) == {
        "checkpoint", "Pong-v0.npz", *(f"model-{step}.{part}" for step in (96, 1000) for part in
                                       ("index", "data-00000-of-00001")),
    }  # fmt: skip


def test_what_was_just_saved_is_kept_and_a_damaged_later_one_goes(save, tmp_path):
    save(8, 16, 24)  # 24 is damaged, and the run went on from 8 to 16
    remove_old(tmp_path, 2, 16)
    assert saved_steps(tmp_path) == [8, 16]
    save(24)
    remove_old(tmp_path, 1, 16)
    assert saved_steps(tmp_path) == [16]


def test_a_run_of_nature_over_one_colour_is_not_resumed(tmp_path):
    with tf.Graph().as_default(), tfv1.Session() as session:
        weights = tfv1.get_variable("conv0/W", [8, 8, 4, 32])
        session.run(weights.initializer)
        prefix = tfv1.train.Saver().save(session, str(tmp_path / "model"), 8, write_meta_graph=False)
    with pytest.raises(UsageError, match=r"nature over one colour, which was removed; commit d80910a reads it$"):
        read_progress(prefix, Config(network="nature"), 6, 1)


NOT_OURS = (
    "model-notes.txt", "model-backup/weights.txt", "model-8.txt", "model-8", "model-8.index.bak", "model-8.data",
    "model-8.data-00000-of-00001.gz", "model-final.index", "model-.index", "model--8.index", "model-8_temp/part-0",
    "model-2000.index/file", "model-8.meta", "my-model-8.index", "model-8.data-0-of-1", "model-8.index.tempstate",
)  # fmt: skip


def test_nothing_else_is_ever_removed(save, tmp_path):
    save(8, 16, 24)
    for name in NOT_OURS:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    remove_old(tmp_path, 1, 24)
    assert saved_steps(tmp_path) == [24]
    assert [name for name in NOT_OURS if not (tmp_path / name).is_file()] == []


@pytest.mark.parametrize("name", ["run[seed=0]", "a*b?", "back\\slash", "run.index", "x.data-00000-of-00001", "plain"])
def test_a_checkpoint_is_read_whatever_its_directorys_name(save, tmp_path, name):
    save(8)
    directory = tmp_path / name
    directory.mkdir()
    for file in tmp_path.glob("model-8.*"):
        file.rename(directory / file.name)
    prefix = newest_whole(directory)
    assert prefix == str(directory / "model-8")
    with plain_name(prefix) as readable, tf.Graph().as_default(), tfv1.Session() as session:
        variable = tfv1.get_variable("v", [1000])
        SaverRestore(readable).init(session)
        np.testing.assert_array_equal(session.run(variable), np.arange(1000))


def test_nothing_saved(tmp_path):
    assert newest_whole(tmp_path) is None


@pytest.mark.parametrize("part", ["index", "data-00000-of-00001"])
@pytest.mark.parametrize("damage", ["empty", "cut", "changed", "missing"])
def test_a_damaged_checkpoint_is_passed_over(save, tmp_path, part, damage):
    save(8, 16)
    path = tmp_path / f"model-16.{part}"
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        middle = len(content) // 2
        changed = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        path.write_bytes({"empty": b"", "cut": content[:middle], "changed": changed}[damage])
    assert newest_whole(tmp_path) == str(tmp_path / "model-8")


def test_a_checkpoint_whose_own_name_is_a_pattern_is_told():
    with pytest.raises(UsageError, match="rename its files"), plain_name("run/best[1]"):
        pass


def test_a_tensorflow_that_cannot_be_loaded_is_told(save, tmp_path, monkeypatch):
    save(8)
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    for read in (lambda: newest_whole(tmp_path), lambda: read_variables(str(tmp_path / "model-8"), {"v"})):
        with pytest.raises(RunError, match=r"a package cannot be loaded: .*tensorflow.*--task doctor"):
            read()


def test_some_variables_are_read(save, tmp_path):
    save(8)
    read = read_variables(str(tmp_path / "model-8"), {"v", "w"})
    assert [*read] == ["v"]
    np.testing.assert_array_equal(read["v"], np.arange(1000))
    assert read_variables(str(tmp_path / "model-8"), {"w"}) == {}


def test_none_is_whole(save, tmp_path):
    save(8)
    (tmp_path / "model-8.data-00000-of-00001").write_bytes(b"")
    with pytest.raises(UsageError, match="none of the 1 checkpoints"):
        newest_whole(tmp_path)


RECORDS = [{"epoch_num": epoch, "global_step": 8 * epoch, "entropy": 1.5} for epoch in (1, 2, 3)]
STATS = json.dumps(RECORDS)


@pytest.mark.parametrize(
    ("text", "step", "kept", "aside"),
    [
        (STATS, 24, 3, False),
        (STATS, 29, 3, False),
        (STATS, 23, 2, True),
        (STATS[:-1], 24, 3, True),
        (STATS[:-5], 24, 2, True),
        (STATS[: len(STATS) // 2], 24, 1, True),
        ("[", 24, 0, True),
        ("", 24, 0, True),
        ("\x00\x01", 24, 0, True),
        ("null", 24, 0, True),
        (f"[1, {json.dumps(RECORDS[0])}]", 24, 1, True),
    ],
)
def test_statistics_end_where_the_run_resumes(tmp_path, text, step, kept, aside):
    path = tmp_path / "stats.json"
    path.write_text(text)
    mend_stats(tmp_path, step)
    assert json.loads(path.read_text()) == RECORDS[:kept]
    copies = names(tmp_path) - {"stats.json"}
    assert len(copies) == aside
    assert all((tmp_path / name).read_text() == text for name in copies)


def test_statistics_that_were_put_aside_stay(tmp_path):
    for _ in range(3):
        (tmp_path / "stats.json").write_text(STATS)
        mend_stats(tmp_path, 8)
    assert len(names(tmp_path)) == 4


def test_no_statistics_yet(tmp_path):
    mend_stats(tmp_path, 1)
    assert names(tmp_path) == set()


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), tf.errors.ResourceExhaustedError(None, None, "No space left")]
)
def test_errors_of_the_disk_are_told_in_one_line(error, caplog):
    with caplog.at_level(logging.ERROR), disk_errors_told("a file"):
        raise error
    (record,) = caplog.records or [None]
    assert "a file could not be written (No space left" in record.message
    assert "\n" not in record.message


def test_other_errors_are_not_held_back():
    with pytest.raises(ZeroDivisionError), disk_errors_told("a file"):
        raise ZeroDivisionError
