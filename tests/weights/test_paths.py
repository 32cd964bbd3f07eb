"""Which models the paths after --load stand for."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from a3c.errors import UsageError
from a3c.weights.model_file import read_model, write_arrays, write_model
from a3c.weights.paths import choose, expand

import numpy as np
import pytest
import tensorflow as tf
from model_files import small_variables
from tensorpack import tfv1

BATCH = {"state": np.zeros((2, 84, 84, 12), np.uint8), "mu": np.ones(2, np.float32)}


def put(directory: Path, *names: str) -> None:
    """Write models of these names; a name that begins with "batch" is a batch, and with "cut" half of a model."""
    directory.mkdir(exist_ok=True)
    for name in names:
        path = directory / name
        if name.startswith("batch"):
            write_arrays(path, BATCH)
            continue
        write_model(path, small_variables(), {})
        if name.startswith("cut"):
            path.write_bytes(path.read_bytes()[:5000])


def save(directory: Path, *steps: int, name: str = "model", **options) -> None:
    """Write checkpoints."""
    directory.mkdir(exist_ok=True)
    with tf.Graph().as_default(), tfv1.Session() as session:
        for variable, value in small_variables().items():
            tfv1.get_variable(variable, initializer=value)
        session.run(tfv1.global_variables_initializer())
        saver = tfv1.train.Saver(max_to_keep=None, save_relative_paths=True, **options)
        for step in steps:
            saver.save(session, str(directory / name), step)


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A directory of two checkpoints."""
    directory = tmp_path_factory.mktemp("saved")
    save(directory, 10, 8)
    return directory


def refusal(ask, path) -> str:
    with pytest.raises(UsageError) as raised:
        ask(path)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def expand_one(path) -> list[str]:
    return expand((str(path),))


def test_expand_lists_a_directorys_models(tmp_path):
    put(tmp_path, "b.npz", "a.npz")
    (tmp_path / "other.txt").touch()
    (tmp_path / "directory.npz").mkdir()
    (tmp_path / "model-6.index").touch()
    named = (str(tmp_path / "b.npz"), str(tmp_path), str(tmp_path / "model-6"))
    assert expand(named) == [str(tmp_path / name) for name in ("b.npz", "a.npz", "b.npz", "model-6")]
    assert "none.npz" in refusal(expand_one, tmp_path / "none.npz")


def test_what_is_no_model_is_left_out_and_told(tmp_path, capsys):
    put(tmp_path, "Pong-v0.npz", "batch-of-update-3.npz", "Pong-v0-best.npz")
    np.savez(tmp_path / "nothing.npz")
    np.savez(tmp_path / "published.npz", **{f"{name}:0": value for name, value in small_variables().items()})
    found = [str(tmp_path / f"{name}.npz") for name in ("Pong-v0-best", "Pong-v0", "published")]
    assert expand_one(tmp_path) == found
    others = ", ".join(str(tmp_path / f"{name}.npz") for name in ("batch-of-update-3", "nothing"))
    assert capsys.readouterr().out == f"left out, as no model: {others}\n"


def test_a_directory_of_models_alone_is_listed_in_silence(tmp_path, capsys):
    put(tmp_path, "Pong-v0.npz")
    expand_one(tmp_path)
    assert capsys.readouterr().out == ""


def test_what_is_damaged_is_not_left_out(tmp_path):
    put(tmp_path, "Pong-v0.npz", "cut.npz")
    (tmp_path / "page.npz").write_text("<html>")
    names = ("Pong-v0.npz", "cut.npz", "page.npz")
    assert expand_one(tmp_path) == [str(tmp_path / name) for name in names]


@pytest.mark.parametrize("ask", [expand_one, choose])
def test_a_directory_without_models_is_told(tmp_path, ask):
    assert f"no model file in {tmp_path}" in refusal(ask, str(tmp_path))
    put(tmp_path, "batch-of-update-3.npz")
    assert "no model: " + str(tmp_path / "batch-of-update-3.npz") in refusal(ask, str(tmp_path))


@pytest.mark.skipif(os.getuid() == 0, reason="root may read all")
def test_a_directory_that_may_not_be_read_is_told(tmp_path):
    tmp_path.chmod(0)
    try:
        assert "Permission denied" in refusal(choose, str(tmp_path))
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["Pong-v0.npz", "Pong-v0-best.npz", "batch-of-update-3.npz"], "Pong-v0.npz"),
        (["Pong-v0.npz"], "Pong-v0.npz"),
        (["Pong-v0-best.npz"], "Pong-v0-best.npz"),
        (["seconds-best.npz", "batch-of-update-3.npz"], "seconds-best.npz"),
        (["cut.npz", "batch.npz"], "cut.npz"),
    ],
)
def test_a_run_stands_for_its_newest_weights(tmp_path, capsys, names, chosen):
    put(tmp_path, *names)
    assert choose(str(tmp_path)) == str(tmp_path / chosen)
    told = capsys.readouterr().out.splitlines()[-1]
    assert told.startswith(f"{tmp_path} stands for {tmp_path / chosen}")
    assert ("Pong-v0-best.npz is the one with the best evaluation" in told) == (len(names) == 3)


def test_several_games_are_listed_to_choose_from(tmp_path):
    put(tmp_path, "Pong-v0.npz", "Pong-v0-best.npz", "Breakout-v0.npz")
    told = refusal(choose, str(tmp_path))
    assert told.endswith(f"name one of {tmp_path / 'Breakout-v0.npz'}, {tmp_path / 'Pong-v0.npz'}")


def test_a_long_list_is_cut(tmp_path):
    for number in range(47):
        (tmp_path / f"{number:02}.npz").touch()
    told = refusal(choose, str(tmp_path))
    assert told.endswith(f"{tmp_path / '09.npz'} and 37 more")


@pytest.mark.parametrize("ask", [lambda path: expand_one(path)[0], choose])
@pytest.mark.parametrize(
    "name",
    [
        "model-10",
        "model-10.index",
        "model-10.meta",
        "model-10.data-00000-of-00001",
        ".",
        "checkpoint",
        "../{}/model-10",
    ],
)
def test_a_part_stands_for_the_checkpoint(saved, ask, name):
    path = saved / name.format(saved.name)
    assert os.path.samefile(f"{ask(str(path))}.index", saved / "model-10.index")


def test_a_directory_stands_for_its_newest_whole_checkpoint(saved, tmp_path):
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    (tmp_path / "model-10.data-00000-of-00001").write_bytes(b"")
    for path in (tmp_path, tmp_path / "checkpoint"):
        assert expand_one(path) == [str(tmp_path / "model-8")]
    assert choose(str(tmp_path)) == str(tmp_path / "model-8")
    (tmp_path / "model-8.index").write_bytes(b"")
    assert "none of the 2 checkpoints" in refusal(choose, str(tmp_path))


def test_models_come_before_checkpoints(saved, tmp_path):
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    put(tmp_path, "batch-of-update-11.npz")
    assert choose(str(tmp_path)) == str(tmp_path / "model-10")
    put(tmp_path, "Pong-v0.npz")
    assert choose(str(tmp_path)) == str(tmp_path / "Pong-v0.npz")
    assert expand_one(tmp_path) == [str(tmp_path / "Pong-v0.npz")]


def test_other_programs_checkpoints_are_found(tmp_path):
    save(tmp_path, 7, 5, name="model.ckpt")
    assert choose(str(tmp_path)) == str(tmp_path / "model.ckpt-5")  # the last that was saved
    state = tmp_path / "checkpoint"
    state.write_text(state.read_text().replace('"model.ckpt-5"', '"/another/machine/model.ckpt-7"'))
    assert choose(str(tmp_path)) == choose(str(state)) == str(tmp_path / "model.ckpt-7")
    state.write_bytes(b"\xff\x00")
    assert expand_one(tmp_path) == [str(tmp_path / "model.ckpt-5"), str(tmp_path / "model.ckpt-7")]
    assert "name one of" in refusal(choose, str(state))


def test_a_part_whose_index_is_missing_is_told(saved, tmp_path):
    for name in ("model-10.data-00000-of-00001", "model-10.meta"):
        shutil.copy(saved / name, tmp_path)
        assert f"{tmp_path / 'model-10.index'} is missing" in refusal(choose, str(tmp_path / name))
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model-10"\n')
    assert "names no checkpoint" in refusal(choose, str(tmp_path / "checkpoint"))


def test_checkpoints_of_the_first_format_are_read(tmp_path):
    save(tmp_path, 3, write_version=tfv1.train.SaverDef.V1)
    for name in ("model-3", "model-3.meta"):
        model = read_model(choose(str(tmp_path / name)))
        assert model.path == str(tmp_path / "model-3")
        np.testing.assert_array_equal(model.variables["fc-pi/W"], small_variables()["fc-pi/W"])


@pytest.mark.parametrize(("name", "told"), [("model-10", ""), ("model-10.index", "{0}.index stands for {0}\n")])
def test_what_is_used_is_told_where_it_has_another_name(saved, capsys, name, told):
    choose(str(saved / name))
    assert capsys.readouterr().out == told.format(saved / "model-10")


@pytest.mark.parametrize("ask", [lambda path: expand_one(path)[0], choose])
def test_an_npz_may_be_named_without_its_suffix(tmp_path, ask):
    put(tmp_path, "Pong-v0.npz")
    assert ask(str(tmp_path / "Pong-v0")) == str(tmp_path / "Pong-v0.npz")
    (tmp_path / "Pong-v0").mkdir()
    assert "no model file in" in refusal(ask, str(tmp_path / "Pong-v0"))  # what has the very name comes first


@pytest.mark.parametrize("name", ["", "none", "none.npz", "none.index", "none/", "x" * 5000])
def test_what_is_not_there_is_told(monkeypatch, tmp_path, name):
    monkeypatch.chdir(tmp_path)
    assert "no model file" in refusal(choose, name)
    assert "no model file" in refusal(expand_one, name)


@pytest.mark.parametrize("name", ["run[seed=0]", "run*", "run?", "a{b,c}", "back\\slash", "sp ace", "$HOME", "ü", "~"])
def test_no_name_of_a_directory_is_a_pattern(saved, tmp_path, name):
    run = tmp_path / name
    shutil.copytree(saved, run)
    for path in (run, run / "model-10", run / "model-10.index", run / "checkpoint"):
        assert choose(str(path)) == expand_one(path)[0] == str(run / "model-10")
    model = read_model(str(run / "model-10"))
    np.testing.assert_array_equal(model.variables["fc-pi/W"], small_variables()["fc-pi/W"])
    put(run, "Pong-v0.npz")
    assert choose(str(run)) == expand_one(run)[0] == str(run / "Pong-v0.npz")


def test_a_checkpoint_whose_own_name_is_a_pattern_is_told(saved, tmp_path):
    for part in ("index", "data-00000-of-00001"):
        shutil.copy(saved / f"model-10.{part}", tmp_path / f"best[1].{part}")
    path = choose(str(tmp_path / "best[1]"))
    assert "rename" in refusal(read_model, path)
