"""Model files, good and bad, and the policies that they hold."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from pathlib import Path

from a3c.errors import UsageError
from a3c.weights import model_file
from a3c.weights.model_file import check_model, environment_of, read_model, write_model
from atari_wrapper import Protocol

import numpy as np
import pytest
import tensorflow as tf
from golden import golden_variables
from model_files import (
    ACTIONS,
    GOOD,
    STORED,
    assert_same_variables,
    nature_variables,
    npy_bytes,
    refusal,
    small_variables,
    zip_bytes,
)
from tensorpack import tfv1


def test_nature_is_told_by_its_shapes(file):
    np.savez(file, **nature_variables())
    model = read_model(str(file))
    assert model.network == "nature"
    assert_same_variables(model.variables, nature_variables())


def test_round_trip(file):
    variables, metadata = small_variables(6), {"network": "small", "env": "Pong-v0", "online_score": 20.5}
    write_model(file, variables, metadata)
    model = read_model(str(file))
    assert model[2:5] == ("small", 6, metadata)
    assert model.path == str(file)
    assert_same_variables(model.variables, variables)
    assert [path.name for path in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize("suffix", ["", ":0"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_published_files_have_no_metadata(file, suffix, save):
    variables = small_variables()
    extra = {f"global_step{suffix}": np.int64(7), f"EMA/cost{suffix}": np.array("text"), "learning_rate": np.float32(1)}
    save(file, **{name + suffix: value for name, value in variables.items()}, **extra)
    model = read_model(str(file))
    assert model[2:5] == ("small", 4, {})
    assert_same_variables(model.variables, variables)


def test_float64_weights_are_taken(file):
    variables = small_variables()
    np.savez(file, **{name: value.astype(np.float64) for name, value in variables.items()})
    assert_same_variables(read_model(str(file)).variables, variables)


def replaced(**changes) -> dict:
    """A good model's arrays but for some: None takes one away; a name's slash is written as two underscores."""
    changes = {name.replace("__", "/").replace("_", "-"): value for name, value in changes.items()}
    return {name: value for name, value in (small_variables() | changes).items() if value is not None}


def with_nan(name: str, value: float) -> np.ndarray:
    array = small_variables()[name]
    array.flat[-1] = value
    return array


WRONG_ARRAYS = {
    "empty": ({}, "no network"),
    "variable missing": (replaced(conv1__W=None), "conv1/W is missing"),
    "nature without its mean": (
        {name: value for name, value in nature_variables().items() if name != "input/mean"},
        "as nature, input/mean is missing",
    ),
    "nature over one colour": (
        nature_variables() | {"conv0/W": np.zeros((8, 8, 4, 32)), "input/axis": np.zeros(3)},
        "nature over one colour, which was removed; commit d80910a reads it",
    ),
    "small-ln": (
        replaced(metadata=np.array('{"network": "small-ln"}')),
        "small-ln, which was removed; commit d80910a reads it",
    ),
    "no policy": (replaced(fc_pi__b=None), "fc-pi/b"),
    "policy's bias is a scalar": (replaced(fc_pi__b=np.float32(1)), "fc-pi/b"),
    "policy of no actions": (replaced(fc_pi__b=np.zeros(0, np.float32)), "fc-pi/b"),
    "weights and bias disagree": (replaced(fc_pi__b=np.zeros(6, np.float32)), "fc-pi/W is (256, 4) and not (256, 6)"),
    "transposed": (replaced(fc_pi__W=GOOD["fc-pi/W"].T), "fc-pi/W is (4, 256) and not (256, 4)"),
    "same size, other shape": (replaced(conv0__W=GOOD["conv0/W"].reshape(8, 8, 16, 12)), "conv0/W is (8, 8, 16, 12)"),
    "flattened": (replaced(fc_v__W=GOOD["fc-v/W"][:, 0]), "fc-v/W is (256,) and not (256, 1)"),
    "NaN": (replaced(conv1__W=with_nan("conv1/W", np.nan)), "not finite"),
    "infinity": (replaced(fc_v__b=with_nan("fc-v/b", np.inf)), "not finite"),
    "object array": (replaced(fc_v__b=np.array([{}], object)), "Object arrays cannot be loaded"),
    "text for weights": (replaced(fc_v__b=np.array(["one"])), "Pong-v0.npz"),
    "metadata is no JSON": (replaced(metadata=np.array("{")), "metadata"),
    "metadata is no object": (replaced(metadata=np.array("[]")), "metadata"),
    "metadata is null": (replaced(metadata=np.array("null")), "metadata"),
}


@pytest.mark.parametrize(("arrays", "reason"), WRONG_ARRAYS.values(), ids=WRONG_ARRAYS)
def test_wrong_arrays_are_refused(file, arrays, reason):
    np.savez(file, **arrays)
    assert reason in refusal(file)


def corrupt(content: bytes, at: int, by: bytes) -> bytes:
    return content[:at] + by + content[at + len(by) :]


DEFLATED = zip_bytes({"fc-pi/b.npy": npy_bytes(np.zeros(1000))}, zipfile.ZIP_DEFLATED)
FIRST_DATA_BYTE = 30 + len("fc-pi/b.npy")  # after the archive's first header
UNCLOSED_HEADER = npy_bytes(np.zeros(4)).replace(b"), }", b"(, }")
LONG_HEADER = b"\x93NUMPY\x02\x00" + (20_000).to_bytes(4, "little") + b" " * 19_999 + b"\n"
CORRUPT_FILES = {
    "empty": b"",
    "text": b"not a model\n",
    "cut in the middle": STORED[: len(STORED) // 2],
    "cut at the end": STORED[:-1],
    "cut at the start": STORED[1000:],
    "stored data changed": corrupt(STORED, len(STORED) // 2, b"\x00\xff" * 50),
    "compressed data changed": corrupt(DEFLATED, FIRST_DATA_BYTE, b"\xff"),
    "unknown compression": corrupt(STORED, STORED.rindex(b"PK\x01\x02") + 10, b"\x63"),
    "array without archive": npy_bytes(np.zeros(3)),
    "pickle": pickle.dumps(GOOD),
    "member is no array": zip_bytes({"fc-pi/b": b"hello"}),
    "member's header never closes": zip_bytes({"fc-pi/b.npy": UNCLOSED_HEADER}),
    "member's header is long": zip_bytes({"fc-pi/b.npy": LONG_HEADER}),
}


@pytest.mark.parametrize("content", CORRUPT_FILES.values(), ids=CORRUPT_FILES)
def test_corrupt_files_are_refused(file, content):
    file.write_bytes(content)
    refusal(file)


class Bomb:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_no_pickle_is_ever_loaded(file, tmp_path):
    bomb = Bomb(tmp_path / "exploded")
    np.savez(file, **replaced(fc_v__b=np.array([bomb], object), metadata=np.array(bomb, object)))
    refusal(file)
    file.write_bytes(pickle.dumps(bomb))
    refusal(file)
    assert not bomb.path.exists()
    pickle.loads(pickle.dumps(bomb))
    assert bomb.path.exists()


@pytest.mark.parametrize("name", ["none.npz", "none", "none.index", "", "model-6000.data-00000-of-00001"])
def test_missing_file_is_told(tmp_path, name):
    path = tmp_path / name
    assert "no model file" in refusal(path)


def test_an_interrupted_write_leaves_the_old_file_whole(file, monkeypatch):
    variables = small_variables()
    write_model(file, variables, {"network": "small", "updates": 1})

    def interrupted(target, **arrays):
        target.write(STORED[:1000])
        target.flush()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(model_file.np, "savez", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_model(file, small_variables(seed=1), {"network": "small", "updates": 2})
    model = read_model(str(file))
    assert model.metadata["updates"] == 1
    assert_same_variables(model.variables, variables)
    write_model(file, small_variables(seed=1), {"network": "small", "updates": 3})
    assert read_model(str(file)).metadata["updates"] == 3
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_model_is_written_to_disk_before_it_takes_the_name(file, monkeypatch):
    events = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append("fsync"), fsync(fd)))
    monkeypatch.setattr(Path, "replace", lambda path, to: (events.append("replace"), replace(path, to))[1])
    write_model(file, small_variables(), {})
    assert events == ["fsync", "replace"]


# TensorFlow checkpoints


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """The prefix of a checkpoint such as tensorpack's ModelSaver writes."""
    prefix = tmp_path_factory.mktemp("run") / "model-6000"
    with tf.Graph().as_default(), tfv1.Session() as session:
        for name, value in small_variables().items():
            tfv1.get_variable(name, initializer=value)
            tfv1.get_variable(f"{name}/Adam", initializer=np.zeros_like(value))
        tfv1.get_variable("global_step", initializer=np.int64(6000))
        session.run(tfv1.global_variables_initializer())
        tfv1.train.Saver().save(session, str(prefix), write_meta_graph=False)
    return prefix


def test_checkpoint_is_read(checkpoint):
    model = read_model(str(checkpoint))
    assert model[2:5] == ("small", 4, {})
    assert_same_variables(model.variables, small_variables())


def test_checkpoint_of_the_original_network_is_read(tmp_path):
    variables = golden_variables()
    with tf.Graph().as_default(), tfv1.Session() as session:
        for name, value in variables.items():
            tfv1.get_variable(name, initializer=value)
        session.run(tfv1.global_variables_initializer())
        tfv1.train.Saver().save(session, str(tmp_path / "model-1"), write_meta_graph=False)
    model = read_model(str(tmp_path / "model-1"))
    assert model[2:5] == ("batch-a3c", 4, {})
    assert_same_variables(model.variables, variables)


@pytest.fixture
def copied(checkpoint, tmp_path) -> Path:
    """The same in a directory of its own."""
    for file in checkpoint.parent.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path / checkpoint.name


def test_a_runs_checkpoint_is_what_its_configuration_says(copied):
    config = copied.with_name("config.json")
    config.write_text(json.dumps({"env": "Pong-v0", "network": "small", "seed": 3}))
    assert read_model(str(copied))[2:5] == ("small", 4, {"env": "Pong-v0", "network": "small"})
    config.write_text(json.dumps({"env": "Pong-v0", "network": "small-ln", "seed": 3}))
    assert "small-ln, which was removed; commit d80910a reads it" in refusal(copied)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"env": "Pong-v0"}', '{"env": 1, "network": []}', "\ud800"])
def test_a_configuration_of_another_kind_says_nothing(copied, text):
    copied.with_name("config.json").write_bytes(text.encode(errors="surrogatepass"))
    assert read_model(str(copied))[2:5] == ("small", 4, {})


@pytest.mark.parametrize("part", [".index", ".data-00000-of-00001"])
@pytest.mark.parametrize("keep", [0, 100])
def test_corrupt_checkpoint_is_refused(copied, part, keep):
    damaged = copied.with_name(copied.name + part)
    damaged.write_bytes(damaged.read_bytes()[:keep])
    refusal(copied)


def test_checkpoint_without_its_data_is_refused(checkpoint, tmp_path):
    (tmp_path / "model-1.index").write_bytes(checkpoint.with_suffix(".index").read_bytes())
    refusal(tmp_path / "model-1")


# what a file says


@pytest.mark.parametrize(
    ("said", "env", "used"),
    [("Pong-v0", None, "Pong-v0"), ("Pong-v0", "Pong-v0", "Pong-v0"), (None, "Pong-v0", "Pong-v0")],
)
def test_the_environment_is_what_the_file_says(file, said, env, used):
    write_model(file, small_variables(), {"env": said} if said else {})
    assert environment_of(read_model(str(file)), env) == used


@pytest.mark.parametrize(
    ("said", "env", "told"),
    [("Pong-v0", "Breakout-v0", "trained on Pong-v0"), (None, None, "add --env")],
)
def test_a_conflicting_or_unknown_environment_is_refused(file, said, env, told):
    write_model(file, small_variables(), {"env": said} if said else {})
    with pytest.raises(UsageError, match=told) as raised:
        environment_of(read_model(str(file)), env)
    assert str(file) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("name", "example"), [("Seaquest-v0", "Seaquest-v0"), ("weights", "Breakout-v0")])
def test_a_file_that_does_not_say_its_game_may_be_named_after_it(tmp_path, name, example):
    write_model(tmp_path / f"{name}.npz", small_variables(), {})
    with pytest.raises(UsageError, match=f"--env {example}"):
        environment_of(read_model(str(tmp_path / f"{name}.npz")), None)


# check_model and FilePolicy


@pytest.mark.parametrize(
    ("num_actions", "network", "reason"),
    [
        (4, "auto", None),
        (4, "small", None),
        (4, "batch-a3c", "--network"),
        (3, "auto", "--env"),
        (5, "small", "--env"),
    ],
)
def test_check_model(file, num_actions, network, reason):
    write_model(file, small_variables(), {})
    protocol = Protocol("Fake-v0", (2, 4), 0.25, (*ACTIONS, "UP")[:num_actions], 60_000, 240_000)
    if reason is None:
        assert check_model(read_model(str(file)), protocol, network) is None
        return
    with pytest.raises(UsageError, match=reason) as raised:
        check_model(read_model(str(file)), protocol, network)
    assert "\n" not in str(raised.value)
