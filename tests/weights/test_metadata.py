"""What model files say of themselves, whoever wrote it, and how it is told."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from pathlib import Path

from a3c.errors import UsageError
from a3c.learning.callbacks import _origin_told_by, _score_of
from a3c.watch.player import facts
from a3c.weights import metadata as model_metadata
from a3c.weights.metadata import describe, parse
from a3c.weights.model_file import ModelFile, environment_of, origin, read_model, write_model
from atari_wrapper import Protocol

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_files import ACTIONS, small_variables

PROTOCOL = dataclasses.asdict(Protocol("Fake-v0", (2, 4), 0.25, ACTIONS, 60_000, 240_000))
TRAINING = {"steps": 5_000, "emulator_frames": 15_000, "updates": 20, "train_minutes": 7.5, "cores": 2, "seed": 3}
TRAINED = "5,000 steps (15,000 frames), 20 updates, 7.5 minutes on 2 cores, seed 3"
EVALUATION = {"mean": 5.25, "stderr": 0.5, "episodes": 20, "protocol": "greedy"}
METADATA = {
    "network": "small", "env": "Fake-v0", "protocol": PROTOCOL, **TRAINING,
    "begun_from": {"file": "Fake-v0.npz", **TRAINING}, "online_score": 4.5, "evaluation": EVALUATION,
    "versions": {"tensorflow": "2.21.0"},
}  # fmt: skip


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "Pong-v0.npz"


def holding(text: str) -> ModelFile:
    """A model whose file says this."""
    variables = {"fc-pi/b": np.zeros(4, np.float32)}
    return ModelFile("Pong-v0.npz", variables, "small", 4, *parse(text))


def lines_of(model: ModelFile) -> dict[str, str]:
    return {name: fact.strip() for name, fact in (line.split(":", 1) for line in describe(model).splitlines())}


def test_describe_tells_what_the_file_says(file):
    protocol = Protocol("Fake-v0", (2, 4), 0.25, ACTIONS, 60_000, 240_000)
    metadata = {
        "env": "Fake-v0", "protocol": dataclasses.asdict(protocol), "steps": 1_234_567, "emulator_frames": 3_700_000,
        "updates": 99, "train_minutes": 7.5, "cores": 2, "seed": 3, "online_score": 4.5,
        "evaluation": {"mean": 5.25, "stderr": 0.5, "episodes": 20, "protocol": "greedy"},
        "versions": {"tensorflow": "2.21.0"},
    }  # fmt: skip
    write_model(file, small_variables(), metadata)
    text = describe(read_model(str(file)))
    facts = (str(file), str(protocol), "small", "NOOP FIRE RIGHT LEFT", "1,234,567 steps (3,700,000 frames)",
             "7.5 minutes", "seed 3", "4.50", "5.25 +- 0.50, 20 episodes, greedy", "tensorflow 2.21.0")  # fmt: skip
    assert [fact for fact in facts if fact not in text] == []
    assert "does not say" not in text
    assert "begun from" not in text


def test_describe_tells_which_weights_a_training_began_from(file):
    training = {"steps": 5_000, "emulator_frames": 15_000, "updates": 20, "train_minutes": 7.5, "cores": 2, "seed": 3}
    begun = None
    for name in ("published.npz", "first.npz", "second.npz"):
        path = file.with_name(name)
        write_model(path, small_variables(), {} if name == "published.npz" else training | {"begun_from": begun})
        begun = origin(read_model(str(path)))
    write_model(file, small_variables(), training | {"begun_from": begun})
    how = "5,000 steps (15,000 frames), 20 updates, 7.5 minutes on 2 cores, seed 3"
    lines = dict(line.split(": ", 1) for line in describe(read_model(str(file))).splitlines())
    first, published = f"that from first.npz, after {how}", "that from published.npz, after it does not say what"
    assert lines["begun from"].strip() == f"second.npz, after {how}; {first}; {published}"


def test_describe_tells_what_a_published_file_does_not_say(file):
    np.savez(file, **small_variables())
    lines = dict(line.split(": ", 1) for line in describe(read_model(str(file))).splitlines())
    silent = {name for name, fact in lines.items() if "does not say" in fact}
    assert silent == {"game", "protocol", "trained for", "score in training", "evaluated", "written with"}
    assert lines["actions"].strip() == "4"


def test_what_a_run_writes_is_read_in_full():
    known, unreadable = parse(json.dumps(METADATA))
    assert (known, unreadable) == (json.loads(json.dumps(METADATA)), ())
    assert set(model_metadata._PROTOCOL) == {field.name for field in dataclasses.fields(Protocol)}


def nested(depth: int) -> dict:
    begun = {"file": "first.npz"}
    for _ in range(depth):
        begun = {"file": "next.npz", "begun_from": begun}
    return begun


def changed(**changes) -> str:
    return json.dumps(METADATA | changes)


# The text of the metadata, the fields that cannot be read, and how the others are told.
OTHERS = {
    "a field more": (changed(reward_scale=[1, 2]), None, {"trained for": TRAINED}),
    "nothing": ("{}", None, {"game": "the file does not say"}),
    "null": (json.dumps(dict.fromkeys(METADATA)), None, {"evaluated": "the file does not say"}),
    "a field of the protocol more": (changed(protocol=PROTOCOL | {"x": 1}), None, {"protocol": "Fake-v0: frameskip"}),
    "a field of the protocol less": (
        changed(protocol={"env": "Fake-v0", "sticky": 0.25}), None,
        {"protocol": "env Fake-v0, sticky 0.25", "actions": "4"},
    ),
    "protocol is a list": (changed(protocol=[1]), "protocol", {"protocol": "the file does not say"}),
    "frameskip is a number": (
        changed(protocol=PROTOCOL | {"frameskip": 4}), "protocol.frameskip", {"protocol": "env Fake-v0, sticky 0.25,"},
    ),
    "frameskip of three": (changed(protocol=PROTOCOL | {"frameskip": [2, 3, 4]}), "protocol.frameskip", {}),
    "actions are numbers": (changed(protocol=PROTOCOL | {"actions": [0, 1]}), "protocol.actions", {"actions": "4"}),
    "one episode evaluated": (
        json.dumps(METADATA | {"evaluation": EVALUATION | {"stderr": math.nan}}), None,
        {"evaluated": "5.25, 20 episodes, greedy"},
    ),
    "evaluation without its error": (
        changed(evaluation={"mean": 5.25, "episodes": 20}), None, {"evaluated": "5.25, 20 episodes"},
    ),
    "evaluation is a number": (changed(evaluation=5.25), "evaluation", {"evaluated": "the file does not say"}),
    "mean is a text": (changed(evaluation=EVALUATION | {"mean": "5"}), "evaluation.mean", {}),
    "steps are a text": (
        changed(steps="5000"), "steps",
        {"trained for": "(15,000 frames), 20 updates, 7.5 minutes on 2 cores, seed 3"},
    ),
    "steps are missing": (json.dumps({"seed": 3}), None, {"trained for": "seed 3"}),
    "steps are negative": (changed(steps=-1), "steps", {}),
    "cores are true": (changed(cores=True), "cores", {}),
    "a huge count": (changed(updates=10**400), "updates", {}),
    "a huge number": (changed(train_minutes=10**400), "train_minutes", {}),
    "infinity": ('{"online_score": Infinity}', None, {"score in training": "the file does not say"}),
    "beyond infinity": ('{"online_score": 1e999}', "online_score", {"score in training": "the file does not say"}),
    "NaN": ('{"online_score": NaN}', None, {"score in training": "the file does not say"}),
    "versions are a list": (changed(versions=["2.21"]), "versions", {"written with": "the file does not say"}),
    "a version is a number": (changed(versions={"tensorflow": 2}), "versions", {}),
    "versions have two lines": (changed(versions={"a\nb": "1"}), "versions", {}),
    "game is a list": (changed(env=["Pong-v0"]), "env", {"game": "the file does not say"}),
    "game is empty": (changed(env=""), "env", {}),
    "game has two lines": (changed(env="Pong\nv0"), "env", {}),
    "game is half a character": ('{"env": "\\ud800"}', "env", {}),
    "game moves the cursor": (changed(env="\x1b[2J"), "env", {}),
    "game is a book": (changed(env="x" * 10_000), "env", {}),
    "origin is a text": (changed(begun_from="Fake-v0.npz"), "begun_from", {}),
    "origin has no name": (changed(begun_from=TRAINING), None, {"begun from": f"a file, after {TRAINED}"}),
    "origin's origin is a list": (
        changed(begun_from={"file": "a.npz", "begun_from": {"file": "b.npz", "steps": [], "begun_from": []}}),
        "begun_from.steps, begun_from",
        {"begun from": "a.npz, after it does not say what; that from b.npz, after it does not say what"},
    ),
    "a long past": (changed(begun_from=nested(500)), "begun_from", {"begun from": "next.npz"}),
}  # fmt: skip


@pytest.mark.parametrize(("text", "unreadable", "told"), OTHERS.values(), ids=OTHERS)
def test_what_is_known_is_read_and_what_is_wrong_is_named(text, unreadable, told):
    lines = lines_of(holding(text))
    assert lines.get("could not be read") == unreadable
    assert [name for name, fact in told.items() if not lines[name].startswith(fact)] == []


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "1", '{"steps": ' + "9" * 5000 + "}", '{"a":' * 100_000 + "1" + "}" * 100_000]
)
def test_what_is_no_object_is_corrupt(file, text):
    np.savez(file, **small_variables(), metadata=np.array(text))
    with pytest.raises(UsageError, match="corrupt: its metadata") as raised:
        read_model(str(file))
    assert "\n" not in str(raised.value)


def uses(model: ModelFile) -> None:
    """Use a model's metadata in each way that there is."""
    assert len(describe(model).encode().splitlines()) == len(describe(model).split("\n"))
    told = origin(model)
    assert parse(json.dumps({"begun_from": told}))[0]["begun_from"].keys() == told.keys()
    json.dumps(facts(model.metadata), allow_nan=False)
    with contextlib.suppress(UsageError):
        assert isinstance(environment_of(model, None), str)


@pytest.mark.parametrize("text", [text for text, *_ in OTHERS.values()], ids=OTHERS)
def test_a_training_and_the_page_take_any_metadata(file, text):
    np.savez(file, **small_variables(), metadata=np.array(text))
    uses(read_model(str(file)))
    assert not math.isnan(_score_of(file))
    assert _origin_told_by(file) == read_model(str(file)).metadata.get("begun_from")


LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([10**30, 10**400, "a\rb"])
)
NAMES = st.sampled_from(sorted({*METADATA, *PROTOCOL, *EVALUATION, "file"})) | st.text(max_size=3)
ANYTHING = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5), max_leaves=20
)
LIKELY = st.fixed_dictionaries(
    {}, optional={name: st.just(value) | ANYTHING for name, value in json.loads(json.dumps(METADATA)).items()}
)


@given(LIKELY | st.dictionaries(NAMES, ANYTHING))
@settings(deadline=None)
def test_any_metadata_is_read_and_told(said):
    uses(holding(json.dumps(said)))


@given(ANYTHING)
@settings(deadline=None)
def test_any_json_is_read_or_refused(said):
    try:
        uses(holding(json.dumps(said)))
    except ValueError:
        assert not isinstance(said, dict)
