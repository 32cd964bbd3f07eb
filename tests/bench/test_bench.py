"""The benchmarks run, and their figures agree with each other. How fast is not tested."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

from a3c.doctor.speed import network_seconds, step_seconds
from a3c.flags import parse_args
from a3c.simulation.remote import RemoteWire
from bench import harness, train, transport, wires
from bench.command_line import SHORT

import pytest

ROOT = Path(__file__).parents[2]


def run(name: str, flags: str) -> tuple[dict, str]:
    """Run a benchmark; its last line and all that it printed."""
    done = subprocess.run(
        [sys.executable, "-m", f"bench.{name}", *flags.split()], cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1]), done.stdout


def test_median_ratio_is_that_of_the_rounds():
    assert harness.median_ratio([1.0, 8.0, 3.0], [2.0, 8.0, 4.0]) == 0.75


def test_rounds_measure_in_turn():
    calls = []
    results = harness.rounds(3, {name: lambda name=name: calls.append(name) or len(calls) for name in "ab"})
    assert calls == list("ababab")
    assert results == {"a": [1, 3, 5], "b": [2, 4, 6]}


def test_report_ends_with_json(capsys):
    harness.report([{"game": "Pong-v0", "ratio": 0.123456}], {"ratio": 0.123456, "points": [1.5]})
    *table, last = capsys.readouterr().out.splitlines()
    assert [line.split() for line in table] == [["game", "ratio"], ["Pong-v0", "0.123"]]
    assert json.loads(last) == {"ratio": 0.1235, "points": [1.5]}


def test_a_document_gets_what_stands_between_its_marks(tmp_path):
    path = tmp_path / "page.md"
    path.write_text("x\n<!-- games -->\nold\nlines\n<!-- /games -->\ny")
    harness.put(r"b\1", path, "games")
    assert path.read_text() == "x\n<!-- games -->\nb\\1\n<!-- /games -->\ny"
    with pytest.raises(ValueError, match="no marks <!-- models -->"):
        harness.put("b", path, "models")


@pytest.mark.long
def test_simulators():
    flags = "--games Pong-v0 Breakout-v0 --rounds 1 --seconds 0.3 --simulator-proc 2 --num-envs 4"
    result, table = run("simulators", flags)
    assert result["benchmark"] == "simulators"
    assert result["game"] in ("Pong-v0", "Breakout-v0")
    assert 0 < result["least"] <= result["ratio"] <= result["most"] < 1.5
    assert 100 < result["states_per_s"] < 1e5
    assert "Pong-v0" in table
    assert "Breakout-v0" in table


@pytest.mark.long
def test_transport():
    result, _ = run("transport", "--rounds 1 --seconds 0.6 --simulator-proc 2 --num-envs 8")
    parts = [result[f"{part}_us"] for part in ("simulator", "socket", "decode", "stack")]
    assert min(parts[0], *parts[2:]) > 0
    assert sum(parts) == pytest.approx(1e6 * result["cores"] / result["states_per_s"], rel=1e-3)


class FakeCluster:
    """A fake of a cluster: its one host is this machine, without Ray."""

    def __init__(self, config):
        assert config.ray == "local"
        self.master = wires._over(RemoteWire, "lz4")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.mark.long
def test_the_ways_to_a_cluster(monkeypatch, capsys):
    monkeypatch.setattr(wires, "Cluster", FakeCluster)
    flags = "--ray --rounds 1 --seconds 0.2 --simulator-proc 2 --num-envs 8"
    monkeypatch.setattr("sys.argv", ["transport", *flags.split()])
    transport.main()
    *_, last = (table := capsys.readouterr().out).splitlines()
    result = json.loads(last)
    ways = {row["wire"]: row for row in result["wires"]}
    assert set(ways) == {"ipc", "tcp", "tcp, CURVE", "tcp, lz4, CURVE", "the same by Ray"}
    assert all(row["states/s"] > 100 for row in ways.values())
    assert result["ratio"] == pytest.approx(ways["tcp, lz4, CURVE"]["of ipc"], abs=1e-4)
    assert "learner's CPU, us a state" in table


@pytest.mark.long
def test_latency():
    result, _ = run("latency", "--rounds 1 --seconds 0.3 --games 2 4 --milliseconds 0 20")
    rows = {(row["games"], row["round trip, ms"]): row for row in result["rows"]}
    assert rows[4, 0.0]["plays"] == 1
    assert rows[2, 20.0]["plays"] < 0.8  # a step takes far less
    assert rows[2, 20.0]["computed"] < rows[4, 20.0]["computed"] < rows[4, 0.0]["computed"] == 1


@pytest.mark.long
def test_train(monkeypatch, capsys):
    parts = {"step": 200e-6, "forward": 100e-6, "train": 300e-6}
    monkeypatch.setattr(train, "limit", lambda config, seconds: {**parts, "states_per_s": 1000.0})
    monkeypatch.setattr("sys.argv", ["train", *SHORT, "--rounds", "1", "--epoch-updates", "2"])
    train.main()
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result["step_us"], result["forward_us"], result["train_us"]) == pytest.approx((200, 100, 300))
    assert result["limit_states_per_s"] == 1000
    assert 10 < result["states_per_s"] < 1e5
    assert result["ratio"] == pytest.approx(result["states_per_s"] / 1000, abs=1e-3)  # rounded


def test_the_limit_is_that_of_all_cores_with_each_state_trained_on_as_often_as_it_is_used(monkeypatch):
    step = {"frame": 40e-6, "screen": 20e-6, "resize": 60e-6}
    costs = {step_seconds: step, network_seconds: {"forward": 50e-6, "train": 100e-6}}
    fake_core = SimpleNamespace(run=lambda function, *args: [costs[function]])
    monkeypatch.setattr(harness, "Cores", lambda number: contextlib.nullcontext(fake_core))
    monkeypatch.setattr(train, "usable_cores", lambda: 4)
    config = parse_args(["--env", "Pong-v0", "--sample-reuse", "3"]).resolve(4, 0)
    found = train.limit(config, seconds=1)
    assert found == pytest.approx(  # a step is 3 frames on average
        {"step": 200e-6, "forward": 50e-6, "train": 300e-6, "states_per_s": 4 / 550e-6}
    )
