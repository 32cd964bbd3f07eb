"""The command line, by table: what is parsed, and what is refused in one line."""

from __future__ import annotations

import dataclasses

from a3c.config import Config, Schedule
from a3c.errors import UsageError
from a3c.flags import _default_text, parse_args

import pytest

FIELDS = dataclasses.fields(Config)
NUMBERS = [f for f in FIELDS if f.type.split(" ")[0] in ("int", "float")]


def flag(field: dataclasses.Field) -> str:
    return "--" + field.name.replace("_", "-")


def refusal(*argv: str) -> str:
    """The one line in which a command line is refused."""
    with pytest.raises(UsageError) as caught:
        parse_args(list(argv))
    text = str(caught.value)
    assert text
    assert "\n" not in text
    return text


def test_defaults_are_the_originals():
    assert parse_args([]) == Config()
    given_to_all = {"task": "train", "episode": 100, "gamma": 0.99}
    assert given_to_all.items() <= dataclasses.asdict(Config()).items()
    assert Config().max_epoch == 1000


PARSED = {
    "--env Breakout-v0 --gpu 0": {"env": "Breakout-v0", "gpu": "0", "gpu_ids": (0,)},
    "--gpu 0,1": {"gpu_ids": (0, 1)},
    "--gpu 3,10": {"gpu_ids": (3, 10)},
    "--gpu -1": {"gpu": "-1", "gpu_ids": ()},
    "--gpu=-1": {"gpu": "-1", "gpu_ids": ()},
    "": {"gpu": None, "gpu_ids": (), "env": None, "load": (), "model": None, "output": (), "watch": None},
    "--task play --env Breakout-v0 --load B.npz": {"task": "play", "load": ("B.npz",), "model": "B.npz"},
    "--task dump_video --load B.npz --output out --episode 3": {"task": "dump_video", "directory": "out", "episode": 3},
    "--task dump_video --load B.npz --overlay": {"overlay": True},
    "--task eval --load B.npz --sample-actions": {"sample_actions": True},
    "--task play --load B.npz --watch 8080": {"watch": 8080},
    "--watch 8080": {"task": "train", "watch": 8080},
    "--task eval --load B.npz P.npz models": {"load": ("B.npz", "P.npz", "models"), "model": "B.npz"},
    "--task info --load B.npz P.npz": {"load": ("B.npz", "P.npz")},
    "--task plot --output a b": {"output": ("a", "b"), "directory": "a"},
    "--task doctor": {"task": "doctor"},
    "--task eval --load B.npz --episode 100": {"task": "eval", "episode": 100},
    "--learning-rate 1e-3,5:1e-4": {"learning_rate": Schedule(1e-3, ((5, 1e-4),))},
    "--seed 2147483647": {"seed": 2**31 - 1},
    "--ray 10.0.0.1:6379 --hosts 4 --host-cores 8": {"ray": "10.0.0.1:6379", "hosts": 4, "host_cores": 8},
    "--ray local --listen 127.0.0.1 --frame-codec none": {"listen": "127.0.0.1", "frame_codec": "none"},
}


@pytest.mark.parametrize("line", PARSED)
def test_parse_args(line):
    parsed = parse_args(line.split())
    assert {name: getattr(parsed, name) for name in PARSED[line]} == PARSED[line]


REFUSED = {  # and what the line must name
    "--batch-size x": "--batch-size",
    "--batch-size 1.5": "--batch-size",
    "--gamma x": "--gamma",
    "--gamma nan": "--gamma",
    "--gamma 1.01": "from 0.0 to 1.0",
    "--learning-rate fast": "--learning-rate",
    "--seed -1": "--seed",
    "--steps-per-epoch -3": "at least 1",
    "--task sleep": "dump_video",
    "--network big": "batch-a3c",
    "--correction none": "clipped-is",
    "--simulator-procs 3": "--simulator-procs",
    "--simulator 3": "--simulator",
    "train": "train",
    "--env": "--env",
    "--task play": "--load",
    "--task eval": "--load",
    "--task dump_video": "--load",
    "--task info": "--load",
    "--task info --load": "--load",
    "--task play --load x.npz y.npz": "one --load",
    "--load x.npz y.npz": "one --load",
    "--task plot": "--output",
    "--task doctor --load x.npz": "--env",
    "--output a b": "one --output",
    "--task eval --load x.npz --watch 8080": "--watch",
    "--watch 65536": "--watch",
    "--overlay": "--overlay",
    "--sample-actions": "--sample-actions",
    "--task info --load x.npz --sample-actions": "--sample-actions",
    "--resume --load x.npz": "--resume",
    "--hosts 2": "--ray",
    "--host-cores 2": "--ray",
    "--listen 10.0.0.1": "--ray",
    "--ray local --hosts 0": "--hosts",
    "--ray local --listen 0.0.0.0": "--listen",
    "--ray local --listen ::": "--listen",
    "--ray local --listen here": "--listen",
    "--ray local --frame-codec zip": "lz4",
    "--ray local --task play --load x.npz": "--ray",
    "--resume --task eval --load x.npz": "--resume",
    "--env=": "--env is given nothing",
    "--output=": "--output is given nothing",
    "--ray=": "--ray is given nothing",
    "--load=": "--load is given nothing",
    "--task=": "--task",
    "--gpu=": "--gpu is given nothing",
}


@pytest.mark.parametrize("line", REFUSED)
def test_parse_args_refuses(line):
    assert REFUSED[line] in refusal(*line.split())


@pytest.mark.parametrize(
    "gpus",
    [",", "0,", ",0", "a", "-1,0", "0,-1", "-2", "- 1", "cpu", "0 1", "1.0", "0x1", "0,0", "1,0,1", "0,00", "all"],
)
def test_bad_gpu_lists(gpus):
    assert "--gpu 0,1, or --gpu -1 for the CPU" in refusal(f"--gpu={gpus}")


SCHEDULES = {  # and what is wrong with which part
    "0.001,5": "'5' is no UPDATE:VALUE",
    "0.001,": "a comma is followed by nothing",
    "0.001, ,5:1": "a comma is followed by nothing",
    "0.001,:": "'' is not a whole number of updates",
    "0.001,5:": "'' is not a number",
    "0.001,1e3:0.1": "'1e3' is not a whole number of updates",
    "0.001,10:x": "'x' is not a number",
    "0.001, 10: 0.1 , x:1": "'x' is not a whole number of updates",
    "0.001,1:2:3": "'2:3' is not a number",
    "1:2:3": "'1:2:3' is not a number",
    ",": "a comma is followed by nothing",
    "": "'' is not a number",
    "0.001;5:1": "'0.001;5:1' is not a number",
    "0.001,5:1,4:1": "rising",
    "0.001,5:nan": "finite",
}


@pytest.mark.parametrize("text", SCHEDULES)
@pytest.mark.parametrize("name", ["--learning-rate", "--entropy-beta"])
def test_what_is_wrong_in_which_part_of_a_schedule(name, text):
    line = refusal(name, text)
    assert line.endswith(f"{SCHEDULES[text]} (--help lists all flags)") or SCHEDULES[text] in ("rising", "finite")
    assert SCHEDULES[text] in line
    assert f"argument {name}: {text!r} is no VALUE[,UPDATE:VALUE...]: " in line


def test_spaces_in_a_schedule_do_no_harm():
    parsed = parse_args(["--learning-rate", " 1e-3, 5: 1e-4 ,7 :0"])
    assert parsed.learning_rate == Schedule(1e-3, ((5, 1e-4), (7, 0.0)))


LIMITS = [(f, end) for f in NUMBERS for end in ("low", "high") if end in f.metadata]


@pytest.mark.parametrize(("field", "end"), LIMITS, ids=lambda part: getattr(part, "name", part))
def test_limits(field, end):
    limit = field.metadata[end]
    others = ["--ray", "local"] if field.metadata["group"] == "cluster" else []
    assert getattr(parse_args([flag(field), str(limit), *others]), field.name) == limit
    beyond = limit + (1 if field.type.startswith("int") else abs(limit) + 0.5) * (1 if end == "high" else -1)
    assert str(limit) in refusal(flag(field), str(beyond), *others)


def test_defaults_are_told_for_each_network():
    assert _default_text("queue_size", None) == " (default: 1 for batch-a3c, 2 for small and nature)"
    assert _default_text("gae_lambda", None) == " (default: 1.0 for batch-a3c, 0.95 for small, 0.98 for nature)"
    assert "the batch size for batch-a3c" in _default_text("pool_states", None)
    assert (_default_text("max_policy_lag", None), _default_text("episode", 100)) == ("", " (default: 100)")
    assert (_default_text("seed", 0), _default_text("overlay", False)) == (" (default: 0)", "")


def test_help_names_every_flag(capsys):
    with pytest.raises(SystemExit) as caught:
        parse_args(["--help"])
    assert caught.value.code == 0
    words = capsys.readouterr().out.split()
    assert [flag(f) for f in FIELDS if not any(flag(f) in word for word in words)] == []
