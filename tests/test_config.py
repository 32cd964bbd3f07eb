"""The configuration: by table, and against the numbers of the original."""

from __future__ import annotations

import dataclasses
import re

from a3c import config
from a3c.config import Config, Schedule, spread
from a3c.errors import UsageError
from a3c.flags import parse_args
from a3c.run_files import file_name

import hypothesis.strategies as st
import pytest
from configs import resolve
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


@pytest.mark.parametrize(("update", "value"), [(0, 0.1), (4, 0.1), (5, 0.0), (9, 0.0), (10, 0.2), (10**9, 0.2)])
def test_a_schedules_value(update, value):
    assert Schedule.parse("0.1,5:0,10:0.2").at(update) == value


# resolve


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


def test_games_and_processes_follow_the_cores_that_play():
    resolved = Config().resolve(cores=2, num_gpus=0, playing_cores=24, games_per_core=30)
    assert (resolved.simulator_proc, resolved.num_envs) == (48, 720)


# game and output


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


# spread


@settings(deadline=None)
@given(st.integers(1, 5000), st.integers(1, 100))
def test_spread(total, parts):
    sizes = spread(total, parts)
    assert (sum(sizes), len(sizes)) == (total, parts)
    assert sizes[0] - sizes[-1] <= 1
    assert list(sizes) == sorted(sizes, reverse=True)
