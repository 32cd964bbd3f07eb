"""Trainings and an evaluation on a cluster: where simulators are placed; deaths of a node and of the learner."""

from __future__ import annotations

import signal

from bench.command_line import SHORT, Run, start, stats
from tests.faults.trial import expect_learning

import pytest
from processes import wait_until
from ray_nodes import of_hosts

pytestmark = pytest.mark.long
CHECKED = "tests/fakes/checked_lives.py"  # games that say whose they are; each batch is checked
FLAGS = (*SHORT, "--steps-per-epoch", "8", "--host-cores", "1")


def train(nodes, output, *flags: str, script: str = "train-atari.py") -> Run:
    return start(*FLAGS, "--ray", nodes.address, "--output", str(output), *flags, script=script)


def test_a_node_dies_and_is_back_then_the_learner_dies_and_is_resumed(nodes, tmp_path):
    run = train(nodes, tmp_path, "--correction", "clipped-is", "--max-epoch", "100000", script=CHECKED)
    run.read_until("hosts 2 of 2")
    run.read_until("Start Epoch 2")
    assert len({process.ppid() for process in of_hosts() if "SimulatorHost" in process.cmdline()[0]}) == 2  # nodes
    nodes.kill_one()
    run.read_until("is lost: hosts 1 of 2, 1 pending")
    expect_learning(run, tmp_path, 2)
    nodes.replace()
    run.read_until("hosts 2 of 2")
    expect_learning(run, tmp_path, 1)
    run.process.send_signal(signal.SIGKILL)
    wait_until(lambda: not of_hosts(), 15)
    assert run.wait_all_gone(3)
    assert "Traceback" not in run.finish()
    record = stats(tmp_path)[-1]
    assert record["hosts_lost"] == 1
    assert record["simulator_restarts"] >= 1

    epochs = int(record["epoch_num"]) + 2
    run = train(nodes, tmp_path, "--resume", "--hosts", "1", "--max-epoch", str(epochs))
    out = run.finish(60)
    assert run.process.returncode == 0, out
    assert "hosts 1 of 1" in out
    assert stats(tmp_path)[-1]["epoch_num"] == epochs
    wait_until(lambda: not of_hosts(), 15)


def test_an_evaluation_plays_on_the_nodes(nodes, tmp_path):
    run = start("--task", "eval", "--load", "models/Pong-v0.npz", "--episode", "2", "--ray", nodes.address,
                "--output", str(tmp_path))  # fmt: skip
    wait_until(lambda: len([process for process in of_hosts() if "simulator" in process.cmdline()]) == 4, 30)
    run.process.send_signal(signal.SIGTERM)
    out = run.finish(30)
    assert run.process.returncode == 143, out
    wait_until(lambda: not of_hosts(), 15)
