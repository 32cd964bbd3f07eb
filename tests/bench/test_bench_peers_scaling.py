"""The benchmarks of scaling and of peers: they run, and their figures agree with each other."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

from a3c.flags import parse_args
from bench import learning_peers, peer_simulators, peers

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(*args) -> tuple[list[str], dict]:
    """Run a benchmark's module from the project's root: what it printed, and its last line."""
    command = [sys.executable, "-m", *map(str, args)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    *lines, last = done.stdout.splitlines()
    return lines, json.loads(last)


@pytest.mark.long
def test_scaling(tmp_path):
    grid = ("--processes", 1, 2, "--games-per-process", 2, "--rounds", 1, "--seconds", 0.3)
    lines, result = run("bench.scaling", *grid, "--plot", tmp_path / "scaling.png")
    points = result["points"]
    assert [(point["processes"], point["games_per_process"]) for point in points] == [(1, 2), (2, 2)]
    for point in points:
        assert point["states_per_s"] > 0
        assert point["ratio"] == pytest.approx(point["states_per_s"] / result["limit_states_per_s"], abs=1e-3)
        assert 1 < point["unique_mb"] < result["unique_mb_goal"]
        assert point["unique_mb_per_game"] == pytest.approx(point["unique_mb"] / 2, abs=1e-3)
    assert result["unique_mb"] == max(point["unique_mb"] for point in points)
    assert "of the limit" in lines[-len(points) - 1]
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.long
def test_peers_of_the_simulators():
    layout = ("--simulator-proc", 1, "--num-envs", 2, "--peer-settings", "4/2")
    lines, result = run("bench.peers", "--part", "simulators", "--rounds", 1, "--seconds", 0.3, *layout)
    speeds = result["states_per_s"]["simulators"]
    assert set(result["ratios"]) == set(peer_simulators.SIMULATOR_PEERS)
    assert speeds[peer_simulators.OURS] > 0
    for name, ratio in result["ratios"].items():
        (line,) = (line for line in lines if name in line)
        if speeds[name] is None:
            assert ratio is None
            assert "not installed" in line
        else:
            assert ratio == pytest.approx(speeds[peer_simulators.OURS] / speeds[name], rel=1e-3)
            assert "4 games, batches of 2" in line
    assert speeds["AtariVectorEnv"] is not None
    assert (speeds["EnvPool"] is None) == (importlib.util.find_spec("envpool") is None)


def test_the_training_that_is_compared_is_the_same_work():
    configs = {name: parse_args(flags).resolve(2, 0) for name, (flags, _) in peers.training_flags(32).items()}
    for name, (_, batch) in peers.training_flags(32).items():
        assert configs[name].batch_size == configs[name].pool_states == batch
        assert configs[name].num_envs == 32
        assert configs[name].sample_reuse == 1
    like_a2c = configs[peers.TRAIN_PEERS[peers.A2C]]
    assert like_a2c.batch_size == 32 * like_a2c.local_time_max == 640
    original, ours = configs["original's layout"], configs[peers.TRAIN_PEERS["original's layout"]]
    assert set(original.envs_per_simulator) == {1}
    assert len(ours.envs_per_simulator) == 4
    for name in ("network", "local_time_max", "batch_size", "correction", "gae_lambda"):
        assert getattr(original, name) == getattr(ours, name)


@pytest.mark.long
def test_peers_of_the_learning(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["learning_peers", "a2c", "ppo", "--minutes", "0.2", "--episodes", "1"])
    if importlib.util.find_spec("stable_baselines3") is None:
        with pytest.raises(SystemExit, match=r"^Stable-Baselines3 is not installed here: type make"):
            learning_peers.main()
        return
    learning_peers.main()
    record = json.loads((tmp_path / "results" / "pong.json").read_text())
    assert set(record["settings"]) == {"Stable-Baselines3 A2C", "Stable-Baselines3 PPO"}
    for setting in record["settings"].values():
        run = setting["runs"]["0"]
        assert -21 <= run["final"]["mean"] == run["final"]["scores"][0] <= 21
        assert run["curve"][-1]["train_minutes"] >= 0.2
        assert 2 * run["curve"][-1]["steps"] < run["curve"][-1]["emulator_frames"] < 4.5 * run["curve"][-1]["steps"]
