"""The configuration: by table, and against the numbers of the original."""

from __future__ import annotations

import dataclasses
import errno
import json
import re
from pathlib import Path

from a3c import config
from a3c.config import Config, Schedule, spread
from a3c.errors import UsageError
from a3c.flags import parse_args
from a3c.run_files import CONFIG_FILE, file_name

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

FIELDS = dataclasses.fields(Config)


# Schedule

GOOD_SCHEDULES = {
    "0": Schedule(0.0),
    "0.001": Schedule(1e-3),
    "1e-3": Schedule(1e-3),
    "0.01,480000:0.005": Schedule(0.01, ((480_000, 0.005),)),
    "1e-3,120000:3e-4,720000:1e-4": Schedule(1e-3, ((120_000, 3e-4), (720_000, 1e-4))),
    "0.1,1:0": Schedule(0.1, ((1, 0.0),)),
}
BAD_SCHEDULES = [
    "", "x", "nan", "inf", "-1", "1e999", "0.1,", ",0.1", "0.1,5", "0.1,5:", "0.1,:5", "0.1,x:1", "0.1,1.5:1",
    "0.1,1:2:3", "0.1,1:nan", "0.1,1:inf", "0.1,1:-1", "0.1,0:1", "0.1,-5:1", "0.1,5:1,5:2", "0.1,9:1,5:2",
    "0.1;5:1", "0.1,5=1",
]  # fmt: skip


@pytest.mark.parametrize("text", GOOD_SCHEDULES)
def test_schedule_parse(text):
    assert Schedule.parse(text) == GOOD_SCHEDULES[text]


@pytest.mark.parametrize("text", BAD_SCHEDULES)
def test_schedule_refuses(text):
    with pytest.raises(ValueError, match=r".+"):
        Schedule.parse(text)
    with pytest.raises(UsageError, match="--learning-rate"):
        parse_args(["--learning-rate", text])


RATES = st.floats(0, 1e6, allow_subnormal=False)


@settings(deadline=None)
@given(RATES, st.lists(st.tuples(st.integers(1, 10**9), RATES), max_size=4, unique_by=lambda change: change[0]))
def test_schedule_text_holds_it(initial, changes):
    schedule = Schedule(initial, tuple(sorted(changes)))
    assert Schedule.parse(str(schedule)) == schedule


# resolve


def resolve(line: str = "", cores: int = 2, num_gpus: int = 0) -> Config:
    return parse_args(line.split()).resolve(cores, num_gpus)


@pytest.mark.parametrize(
    ("line", "num_gpus", "network"),
    [("", 0, "small"), ("", 1, "batch-a3c"), ("--network small", 1, "small"), ("--network batch-a3c", 0, "batch-a3c")],
)
def test_network(line, num_gpus, network):
    assert resolve(line, num_gpus=num_gpus).network == network


ORIGINAL = {
    "local_time_max": 5,
    "batch_size": 128,
    "pool_states": 128,
    "sample_reuse": 1,
    "gamma": 0.99,
    "gae_lambda": 1.0,
    "correction": "clipped-is",
    "learning_rate": Schedule.parse("1e-3,120000:3e-4,720000:1e-4"),
    "entropy_beta": Schedule.parse("0.01,480000:0.005"),
    "value_weight": 1.0,
    "adam_epsilon": 1e-3,
    "gradient_clip": "per-tensor",
    "gradient_clip_norm": 0.1,
}
ORIGINAL_ON_GPU = {
    "predictor_thread_per_gpu": 4,
    "simulator_proc": 24,
    "steps_per_epoch": 6000,
    "max_epoch": 1000,
    "eval_every": 3,
    "eval_episode": 50,
}


@pytest.mark.parametrize(
    ("resolved", "expected"),
    [
        (resolve("--network batch-a3c"), ORIGINAL),
        (resolve(cores=12, num_gpus=1), ORIGINAL | ORIGINAL_ON_GPU),
        (resolve("--batch-size 64 --network batch-a3c"), ORIGINAL | {"batch_size": 64, "pool_states": 64}),
    ],
    ids=["cpu", "gpu", "batch"],
)
def test_batch_a3c_is_the_originals(resolved, expected):
    assert {name: getattr(resolved, name) for name in expected} == expected


def test_what_small_and_nature_learn_with():
    small = {
        "batch_size": 256,
        "local_time_max": 64,
        "gae_lambda": 0.95,
        "correction": "clipped-surrogate",
        "pool_states": 2560,
        "sample_reuse": 1,
        "queue_size": 2,
        "learning_rate": Schedule.parse("5e-4,24000:2.5e-4,40000:1e-4,72000:3e-5"),
        "entropy_beta": Schedule.parse("0.01,24000:0.005,40000:0.002"),
        "value_weight": 0.5,
        "adam_epsilon": 1e-5,
        "gradient_clip": "global-norm",
        "gradient_clip_norm": 0.5,
    }
    assert config.LEARNING_DEFAULTS["small"] == small
    assert config.LEARNING_DEFAULTS["nature"] == small | {
        "gae_lambda": 0.98,
        "learning_rate": Schedule.parse("5e-4,12000:2.5e-4,36000:1e-4,64000:3e-5"),
        "entropy_beta": Schedule.parse("0.01,16000:0.005,36000:0.002"),
    }
    assert (resolve("--network small").surrogate_clip, resolve("--network small").gamma) == (0.1, 0.99)


@pytest.mark.parametrize("num_gpus", [0, 1])
@pytest.mark.parametrize("network", config.NETWORKS)
def test_resolved_leaves_nothing_open(network, num_gpus):
    resolved = resolve(f"--network {network}", num_gpus=num_gpus)
    none = ["gpu", "watch", "ray", "hosts", "host_cores", "listen", "max_policy_lag"]
    assert [f.name for f in FIELDS if getattr(resolved, f.name) is None] == none
    assert resolved.resolve(cores=64, num_gpus=0) == resolved


@pytest.mark.parametrize("num_gpus", [0, 1])
def test_deterministic_is_one_simulator_and_one_predictor(num_gpus):
    resolved = resolve("--deterministic", num_gpus=num_gpus)
    assert (resolved.simulator_proc, resolved.predictor_thread_per_gpu) == (1, 1)
    assert resolved.envs_per_simulator == (32 if num_gpus else 40,)
    assert resolve("--deterministic --num-envs 8").envs_per_simulator == (8,)
    for line, gpus in (("--simulator-proc 2", 0), ("--predictor-thread-per-gpu 2", 0), ("", 2)):
        with pytest.raises(UsageError, match="--deterministic"):
            resolve(f"--deterministic {line}", num_gpus=gpus)


@pytest.mark.parametrize("network", config.NETWORKS)
def test_what_is_given_is_kept(network):
    given_flags = (
        "--batch-size 128 --local-time-max 7 --gae-lambda 0.5 --correction clipped-surrogate --sample-reuse 3 "
        "--pool-states 384 --learning-rate 0.5 --entropy-beta 0 "
        "--value-weight 0.25 --adam-epsilon 0.5 --gradient-clip global-norm --gradient-clip-norm 9 "
        "--steps-per-epoch 5 --eval-every 2 --eval-episode 3 "
        "--queue-size 7 --predictor-thread-per-gpu 2 --predict-batch-size 9 "
        "--simulator-proc 5 --num-envs 11 --env Breakout-v0"
    )
    parsed = parse_args([*given_flags.split(), "--network", network])
    assert parsed.resolve(cores=2, num_gpus=1) == parsed
    nothing = Config(gae_lambda=0.0, value_weight=0.0, eval_every=0)
    resolved = nothing.resolve(cores=2, num_gpus=0)
    assert (resolved.gae_lambda, resolved.value_weight, resolved.eval_every) == (0, 0, 0)


@pytest.mark.parametrize(
    ("batch", "steps", "fits"),
    [
        (128, 5, "try --local-time-max 4 or 8, or --batch-size 130"),
        (256, 20, "try --local-time-max 16 or 32, or --batch-size 260"),
        (32, 64, "try --local-time-max 32, or --batch-size 64"),
        (7, 3, "try --local-time-max 1 or 7, or --batch-size 6"),
    ],
)
def test_vtrace_says_which_unrolls_fit(batch, steps, fits):
    line = f"--correction vtrace --network batch-a3c --batch-size {batch} --local-time-max {steps}"
    with pytest.raises(UsageError) as error:
        resolve(line)
    assert str(error.value).endswith(f"--local-time-max {steps} does not divide --batch-size {batch}; {fits}")
    steps_that_fit, batch_that_fits = re.fullmatch(r"try --local-time-max (.*), or --batch-size (.*)", fits).groups()
    for fit in steps_that_fit.split(" or "):
        resolve(f"{line} --local-time-max {fit}")
    resolve(f"{line} --batch-size {batch_that_fits}")


@pytest.mark.parametrize(
    ("line", "cores", "games"),
    [
        ("", 2, (10,) * 4),
        ("", 1, (10,) * 2),
        ("--simulator-proc 240", 2, (1,) * 240),
        ("--simulator-proc 3", 8, (1,) * 3),
        ("--simulator-proc 3 --num-envs 7", 2, (3, 2, 2)),
        ("--num-envs 10", 2, (3, 3, 2, 2)),
        ("--num-envs 3", 2, (1, 1, 1)),
        ("--num-envs 1", 8, (1,)),
        ("--simulator-proc 1 --num-envs 50", 8, (50,)),
    ],
)
def test_games_of_simulators(line, cores, games):
    resolved = resolve(line, cores)
    assert resolved.envs_per_simulator == games
    assert (resolved.simulator_proc, resolved.num_envs) == (len(games), sum(games))


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("--simulator-proc 4 --num-envs 3", ["--num-envs 3", "--simulator-proc 4"]),
        ("--pool-states 200", ["--pool-states 200", "--batch-size 256", "try 256"]),
        ("--pool-states 64 --batch-size 128", ["try 128"]),
    ],
)
def test_resolve_refuses(line, named):
    with pytest.raises(UsageError) as caught:
        resolve(line)
    text = str(caught.value)
    assert "\n" not in text
    assert [part for part in named if part not in text] == []


# the files


@pytest.mark.parametrize(
    ("env", "output"),
    [
        ("Breakout-v0", "train_log/train-atari-Breakout-v0"),
        ("ALE/Pong-v5", "train_log/train-atari-ALE-Pong-v5"),
    ],
)
def test_default_output(env, output):
    assert resolve(f"--env {env}").directory == output
    assert output.endswith(file_name(env))


def test_the_environment_is_pong_where_none_is_named():
    assert resolve().env == "Pong-v0"
    assert parse_args([]).directory == resolve().directory == "train_log/train-atari-Pong-v0"


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


def test_what_makes_a_runs_state_its_own():
    assert {f.name for f in FIELDS if f.metadata.get("of_the_run")} == {"env", "seed", "network"}


@pytest.mark.parametrize(("update", "value"), [(0, 0.1), (4, 0.1), (5, 0.0), (9, 0.0), (10, 0.2), (10**9, 0.2)])
def test_a_schedules_value(update, value):
    assert Schedule.parse("0.1,5:0,10:0.2").at(update) == value


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
NOT_RESUMED = {"task", "load", "output", "watch", "overlay"} | CLUSTER


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


def test_games_and_processes_follow_the_cores_that_play():
    resolved = Config().resolve(cores=2, num_gpus=0, playing_cores=24, games_per_core=30)
    assert (resolved.simulator_proc, resolved.num_envs) == (48, 720)


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


# spread


@settings(deadline=None)
@given(st.integers(1, 5000), st.integers(1, 100))
def test_spread(total, parts):
    sizes = spread(total, parts)
    assert (sum(sizes), len(sizes)) == (total, parts)
    assert sizes[0] - sizes[-1] <= 1
    assert list(sizes) == sorted(sizes, reverse=True)
