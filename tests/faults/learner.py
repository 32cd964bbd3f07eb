"""The learner, or another task, is ended from outside: nobody is left, and what can be saved is."""

from __future__ import annotations

import contextlib
import importlib
import os
import pty
import random
import select
import signal
import time
from pathlib import Path

from a3c.weights.checkpoints import saved_steps
from bench.command_line import ROOT, start
from tests.faults.trial import STOP_S, Trials, expect_end, expect_nobody, train, without_traceback

_LONGEST_S = 6.0  # by then a run is in full swing


def ended(directory: Path, trials: int, rng: random.Random) -> Trials:
    """End the learner in all ways at all moments: nobody stays, and there is no traceback.

    Every second time python-prctl is hidden; the others use it if it is installed.
    """
    ways = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, None]
    for trial in range(trials):
        way, output = ways[trial % len(ways)], directory / f"{trial}"
        hidden = trial % 2 == 0
        env = {"PYTHONPATH": str(ROOT / "tests" / "fakes" / "without_prctl")} if hidden else {}
        moment_s = rng.uniform(0.3, _LONGEST_S)
        if way is None:
            terminal, theirs = pty.openpty()
            run = train(output, stdin=theirs, stdout=theirs, stderr=theirs, env=env)
            os.close(theirs)
            _read_for(terminal, moment_s)
            os.close(terminal)
        else:
            run = train(output, env=env)
            time.sleep(moment_s)
            run.process.send_signal(way)
        out = expect_end(run, {signal.SIGKILL: -9, None: 129}.get(way, 128 + (way or 0)), STOP_S)
        without_traceback(out)
        yield "without python-prctl" if hidden or not _has_prctl() else "with python-prctl"


def _has_prctl() -> bool:
    try:
        return hasattr(importlib.import_module("prctl"), "set_pdeathsig")
    except ImportError:
        return False


def _read_for(terminal: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        if select.select([terminal], [], [], left)[0]:
            os.read(terminal, 1 << 16)


def ended_jobs(directory: Path, trials: int, rng: random.Random) -> Trials:
    """Signal all processes of a run, as batch systems and a machine's shutdown do: it ends as by a signal to one."""
    for trial in range(trials):
        output, number = directory / f"{trial}", (signal.SIGTERM, signal.SIGHUP)[trial % 2]
        run = train(output)
        run.read_until("Start Epoch 2")
        time.sleep(rng.uniform(0, 1))
        for pid in reversed(run.alive()):
            with contextlib.suppress(ProcessLookupError):  # one that draws the curve may just have ended
                os.kill(pid, number)
        out = expect_end(run, 128 + number, STOP_S)
        without_traceback(out)
        assert f"Checkpoint of step {saved_steps(output)[-1]} saved" in out, out
        yield signal.Signals(number).name


def second_signals(directory: Path, trials: int, rng: random.Random) -> Trials:
    """A second signal ends the run at once."""
    for trial in range(trials):
        run = train(directory / f"{trial}")
        run.read_until("Start Epoch 2")
        time.sleep(rng.uniform(0, 0.5))
        run.process.send_signal(signal.SIGINT)
        run.process.send_signal(signal.SIGTERM)
        start_s = time.monotonic()
        run.process.wait(STOP_S)
        assert time.monotonic() - start_s < 1.0, "it took more than a second"
        out = run.finish()
        assert run.process.returncode in (130, 143), out
        without_traceback(out)
        expect_nobody(run)
        yield ""


def stopped_tasks(directory: Path, trials: int, rng: random.Random) -> Trials:
    """Stop an evaluation or a recording: it tidies up and leaves no half video."""
    model = str(ROOT / "models" / "Pong-v0.npz")
    for trial in range(trials):
        output, task = directory / f"{trial}", ("eval", "dump_video")[trial % 2]
        run = start("--task", task, "--load", model, "--output", str(output))
        run.read_until("sticky actions")
        time.sleep(rng.uniform(0.1, _LONGEST_S))
        number = rng.choice((signal.SIGINT, signal.SIGTERM))
        run.process.send_signal(number)
        out = expect_end(run, 128 + number, STOP_S)
        without_traceback(out)
        left = [path.name for path in output.glob("*")] + [path.name for path in output.glob(".*")]
        assert not any("unfinished" in name for name in left), left
        yield task
