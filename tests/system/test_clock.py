"""The clock that stands still while the process does."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from a3c.system import clock as running_clock
from a3c.system.clock import RunningClock

import pytest

ROOT = Path(__file__).resolve().parents[2]
CODE = """
import sys, time
from a3c.system.clock import running_s
for _ in sys.stdin:
    print(running_s(), time.monotonic(), flush=True)
"""


def test_it_goes_as_time_does():
    clock, start = RunningClock(), time.monotonic()
    while time.monotonic() - start < 1.6:  # three looks
        assert clock() == pytest.approx(time.monotonic() - start, abs=0.4)


def test_what_comes_between_two_looks_counts_for_no_more_than_a_second(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(running_clock.time, "monotonic", lambda: now[0])
    clock = RunningClock()
    for later, counted in ((0.3, 0.3), (0.9, 0.9), (1.1, 1.0), (500.0, 1.0)):
        now[0] = 100.0 + later
        assert clock() == pytest.approx(counted)


def test_a_process_that_is_stopped_counts_nothing():
    with subprocess.Popen([sys.executable, "-c", CODE], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True) as process:  # fmt: skip

        def ask() -> tuple[float, float]:
            process.stdin.write("\n")
            process.stdin.flush()
            ran, clock = map(float, process.stdout.readline().split())
            return ran, clock

        ran, before = ask()
        process.send_signal(signal.SIGSTOP)
        time.sleep(4)  # this is what is measured
        process.send_signal(signal.SIGCONT)
        ran_after, after = ask()
        process.kill()
    assert after - before > 4
    assert 0 <= ran_after - ran < 2.5
