"""Simulators are killed, cannot start, or hang: they are replaced, and nothing of two lives is mixed."""

from __future__ import annotations

import os
import random
import re
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from bench.command_line import Run, stats
from tests.faults.trial import Trials, expect_end, expect_learning, train, wait_for, without_traceback

_NOTICE_S = 2.0
_NEXT_STEP_S = 20.0
_SIMULATORS = 2
_FOR_EVER = ("--max-epoch", "100000")
# A simulator that ends three times in a row before its first step is given up: after two short lives comes a long one.
_SHORT_LIVES = 2
_LONG_LIFE_S = 3.0
# Enough games that a message is more than a socket takes at once.
_LARGE_MESSAGES = ("--num-envs", "64")


@dataclass
class _Place:
    """A simulator's place, and who has it now."""

    pid: int
    since: float
    short_lives: int = 0

    def is_young(self) -> bool:
        return time.monotonic() - self.since < _LONG_LIFE_S

    def may_end(self) -> bool:
        return self.short_lives < _SHORT_LIVES or not self.is_young()

    def pass_on(self, pid: int) -> None:
        self.pid, self.since = pid, time.monotonic()


class _Simulators:
    """Those of a run, one life after the other."""

    def __init__(self, run: Run, rng: random.Random):
        self._run, self._rng = run, rng
        wait_for(lambda: len(run.simulators()) == _SIMULATORS, 10, "two simulators")
        self._places = [_Place(pid, time.monotonic()) for pid in run.simulators()]

    def end_one(self, number: signal.Signals, within_s: float = _NEXT_STEP_S) -> None:
        """Send one of them the signal that ends it, at once or within so long; its successor must come in time."""
        wait_for(lambda: any(place.may_end() for place in self._places), 10, "a life that is long enough")
        place = self._rng.choice([place for place in self._places if place.may_end()])
        known = {place.pid for place in self._places}
        place.short_lives = place.short_lives + 1 if place.is_young() else 0
        os.kill(place.pid, number)
        wait_for(lambda: place.pid not in self._run.alive(), within_s, "its end")
        wait_for(lambda: {*self._run.simulators()} - known, _NOTICE_S, "a new simulator", self._run)
        (successor,) = {*self._run.simulators()} - known
        place.pass_on(successor)


def killed(directory: Path, trials: int, rng: random.Random) -> Trials:
    """Kill simulators of one run, one after the other; the learner never stops, and each has its successor in time."""
    output = directory / "run"
    run = train(output, *_FOR_EVER)
    seen = run.read_until("Start Epoch 2")
    simulators = _Simulators(run, rng)
    for _ in range(trials):
        time.sleep(rng.uniform(0, 0.3))
        simulators.end_one(signal.SIGKILL)
        yield ""
    expect_learning(run, output, 2)
    assert stats(output)[-1]["simulator_restarts"] == trials
    run.process.send_signal(signal.SIGTERM)
    without_traceback(seen + expect_end(run, 143))


def lives_of_transitions(directory: Path, trials: int, rng: random.Random) -> Trials:
    """No transition that the learner takes mixes two lives; its returns and actions are those of its own life."""
    return _checked_lives(directory, trials, rng, "--correction", "clipped-is")


def lives_of_unrolls(directory: Path, trials: int, rng: random.Random) -> Trials:
    """No unroll that the learner takes mixes two lives; rewards, ends and actions are those of its own life."""
    return _checked_lives(directory, trials, rng, "--correction", "vtrace")


def _checked_lives(directory: Path, trials: int, rng: random.Random, *flags: str) -> Trials:
    """One run of games that tell who they are, each batch checked; simulators are killed, every second one as it sends.

    A game that hears SIGUSR1 kills its process when a part of the next message is on its way.
    """
    output = directory / "run"
    run = train(output, *_FOR_EVER, *_LARGE_MESSAGES, *flags, script="tests/fakes/checked_lives.py")
    seen = run.read_until("Start Epoch 2")
    simulators = _Simulators(run, rng)
    for trial in range(trials):
        time.sleep(rng.uniform(0, 0.3))
        sending = trial % 2 == 1
        simulators.end_one(signal.SIGUSR1 if sending else signal.SIGKILL)
        yield "while it sends" if sending else "at any moment"
    expect_learning(run, output, 2)
    assert stats(output)[-1]["simulator_restarts"] == trials
    assert stats(output)[-1]["malformed_messages"] == 0
    run.process.send_signal(signal.SIGTERM)
    out = seen + expect_end(run, 143)
    without_traceback(out)
    checked, followed, lives = map(int, re.search(r"checked (\d+) .* (\d+) .* (\d+) lives", out).groups())
    assert lives > _SIMULATORS
    assert followed > checked / 10, out[-1000:]


def dying_at_each_start(directory: Path, trials: int, rng: random.Random) -> Trials:
    """A game that cannot be made ends the run, with its traceback."""
    for trial in range(trials):
        out = expect_end(train(directory / f"{trial}", script="tests/fakes/broken_game.py"), 1)
        assert "fake game that cannot be made" in out, out[-3000:]
        yield ""


def hanging(directory: Path, trials: int, rng: random.Random) -> Trials:
    """Stop simulators of one run; each is killed and replaced after its time."""
    output, timeout_s = directory / "run", 5
    run = train(output, "--simulator-timeout", str(timeout_s), *_FOR_EVER)
    run.read_until("Start Epoch 2")
    simulators = _Simulators(run, rng)
    for _ in range(trials):
        simulators.end_one(signal.SIGSTOP, timeout_s + 5)
        yield ""
    expect_learning(run, output, 1)
    assert stats(output)[-1]["simulator_restarts"] == trials
    run.process.send_signal(signal.SIGTERM)
    expect_end(run, 143)
