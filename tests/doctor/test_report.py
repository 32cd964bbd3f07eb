"""The doctor: the arithmetic of its estimate, its text, and what follows from a failure. How fast is not tested."""

from __future__ import annotations

from a3c.config import Config
from a3c.doctor import checks, gpus, speed
from a3c.doctor import report as doctor
from a3c.doctor.checks import FAIL, OK, WARN, Check
from a3c.doctor.report import Report, advice, command, estimate, expectation
from a3c.errors import RunError, UsageError
from a3c.system import gpu, machine
from a3c.system.gpu import parse

import pytest

PARTS = {"game": 0.4e-3, "inference": 0.2e-3, "training": 0.6e-3}

# estimate


@pytest.mark.parametrize("cores", [1, 2, 64])
def test_without_a_gpu_the_cores_do_it_all(cores):
    found = estimate(PARTS, 1e6, cores, num_gpus=0)
    assert found.states_per_s == pytest.approx(cores / (0.4e-3 + 0.2e-3 + 0.6e-3))
    assert found.limited_by == "training"
    assert found.shares == pytest.approx({"game": 1 / 3, "inference": 1 / 6, "training": 1 / 2})


@pytest.mark.parametrize("slow", PARTS)
def test_the_largest_share_limits(slow):
    assert estimate(PARTS | {slow: 1.0}, 1e6, 2, 0).limited_by == slow


@pytest.mark.parametrize("num_gpus", [0, 1, 2])
def test_the_transport_can_be_the_limit(num_gpus):
    found = estimate(PARTS, 900.0, 2, num_gpus)
    assert found[:2] == (900.0, "transport")
    assert found.shares["game"] == pytest.approx(900 * 0.4e-3 / 2)


ON_GPUS = {  # seconds of game, inference, training; cores, GPUs: limit
    "games": ((1e-3, 1e-5, 2e-5), 2, 1, 2000, "game"),
    "one GPU does both": ((1e-4, 1e-4, 3e-4), 8, 1, 2500, "GPU"),
    "one of two infers": ((1e-4, 1e-4, 3e-4), 8, 2, 1 / 3e-4, "training"),
    "two of three infer": ((1e-4, 8e-4, 3e-4), 8, 3, 2500, "inference"),
    "two of four train": ((1e-4, 1e-4, 3e-4), 8, 4, 2 / 3e-4, "training"),
}


@pytest.mark.parametrize("case", ON_GPUS)
def test_with_gpus_the_slowest_stage_limits(case):
    seconds, cores, gpus, limit, limited_by = ON_GPUS[case]
    found = estimate(dict(zip(PARTS, seconds, strict=True)), 1e9, cores, gpus)
    assert found.states_per_s == pytest.approx(limit)
    assert found.limited_by == limited_by
    assert found.shares[limited_by] == pytest.approx(1)
    assert max(found.shares.values()) == pytest.approx(1)


# texts


def test_expectation_without_a_gpu():
    lines = dict(expectation(estimate(PARTS, 1e6, 2, 0), PARTS, 2, 0))
    assert lines["at most"] == "1,700 states/s: 2 cores / (0.40 ms game + 0.20 ms inference + 0.60 ms training)"
    assert lines["limit"] == "training; the cores' time: training 50%, game 33%, inference 17%"


def test_expectation_on_a_gpu():
    lines = dict(expectation(estimate(PARTS, 1e6, 1, 1), PARTS, 1, 1))
    assert "1,200 states/s" in lines["at most"]
    assert "1 core, 1 GPU" in lines["at most"]
    assert "GPU 100%" in lines["limit"]


@pytest.mark.parametrize(
    ("config", "gpus", "flags"),
    [
        (Config(env="Pong-v0"), 0, "--env Pong-v0 --network small --num-envs 40 --simulator-proc 4"),
        (Config(env="ALE/Pong-v5", gpu="0,1"), 0,
         "--env ALE/Pong-v5 --network small --num-envs 40 --simulator-proc 4"),
        (Config(env="Pong-v0"), 1, "--env Pong-v0 --gpu 0 --network batch-a3c --num-envs 32 --simulator-proc 4 "
         "--predict-batch-size 16 --predictor-thread-per-gpu 1"),
        (Config(env="Pong-v0", gpu="2,3", num_envs=8, simulator_proc=8), 2,
         "--env Pong-v0 --gpu 2,3 --network batch-a3c --num-envs 8 --simulator-proc 8 "
         "--predict-batch-size 16 --predictor-thread-per-gpu 1"),
        (Config(env="Pong-v0", gpu="-1"), 0,
         "--env Pong-v0 --gpu -1 --network small --num-envs 40 --simulator-proc 4"),
        (Config(env="Pong-v0", gpu="2,3"), 1,
         "--env Pong-v0 --gpu 2 --network batch-a3c --num-envs 32 --simulator-proc 4 "
         "--predict-batch-size 16 --predictor-thread-per-gpu 1"),
    ],
)  # fmt: skip
def test_command(config, gpus, flags):
    assert command(config.resolve(2, gpus), gpus) == f"./train-atari.py {flags}"


@pytest.mark.parametrize(
    ("limited_by", "network", "gpus", "words"),
    [
        ("transport", "small", 0, ["--simulator-proc", "--num-envs"]),
        ("game", "small", 0, ["more cores"]),
        ("training", "small", 0, ["more cores", "GPU"]),
        ("training", "batch-a3c", 0, ["--network small", "more cores"]),
        ("GPU", "batch-a3c", 1, ["--gpu 0,1"]),
        ("inference", "batch-a3c", 2, ["--gpu 0,1,2"]),
    ],
)
def test_advice(limited_by, network, gpus, words):
    text = advice(limited_by, Config(network=network), gpus)
    assert [word for word in words if word not in text] == []
    assert ("--network small" in text) == ("--network small" in words)


WIDE = """\
ok    cores      2 usable
FAIL  files      100 may be open, 144 are needed for 4
                 simulators
                 try: ulimit -n 144

Use
      flags      ./train-atari.py --env Pong-v0 --network
                 small
"""
NARROW = """\
ok    cores      2 usable
FAIL  files      100 may be open, 144 are
      needed for 4 simulators
      try: ulimit -n 144

Use
      flags      ./train-atari.py --env
      Pong-v0 --network small
"""


@pytest.mark.parametrize(("width", "text"), [(60, WIDE), (45, NARROW)])
def test_report_is_as_wide_as_the_terminal(width, text, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    report = Report()
    report.add(
        Check("cores", OK, "2 usable"),
        Check("files", FAIL, "100 may be open, 144 are needed for 4 simulators", "ulimit -n 144"),
    )
    report.title("Use")
    report.line("flags", "./train-atari.py --env Pong-v0 --network small")
    out = capsys.readouterr().out
    assert out == text
    assert max(map(len, out.splitlines())) <= width


@pytest.mark.parametrize(("terminal", "width"), [(1, 40), (40, 40), (70, 70), (100, 100), (300, 100)])
def test_report_stays_readable(terminal, width, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(terminal))
    Report().line("long", "x " * 200)
    assert max(map(len, capsys.readouterr().out.splitlines())) in (width - 1, width)


def test_report_does_not_cut_flags_and_paths(capsys):
    text = " ".join(f"{'x' * length} --simulator-proc" for length in range(12)) + " /" + "long/" * 30
    Report(40).line("flags", text)
    assert capsys.readouterr().out.split() == ["flags", *text.split()]


def test_a_report_without_a_failure_ends_well(capsys):
    report = Report(100)
    report.add(Check("a", OK, "there"), Check("b", WARN, "gone", "look"))
    report.finish()
    assert capsys.readouterr().out.endswith("\nnothing failed, 1 warning\n")


def test_a_report_with_a_failure_ends_with_its_name():
    report = Report(100)
    report.add(Check("a", OK, "there"), Check("b", FAIL, "gone", "look"), Check("b", FAIL, "gone", "look"))
    with pytest.raises(RunError, match=r"3 of 4 checks failed \(b, c\)"):
        report.finish(Check("c", FAIL, "gone", "look"))


# a run


@pytest.fixture
def parts(monkeypatch):
    """Everything that takes time or depends on the machine, replaced; by name, to be replaced again."""

    def replace(name, value):
        module, function = name.split(".")
        monkeypatch.setattr({"checks": checks, "doctor": doctor, "gpus": gpus, "speed": speed}[module], function, value)

    monkeypatch.setattr(machine, "usable_cores", lambda: 2)
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("game", "display", "prctl", "sockets", "gpu", "files", "processes", "memory", "output"):
        replace(f"checks.{name}", lambda *_, name=name: Check(name, OK, "fine"))
    replace("checks.packages", lambda: [Check("packages", OK, "fine")])
    replace("checks.cores", lambda seconds: [Check("cores", OK, "fine")])
    replace("checks.listed_gpus", lambda: "")
    monkeypatch.setattr(gpu, "query", list)
    replace("doctor._load_tensorflow", lambda config: (0, [], {"small": 1, "batch-a3c": 2}))
    replace("speed.game_seconds", lambda protocol, seconds: (0.5e-3, [0.5e-3, 1e-3]))
    replace("speed.transport_states_per_s", lambda envs, actions, seconds: 30_000.0)
    replace("speed.network_seconds", lambda *_: {"forward": 0.25e-3, "train": 0.25e-3})
    return replace


def fail(*_):
    raise OSError("it broke\nin many lines")


def test_run_reports_all(parts, capsys):
    doctor.run(Config(sample_reuse=2))
    out = capsys.readouterr().out
    for text in (
        "\nok    memory     fine\n",
        "\nSpeed\n      game       2,000 states/s, 6,000 frames/s on one core; on 2 at once 1.5 times as many\n",
        "      transport  30,000 states/s",
        "      inference  4,000 states/s on one core, network small\n",
        "      training   4,000 states/s on one core, network small\n",
        "ms game + 0.25 ms inference + 0.50 ms training)",  # each state is used twice
        "\nUse\n      flags      ./train-atari.py --env Pong-v0 --network small",
        "\nnothing failed, 0 warnings\n",
    ):
        assert text in out
    assert "\x1b" not in out


def test_run_measures_what_the_flags_use(parts):
    seen = {}
    parts("speed.game_seconds", lambda protocol, seconds: seen.update(env=protocol.env, s=seconds) or (1e-3, [1e-3]))
    parts("speed.transport_states_per_s", lambda envs, actions, seconds: seen.update(envs=envs) or 1e4)

    def network(config, actions, seconds, forward, train):
        seen.update(network=config.network, actions=actions, train=train)
        return {"forward": 1e-3, "train": 1e-3}

    parts("speed.network_seconds", network)
    flags = Config(env="Breakout-v0", network="batch-a3c", num_envs=7, simulator_proc=3, batch_size=64)
    doctor.run(flags, seconds=0.125)
    assert seen == {"env": "Breakout-v0", "s": 0.125, "envs": (3, 2, 2), "network": "batch-a3c", "actions": 4,
                    "train": (64,)}  # fmt: skip


@pytest.mark.parametrize("name", ["checks.prctl", "checks.gpu", "checks.output"])
def test_a_failed_check_fails_the_run_at_its_end(name, parts, capsys):
    parts(name, lambda *_: Check("it", FAIL, "is gone", "look for it"))
    with pytest.raises(RunError, match=r"1 of \d+ checks failed \(it\)"):
        doctor.run(Config())
    out = capsys.readouterr().out
    assert "FAIL  it         is gone\n                 try: look for it\n" in out
    assert "\nUse\n" in out


@pytest.mark.parametrize("name", ["game_seconds", "transport_states_per_s", "network_seconds"])
def test_what_cannot_be_measured_fails_and_nothing_is_estimated(name, parts, capsys):
    parts(f"speed.{name}", fail)
    with pytest.raises(RunError):
        doctor.run(Config())
    out = capsys.readouterr().out
    assert "cannot be measured: it broke\n" in out
    assert "\nExpect\n" not in out
    assert out.count("states/s") >= 1  # the others are


def test_a_gpu_that_computes_wrongly_is_not_measured(parts, capsys):
    parts("gpus.look", lambda *_: [Check("convolution", FAIL, "differs", "look")])
    parts("speed.network_seconds", lambda *_: pytest.fail("it was measured"))
    with pytest.raises(RunError, match=r"1 of \d+ checks failed \(convolution\)"):
        doctor.run(Config())
    assert "\nExpect\n" not in capsys.readouterr().out


def test_the_drivers_memory_and_list_reach_the_defaults_and_the_checks(parts, monkeypatch):
    cards, seen = parse("H100, 560, 9.0, 8000, 0, 0"), {}
    monkeypatch.setattr(gpu, "query", lambda: cards)
    parts("doctor._load_tensorflow", lambda config: (1, ["H100"], {"small": 1, "batch-a3c": 2}))
    parts("gpus.look", lambda *args: seen.update(zip(("config", "cards", "num_gpus"), args, strict=True)) or [])
    doctor.run(Config(num_envs=4096))
    assert (seen["cards"], seen["num_gpus"]) == (cards, 1)
    assert seen["config"].predict_batch_size == 8000 * 2**20 // 8 // 4_000_000


def test_a_game_that_does_not_play_is_not_measured(parts, capsys):
    parts("checks.game", lambda env: Check("game", FAIL, "does not play", "look"))
    parts("speed.game_seconds", lambda *_: pytest.fail("it was measured"))
    with pytest.raises(RunError, match=r"\(game\)"):
        doctor.run(Config())
    assert "transport  30,000" in capsys.readouterr().out


def test_missing_packages_are_told_and_nothing_else(parts, capsys):
    parts("checks.missing", lambda: [Check("packages", FAIL, "zmq is not installed", "pip install zmq")])
    parts("checks.packages", fail)
    with pytest.raises(RunError, match="packages"):
        doctor.run(Config())
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_a_tensorflow_that_cannot_be_loaded(parts, capsys):
    parts("doctor._load_tensorflow", fail)
    with pytest.raises(RunError, match="imports"):
        doctor.run(Config())
    out = capsys.readouterr().out
    assert "cannot be loaded: it broke\n" in out
    assert "--force-reinstall -r requirements.txt" in " ".join(out.split())
    assert "Speed" not in out


def test_what_a_training_refuses_is_the_users_error(parts):
    with pytest.raises(UsageError, match="--pool-states"):
        doctor.run(Config(pool_states=7))


def test_load_tensorflow_counts_weights(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    num_gpus, names, weights = doctor._load_tensorflow(Config())
    assert len(names) == num_gpus
    assert 6e5 < weights["small"] < 8e5
    assert 9e5 < weights["nature"] < 1e6
    assert 3e6 < weights["batch-a3c"] < 4e6
