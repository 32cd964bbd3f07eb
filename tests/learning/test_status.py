"""The status line: its numbers from the counters, its verdict by table, and what fits a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import termios
from types import SimpleNamespace

from a3c.cluster.cluster import HostState, Network
from a3c.learning import status
from a3c.learning.status import Line, NetworkUse, Sample, Status, duration, verdict
from a3c.system.machine import core_seconds
from bench.command_line import SHORT, start

import numpy as np
import pytest

BUSY = Status(3400, 10200, 0.65, 0.29, 0.55, 0.43, 0.97)
IDLE = BUSY._replace(cores_busy=0.4)


def test_a_sample_takes_what_the_actor_publishes():
    waits = {"simulator_wait_s": 1.0, "queue_wait_s": 2.0, "predictor_wait_s": [3.0, 5.0], "learner_wait_s": 6.0}
    actor = SimpleNamespace(collector=SimpleNamespace(steps=5, emulator_frames=15), **waits)
    sample = Sample.of(actor)
    assert (sample.steps, sample.emulator_frames, list(sample.waits_s)) == (5, 15, [1, 2, 4, 6])
    assert 0 < sample.busy_s < sample.all_s


def test_what_happened_between_two_samples():
    before = Sample(10.0, 100, 300, np.array([1.0, 2.0, 3.0, 4.0]), 50.0, 100.0)
    after = Sample(12.0, 300, 900, np.array([2.0, 2.5, 3.0, 9.0]), 53.0, 104.0)
    assert Status.between(before, after) == Status(100, 300, 0.5, 0.25, 0.0, 1.0, 0.75)  # a wait counts when it is over
    assert all(np.isfinite(Status.between(after, after)))


def test_core_seconds_count_what_is_worked():
    busy, everything = core_seconds()
    while core_seconds()[1] <= everything:  # the kernel counts in hundredths of a second
        pass
    assert core_seconds()[0] > busy - 0.005  # less than the kernel counts: a difference of large sums, rounded


NO_ROOM = {"learner": 0.05, "master_for_learner": 0.8}
WAITS = "predictors wait 55%, learner waits 43%"
VERDICTS = {
    "cores": (BUSY, False, f"cores-bound: 2 of 2 busy, {WAITS}; more cores or a GPU"),
    "learner": (IDLE._replace(**NO_ROOM), False, "learner-bound: the games wait 80% for it; a GPU or --network small"),
    "learner on a GPU": (BUSY._replace(**NO_ROOM), True, "learner-bound: the games wait 80% for it; another GPU"),
    "inference": (IDLE._replace(predictors=0.02), False, "inference-bound: predictors wait 2%, learner waits 43%; a"),
    "inference on a GPU": (IDLE._replace(predictors=0.02), True, "--predictor-thread-per-gpu or another GPU"),
    "transport": (
        IDLE._replace(master_for_simulators=0.05, master_for_learner=0.01),
        True,
        "transport-bound: it never",
    ),
    "untold cores": (
        IDLE._replace(cores_busy=0.0),
        False,
        f"simulation-bound: {WAITS}; more cores or more --num-envs",
    ),
    "few games": (IDLE, True, f"simulation-bound: {WAITS}, cores are busy 40%; more --num-envs"),
    "few cores": (BUSY, True, f"simulation-bound: {WAITS}; more cores would help"),
}


@pytest.mark.parametrize("case", VERDICTS)
def test_verdict(case):
    measured, on_gpu, text = VERDICTS[case]
    told = verdict(measured, 2, on_gpu)
    assert text in told
    assert told.endswith(" would help")


HOST = HostState("up", "10.0.0.1", "key", 0.4, 0.005)
ON_THE_WAY = NetworkUse(bytes_per_s=2.5e6, round_trip_s=0.005, share=0.6, cores_busy=0.4)
ON_HOSTS = {
    "network": (
        ON_THE_WAY,
        "network-bound: 2.5 MB/s, a round trip of 5.0 ms is 60% of a step's time, the hosts' cores",
    ),
    "near": (ON_THE_WAY._replace(share=0.3), "cores are busy 40%; more --num-envs would help"),
    "busy": (ON_THE_WAY._replace(cores_busy=0.95), "the hosts' cores are busy 95%; more --hosts would help"),
}


@pytest.mark.parametrize("case", ON_HOSTS)
def test_verdict_where_simulators_are_far(case):
    network, expected = ON_HOSTS[case]
    assert expected in verdict(IDLE, 2, False, network)
    assert verdict(IDLE._replace(**NO_ROOM), 2, False, network).startswith("learner-bound")


def test_what_is_on_the_way_follows_from_bytes_and_round_trips():
    away = HOST._replace(state="pending", round_trip_s=9.0)
    before, after = Network((HOST,), 1000, 0), Network((HOST, HOST._replace(round_trip_s=0.01), away), 5000, 1)
    used = NetworkUse.between(before, after, seconds=2.0, states_per_s=1000.0, games=60)
    assert used == NetworkUse(2000.0, 0.01, pytest.approx(0.01 * 1000 / 40), 0.4)  # two of three hosts play
    assert NetworkUse.between(before, Network((), 0, 0), 2.0, 0.0, 60).share == 0.0


def test_the_line_counts_hosts():
    line = Line("epoch 1/9", "0:10 left", 1.0, IDLE, 2.0, "network-bound: x; y", "hosts 3 of 4, 1 pending")
    assert " states/s | hosts 3 of 4, 1 pending | " in line.fit(500)
    assert line.fit(95).endswith("hosts 3 of 4, 1 pending | network-bound")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (31.4, "0:31"), (59.6, "1:00"), (3599, "59:59"), (3661, "1:01:01")]
)
def test_duration(seconds, text):
    assert duration(seconds) == text


LINE = Line("epoch 3/1000", "0:31 left", -12.74, BUSY, 5.24, "cores-bound: 2 of 2 busy; more cores would help")
FITTED = {
    200: "epoch 3/1000 | 0:31 left | score -12.7 | 3,400 states/s | 10,200 frames/s | lag 5.2 | "
         "cores-bound: 2 of 2 busy; more cores would help",
    120: "epoch 3/1000 | 0:31 left | score -12.7 | 3,400 states/s | 10,200 frames/s | lag 5.2 | "
         "cores-bound: 2 of 2 busy",
    105: "epoch 3/1000 | 0:31 left | score -12.7 | 3,400 states/s | 10,200 frames/s | lag 5.2 | cores-bound",
    85: "epoch 3/1000 | 0:31 left | score -12.7 | 3,400 states/s | lag 5.2 | cores-bound",
    71: "epoch 3/1000 | 0:31 left | score -12.7 | 3,400 states/s | cores-bound",
    60: "epoch 3/1000 | 0:31 left | score -12.7 | 3,400 states/s",
    20: "epoch 3/1000 | 0:31 ",
}  # fmt: skip


@pytest.mark.parametrize("width", FITTED)
def test_the_line_fits_the_terminal(width):
    assert LINE.fit(width) == FITTED[width]
    assert len(LINE.fit(width)) <= width


def test_before_the_first_episode_has_ended_there_is_no_score():
    assert "score - |" in LINE._replace(score=None).fit(200)


def run_on_terminal(output, columns: int) -> str:
    """What a short training shows on a terminal so wide."""
    terminal, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    run = start(*SHORT, "--steps-per-epoch", "128", "--max-epoch", "2", "--output", str(output), stderr=theirs)
    os.close(theirs)
    shown = bytearray()
    try:
        while part := os.read(terminal, 1 << 16):
            shown += part
    except OSError:  # the other end is closed
        pass
    os.close(terminal)
    run.finish()
    assert run.process.returncode == 0
    return shown.decode()


@pytest.mark.long
def test_on_a_terminal_one_line_is_refreshed_and_the_last_one_stays(tmp_path):
    shown = run_on_terminal(tmp_path / "run", columns=60)
    lines = [line.rstrip() for line in re.split(r"[\r\n]+", shown) if "epoch" in line]
    assert all(len(line) < 60 for line in lines)
    assert re.findall(r"(epoch ./2 \| \S+)[^\r\n]*\r?\n", shown) == ["epoch 1/2 | done", "epoch 2/2 | done"]
    assert any(" left |" in line for line in lines)


def test_a_terminal_that_does_not_tell_its_width_has_80_columns(monkeypatch):
    monkeypatch.setattr(status.sys, "stderr", SimpleNamespace(fileno=lambda: os.open(os.devnull, os.O_RDONLY)))
    assert status._width() == 79
