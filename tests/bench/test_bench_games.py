"""The table of all games, on a few seconds of real training."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from a3c.weights.checkpoints import saved_steps
from bench import games
from bench.command_line import SHORT, begin_session
from bench.games import score

import numpy as np
import pytest

FLAGS = ("--steps-per-epoch", "4", "--max-epoch", "2", *SHORT)


def test_a_million_steps():
    flags = games.training_flags(seed=1)
    given = dict(zip(flags[::2], flags[1::2], strict=True))
    assert given["--seed"] == "1"
    states = 256 * int(given["--steps-per-epoch"]) * int(given["--max-epoch"])
    assert states == 256 * games.UPDATES
    assert 1_000_000 <= states < 1_010_000


FAKE_TRAINING = """
import sys, time
from a3c.system.stopping import StopRequest

stop = StopRequest()
stop.listen()
stop.defer()
print("begun", flush=True)
while stop.signal is None:
    time.sleep(0.01)
time.sleep(0.5)  # it saves: a second signal would end it meanwhile
print("saved", flush=True)
"""
OWNER = """
import subprocess, sys
from bench.command_line import ended

training = subprocess.Popen([sys.executable, "-c", sys.argv[1]])
with ended(training):
    training.wait()
"""


@pytest.mark.parametrize("send", [os.killpg, os.kill])
def test_a_training_is_saved_whether_it_hears_the_signal_too_or_not(send, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    code = OWNER if send is os.killpg else OWNER.replace("\n\n", "\nimport bench.command_line as c; c._STOP_S = 1\n\n")
    owner = subprocess.Popen([sys.executable, "-c", code, FAKE_TRAINING], stdout=subprocess.PIPE, text=True,
                             stderr=subprocess.DEVNULL, start_new_session=True,
                             preexec_fn=begin_session)  # fmt: skip
    try:
        assert owner.stdout.readline() == "begun\n"
        send(owner.pid, signal.SIGINT)
        assert owner.communicate(timeout=30)[0] == "saved\n"
        assert owner.returncode != 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(owner.pid, signal.SIGKILL)


@pytest.mark.long
def test_a_row_is_made_once_and_a_training_goes_on(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(games, "score", lambda env_id, output: {"steps": saved_steps(output)})
    shorter = (*FLAGS[:2], "--max-epoch", "1", *FLAGS[4:])
    games.train("Breakout-v0", shorter, Path("train_log/games/Breakout-v0"))  # as if it had been stopped
    config = Path("train_log/games/Breakout-v0/config.json")
    config.write_text(config.read_text().replace('"max_epoch": 1', '"max_epoch": 2'))
    rows = games.run(FLAGS, ["Breakout-v0"])
    assert rows == {"Breakout-v0": {"steps": [0, 4, 8]}}
    monkeypatch.setattr(games, "train", pytest.fail)
    assert games.run(FLAGS, ["Breakout-v0"]) == rows == json.loads(games.RESULTS.read_text())
    row = score("Breakout-v0", Path("train_log/games/Breakout-v0"), episodes=3, most_steps=40)
    assert {name: len(row[name]["scores"]) for name in ("random", "sampled", "greedy")} == {
        "random": 3, "sampled": 3, "greedy": 3,
    }  # fmt: skip
    assert row["sampled"]["mean"] == np.mean(row["sampled"]["scores"])
    assert (row["updates"], len(row["curve"])) == (8, 2)
    assert "cut at 40 steps" in row["protocol"]
    json.dumps(row)
