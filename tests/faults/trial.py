"""What the trials share: runs that only a fault ends, deadlines, and how a run must end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.command_line import SHORT, Run, start, stats

# One item for each trial that was survived, which says how it was tried ("" if there is but one way); what is lost is
# an exception, mostly an AssertionError.
Trials = Iterator[str]

GONE_S = 3.0  # for the last process of a run, after its first
STOP_S = 15.0  # from a signal to the end
EPOCH_UPDATES = 8


def wait_for(condition: Callable[[], object], timeout_s: float, what: str, run: Run | None = None) -> None:
    """Wait for a condition. Raises AssertionError if it does not come, or if the run ends."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert run is None or run.process.poll() is None, f"the run ended:\n{run.finish()[-3000:]}"
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.02)


def train(output: Path, *flags: str, **options) -> Run:
    """Start a short training that only a fault ends, with epochs of 8 updates; options as of ``start``."""
    return start(*SHORT, "--steps-per-epoch", str(EPOCH_UPDATES), "--output", str(output), *flags, **options)


def expect_end(run: Run, status: int, timeout_s: float = 60.0) -> str:
    """Wait for a run's end; return what it printed. Raises AssertionError for another status, or if one is left."""
    out = run.finish(timeout_s)
    assert run.process.returncode == status, f"status {run.process.returncode} instead of {status}:\n{out[-3000:]}"
    expect_nobody(run)
    return out


def expect_nobody(run: Run) -> None:
    """Raise AssertionError if a process of a run that ended is left after 3 s."""
    assert run.wait_all_gone(GONE_S), "a process was left behind"


def expect_learning(run: Run, output: Path, epochs: int) -> None:
    """Wait until a run has learned for some more epochs."""
    before = len(stats(output))
    wait_for(lambda: len(stats(output)) >= before + epochs, 60, "learning goes on", run)


def without_traceback(out: str) -> None:
    """Raise AssertionError if there is a traceback in it."""
    assert "Traceback" not in out, out[-3000:]
