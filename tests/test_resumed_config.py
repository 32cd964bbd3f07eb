"""A run's saved configuration: what a resumed run takes from it, and what is refused."""

from __future__ import annotations

import dataclasses
import errno
import json
from pathlib import Path

from a3c import config
from a3c.config import Config, Schedule
from a3c.errors import UsageError
from a3c.flags import parse_args
from a3c.run_files import CONFIG_FILE

import pytest
from configs import resolve

FIELDS = dataclasses.fields(Config)


@pytest.mark.parametrize("line", ["", "--gpu 0,1 --seed 3 --learning-rate 1e-3,5:1e-4"])
def test_saved_configuration_reads_back(line, tmp_path):
    resolved = resolve(line)
    path = tmp_path / CONFIG_FILE
    path.write_text(resolved.as_json())
    record = json.loads(path.read_text())
    schedules = {f.name: Schedule.parse(record[f.name]) for f in FIELDS if f.type.startswith("Schedule")}
    paths = {name: tuple(record[name]) for name in ("load", "output")}
    assert Config(**(record | schedules | paths)) == resolved


def test_resume_takes_up_the_saved_configuration(tmp_path):
    line = f"--output {tmp_path} --env Breakout-v0 --seed 5 --num-envs 9 --learning-rate 1e-3,5:1e-4 --max-epoch 3"
    resolved = resolve(line)
    past = {"load": ("weights.npz",), "output": ("where/it/was",), "watch": 8000}
    (tmp_path / CONFIG_FILE).write_text(dataclasses.replace(resolved, **past).as_json())
    taken = parse_args(["--resume", "--output", str(tmp_path), "--max-epoch", "7"])
    assert taken == dataclasses.replace(resolved, resume=True, max_epoch=7)


KEPT = {
    "--env Breakout-v0": ("Breakout-v0", "Pong-v0"),
    "--network nature": ("nature", "small"),
    "--seed 5": ("5", "0"),
}


@pytest.mark.parametrize("line", KEPT)
def test_a_resumed_run_keeps_what_makes_its_state_its_own(line, tmp_path):
    (tmp_path / CONFIG_FILE).write_text(resolve(f"--output {tmp_path}").as_json())
    with pytest.raises(UsageError) as caught:
        parse_args(["--resume", "--output", str(tmp_path), *line.split()])
    given, saved = KEPT[line]
    flag = line.split()[0]
    assert f"{flag} {given}: " in str(caught.value)
    assert f"begun with {flag} {saved}," in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("line", ["--env Pong-v0 --network small --seed 0", "--network auto", "--learning-rate 0,5:1",
                                  "--num-envs 5", "--batch-size 128 --pool-states 128", "--steps-per-epoch 3",
                                  "--gamma 0.5", "--gpu 0"])  # fmt: skip
def test_a_resumed_run_may_change_the_rest(line, tmp_path):
    (tmp_path / CONFIG_FILE).write_text(resolve(f"--output {tmp_path}").as_json())
    taken = parse_args(["--resume", "--output", str(tmp_path), *line.split()])
    assert (taken.env, taken.network, taken.seed) == ("Pong-v0", "small", 0)


@pytest.mark.parametrize(
    ("begun", "line", "found"),
    [
        ("", "--simulator-proc 64", {"simulator_proc": 64, "num_envs": 64}),
        ("", "--simulator-proc 6", {"simulator_proc": 6, "num_envs": 40}),
        ("--predict-batch-size 9", "--num-envs 8", {"predict_batch_size": resolve().predict_batch_size}),
        ("--predict-batch-size 9", "--gamma 0.5", {"predict_batch_size": 9}),
        ("--batch-size 512 --pool-states 512", "--batch-size 300", {"pool_states": 300}),
        ("--batch-size 256 --pool-states 256", "--batch-size 256", {"pool_states": 256}),
        ("", "--num-envs 2", {"simulator_proc": 2, "num_envs": 2}),
        ("", "--num-envs 9 --simulator-proc 3", {"simulator_proc": 3, "num_envs": 9}),
        ("", "--deterministic", {"simulator_proc": 1, "predictor_thread_per_gpu": 1, "num_envs": 40}),
        ("--network batch-a3c", "--batch-size 256", {"batch_size": 256, "pool_states": 256}),
        ("--network batch-a3c", "--batch-size 64", {"batch_size": 64, "pool_states": 64}),
        ("--network batch-a3c", "--batch-size 64 --pool-states 640", {"pool_states": 640}),
        ("", "--batch-size 128", {"batch_size": 128, "pool_states": 2560}),
    ],
)
def test_what_follows_from_a_flag_is_chosen_anew_when_a_run_is_resumed(begun, line, found, tmp_path):
    (tmp_path / CONFIG_FILE).write_text(resolve(f"--output {tmp_path} {begun}").as_json())
    resumed = resolve(f"--resume --output {tmp_path} {line}")
    assert {name: getattr(resumed, name) for name in found} == found


def test_what_makes_a_runs_state_its_own():
    assert {f.name for f in FIELDS if f.metadata.get("of_the_run")} == {"env", "seed", "network"}


REFUSED_VALUES = {
    "batch_size": ["256", 256.0, True, [256], {}, 0, 65537, 10**400],
    "gamma": ["0.9", True, [0.9], -0.1, 1.5, float("nan"), 10**400],
    "network": ["big", 1, ["small"], True],
    "env": [5, ["Pong-v0"], True],
    "gpu": [0, [0]],
    "deterministic": [1, 0.0, "true", []],
    "learning_rate": ["x", "0.1,5", [0.1], True, {}, -1, float("nan")],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name in REFUSED_VALUES for value in REFUSED_VALUES[name]]
)
def test_a_value_that_cannot_be_resumed_is_named(name, value, tmp_path):
    path = tmp_path / CONFIG_FILE
    path.write_text(json.dumps({name: value}))
    with pytest.raises(UsageError) as caught:
        parse_args(["--resume", "--output", str(tmp_path)])
    assert str(caught.value).startswith(f'{path}: "{name}" is {json.dumps(value)[:60]}: ')
    assert str(caught.value).endswith("; mend it, or start afresh with a new --output")
    assert "\n" not in str(caught.value)


CLUSTER = {"ray", "hosts", "host_cores", "listen", "frame_codec"}
NOT_RESUMED = {"task", "load", "output", "watch", "overlay", "sample_actions"} | CLUSTER


@pytest.mark.parametrize(
    ("before", "line", "games"),
    [
        ("", "", 40),
        ("local", "", None),  # a cluster's games are no measure for this machine, nor for another cluster
        ("", "--ray local", None),
        ("local", "--ray auto --hosts 3", None),
        ("local", "--ray auto --num-envs 7", 7),
    ],
)
def test_a_run_is_resumed_with_other_hosts_or_none(before, line, games, tmp_path):
    record = {"ray": before or None, "hosts": 2, "listen": "10.0.0.1", "num_envs": 40, "simulator_proc": 4}
    (tmp_path / CONFIG_FILE).write_text(json.dumps(record))
    resumed = parse_args(["--resume", "--output", str(tmp_path), *line.split()])
    assert resumed.num_envs == games
    assert (resumed.simulator_proc is None) == (games != 40)
    assert resumed.listen is None
    assert (resumed.ray, resumed.hosts) == (
        line.split()[1] if "--ray" in line else None,
        3 if "--hosts" in line else None,
    )


@pytest.mark.parametrize("field", [f for f in FIELDS if f.name not in NOT_RESUMED], ids=lambda f: f.name)
def test_no_field_is_resumed_with_a_value_of_another_type(field, tmp_path):
    (tmp_path / CONFIG_FILE).write_text(json.dumps({field.name: {"a": 1}}))
    with pytest.raises(UsageError, match=f'"{field.name}" is'):
        parse_args(["--resume", "--output", str(tmp_path)])


@pytest.mark.parametrize(
    ("name", "value", "taken"),
    [
        ("gamma", 1, 1.0),
        ("stall_timeout", 300, 300.0),
        ("learning_rate", 0.5, Schedule(0.5)),
        ("learning_rate", 1, Schedule(1.0)),
        ("batch_size", None, None),
        ("gamma", None, 0.99),  # the default
        ("batch_size", 1, 1),
        ("batch_size", 65536, 65536),
        *((name, {"a": 1}, getattr(Config(), name)) for name in sorted(NOT_RESUMED - {"output"})),
        ("of_a_later_version", 1, None),
        ("optimizer", "adam", None),  # of an earlier one
    ],
)
def test_values_that_can_be_resumed(name, value, taken, tmp_path):
    (tmp_path / CONFIG_FILE).write_text(json.dumps({name: value}))
    resumed = parse_args(["--resume", "--output", str(tmp_path)])
    assert getattr(resumed, name, None) == taken
    assert type(getattr(resumed, name, None)) is type(taken)


@pytest.mark.parametrize(("name", "value"), [("network", "small-ln"), ("optimizer", "soap")])
def test_what_was_removed_is_refused_with_the_commit_that_reads_it(name, value, tmp_path):
    (tmp_path / config.CONFIG_FILE).write_text(json.dumps({"env": "Pong-v0", name: value}))
    with pytest.raises(UsageError, match=f'"{name}" is "{value}", which was removed; commit d80910a reads it$'):
        parse_args(["--resume", "--output", str(tmp_path)])


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, "\ufeff{}", '{"learning_rate": "x"}'])
def test_resume_of_a_broken_configuration(text, tmp_path):
    (tmp_path / CONFIG_FILE).write_text(text)
    with pytest.raises(UsageError) as caught:
        parse_args(["--resume", "--output", str(tmp_path)])
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def not_permitted(*_, **__):
    raise PermissionError(errno.EACCES, "Permission denied")


def test_what_cannot_be_resumed_because_it_cannot_be_read(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "is_file", not_permitted)
    with pytest.raises(UsageError, match=r"config.json cannot be read \(Permission denied\): .* new --output$"):
        parse_args(["--resume", "--output", str(tmp_path)])
