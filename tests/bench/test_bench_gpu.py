"""The benchmark for GPUs: its arithmetic, its deadlines, and all of it cut short on the CPU. No GPU was there."""

from __future__ import annotations

import contextlib
import json
import time
from types import SimpleNamespace

from a3c.doctor.report import estimate
from bench import gpu, gpu_run, harness
from bench.command_line import SHORT
from bench.gpu import Bench, rise, rounded, row
from bench.gpu_run import WAITS, Watch

import pytest
from drivers import fake_driver

FOUND = {"states_per_s": 1500.0, **dict.fromkeys(WAITS, 0.25), "saturates": "learner-bound", "gpu_busy": 0.5,
         "gpu_bytes": 4 * 10**9, "epochs": 3, "scores": [1.0, 2.0, 3.0]}  # fmt: skip
PARTS = {"game": 0.5e-3, "inference": 0.1e-3, "training": 0.4e-3}


# arithmetic


def test_a_row_holds_a_training_against_its_limit_and_what_was_published():
    line = row("batch-a3c", 64, FOUND, estimate(PARTS, 20_000.0, 12, 1))
    assert (line["states/s"], line["limit"], line["of it"], line["limited by"]) == (1500, 2000, 0.75, "GPU")
    assert (line["published"], line["GPU busy"], line["GPU GB"], line["wait queue"]) == ("2,000-2,560", 0.5, 4.0, 0.25)
    line = row("small", 64, FOUND | {"gpu_busy": None, "gpu_bytes": None}, estimate(PARTS, 900.0, 12, 1))
    assert (line["published"], line["GPU busy"], line["GPU GB"]) == ("-", None, None)
    assert (line["limit"], line["limited by"]) == (900, "transport")


def test_online_scores_count_when_the_short_first_episodes_are_out_of_them():
    epochs = [{"episodes": 0}, *({"episodes": ended, "online_score": float(ended)} for ended in (7, 107, 108, 200))]
    assert gpu_run.online_scores(epochs, 108) == [108, 200]
    assert gpu_run.online_scores(epochs, 0) == [7, 107, 108, 200]


RISES = {  # online scores: means of the first and the last third, whether they rise
    "none": ([], (None, None, False)),
    "too few": ([1.0, 9.0], (None, None, False)),
    "three": ([1.0, 5.0, 9.0], (1.0, 9.0, True)),
    "flat": ([1.3] * 9, (1.3, 1.3, False)),
    "by chance": ([1.3] * 6 + [1.7] * 3, (1.3, 1.7, False)),
    "surely": ([1.3] * 6 + [2.0] * 3, (1.3, 2.0, True)),
    "falls": ([9.0] * 3 + [1.0] * 3, (9.0, 1.0, False)),
}


@pytest.mark.parametrize("case", RISES)
def test_a_score_rises_by_more_than_chance(case):
    scores, expected = RISES[case]
    assert tuple(rise(scores).values()) == pytest.approx(expected)


def test_rounded():
    assert rounded({"a": [1.23456, {"b": 123456.0}], "c": None, "d": 7}) == {
        "a": [1.235, {"b": 123500}],
        "c": None,
        "d": 7,
    }


# what is done when


@pytest.fixture
def bench(monkeypatch):
    """A benchmark whose parts were measured, and whose trainings take no time."""
    bench = Bench([], 1.0, 2.0)
    bench._num_gpus, bench._gpu_bytes, bench._step_s, bench._master_s = 1, None, 0.5e-3, 50e-6
    bench._networks = {name: {"forward": 0.1e-3, "train": 0.4e-3} for name in gpu.NETWORKS}
    bench._cores = 2
    monkeypatch.setattr(gpu, "train", lambda *_: FOUND)
    return bench


def test_with_a_gpu_all_networks_train_on_it_and_the_default_one_for_longest(bench, monkeypatch):
    calls = []
    monkeypatch.setattr(gpu, "train", lambda flags, seconds, *_: calls.append((flags, seconds)) or FOUND)
    bench.trainings()
    assert [line["network"] for line in bench.rows] == ["batch-a3c", "small", "nature", "batch-a3c"]
    assert [seconds for _, seconds in calls] == [2, 1, 1, 1]
    assert all(flags[2:4] == ["--gpu", "0"] for flags, _ in calls)
    assert bench.score == {"first": 1.0, "last": 3.0, "rises": True, "seconds": 2.0, "network": "batch-a3c"}


@pytest.mark.parametrize(
    ("speeds", "games"),
    [
        ([100.0, 104.0], [32, 64]),
        ([100.0, 106.0, 111.0], [32, 64, 128]),
        ([1.0, 2.0, 4.0, 8.0, 16.0], [32, 64, 128, 256]),
    ],
)
def test_games_are_doubled_while_that_helps(speeds, games, bench, monkeypatch):
    left = iter(speeds)

    def train(flags, *_):
        batch_a3c = flags[flags.index("--network") + 1] == "batch-a3c"
        return FOUND | {"states_per_s": next(left) if batch_a3c else 7.0}

    monkeypatch.setattr(gpu, "train", train)
    bench.trainings()
    assert [line["games"] for line in bench.rows if line["network"] == "batch-a3c"] == games


def test_a_training_that_fails_is_told_and_the_others_go_on(bench, monkeypatch):
    def train(flags, *_):
        if "small" in flags:
            raise RuntimeError("it broke\nin many lines")
        return FOUND

    monkeypatch.setattr(gpu, "train", train)
    bench.trainings()
    assert bench.problems == ["small with 32 games: it broke"]
    assert "nature" in [line["network"] for line in bench.rows]


def test_what_there_is_no_time_for_is_left_out_and_named(bench, monkeypatch):
    monkeypatch.setattr(gpu, "train", lambda *_: pytest.fail("there is no time"))
    bench._end = time.monotonic() + 20
    bench.trainings()
    assert bench.rows == []
    assert [text.partition(":")[0] for text in bench.problems] == [f"{name} with 32 games" for name in gpu.NETWORKS]


def test_all_parts_together_take_less_than_8_minutes():
    assert gpu._TOTAL_S + gpu_run._STOP_S < 480
    usual_s = 15 + 3 * 8 + gpu._RISE_S + 15 + 5 * (25 + 15)  # parts; five more trainings with start and end
    assert usual_s < gpu._TOTAL_S


@pytest.mark.parametrize(("seconds", "rises", "status"), [(180, False, 1), (180, True, None), (2, False, None)])
def test_a_score_that_does_not_rise_in_three_minutes_is_a_failure(seconds, rises, status, monkeypatch, capsys):
    parts = {"networks": {}, "step_us": 1.0, "master_us": 1.0, "transport_states_per_s": 1.0}
    score = {"first": 1.0, "last": 1.0, "rises": rises, "seconds": seconds, "network": "small"}
    monkeypatch.setattr(Bench, "parts", lambda self: parts)
    monkeypatch.setattr(Bench, "trainings", lambda self: setattr(self, "score", score))
    if status is None:
        gpu.main(["--rise-seconds", str(seconds)])
    else:
        with pytest.raises(SystemExit) as caught:
            gpu.main(["--rise-seconds", str(seconds)])
        assert caught.value.code == status
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["score"] == score
    assert bool(result["problems"]) == (status == 1)


# the GPU meanwhile


def watched(monkeypatch, *gpus: str) -> Watch:
    for name, value in fake_driver(*gpus).items():
        monkeypatch.setenv(name, value)
    with Watch() as watch:
        deadline = time.monotonic() + 30
        while watch._file.tell() == 0 and gpus and time.monotonic() < deadline:  # shared with the fake program
            time.sleep(0.01)
    return watch


def test_the_busiest_gpu_is_watched(monkeypatch):
    watch = watched(monkeypatch, "A, 1, 9.0, 80000, 100, 3", "B, 1, 9.0, 80000, 200, 60", "C, 1, 9.0, 80000, 300, 9")
    assert (watch.busy, watch.used_bytes) == (0.6, 200 << 20)
    assert watch._process.poll() is not None


def test_what_the_driver_does_not_tell_is_not_known(monkeypatch):
    watch = watched(monkeypatch, "MIG, 1, [N/A], [N/A], [N/A], [N/A]")
    assert (watch.busy, watch.used_bytes) == (None, None)


def test_without_a_driver_nothing_is_known(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with Watch() as watch:
        pass
    assert (watch.busy, watch.used_bytes) == (None, None)


# all of it, cut short


@pytest.mark.long
def test_without_a_gpu_all_of_it_runs_on_the_cpu_and_says_so(monkeypatch, capsys):
    monkeypatch.setattr(gpu, "NETWORKS", ("small",))  # the others take long on a CPU
    this_process = SimpleNamespace(run=lambda function, *args: [function(*args)])
    monkeypatch.setattr(harness, "Cores", lambda number: contextlib.nullcontext(this_process))
    gpu.main(["--seconds", "0.5", "--rise-seconds", "1", "--gpu", "-1", *SHORT[:-2]])
    told, *_, last = capsys.readouterr().out.splitlines()
    result = json.loads(last)
    assert told.startswith("no GPU: ")
    assert told.endswith("not a GPU's figures")
    assert (result["device"], result["problems"]) == ("CPU", [])
    assert [line["network"] for line in result["trainings"]] == ["small"]
    assert [line["games"] for line in result["trainings"]] == [4]
    for line in result["trainings"]:
        found = result["networks"][line["network"]]
        costs = 1e-6 * result["step_us"] + found["forward"] + found["train"]
        limit = min(result["cores"] / costs, 1e6 / result["master_us"])
        assert line["limit"] == pytest.approx(limit, rel=1e-2)
        assert line["of it"] == pytest.approx(line["states/s"] / line["limit"], rel=1e-2)
        assert all(0 <= line[name] <= 1 for name in line if name.startswith("wait"))
        assert line["saturates"].endswith("-bound")
        assert line["GPU busy"] is None
    assert result["transport_states_per_s"] > 0
    assert result["score"].keys() == {"first", "last", "rises", "seconds", "network"}
