"""Nothing moves any more: the run says what is stuck and ends. A pause of the process is no such thing."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

from bench.command_line import stats
from tests.faults.trial import Trials, expect_end, expect_learning, train, without_traceback

_STAGES = ("simulators", "predictors", "learner")


def stalls(directory: Path, trials: int, rng: random.Random) -> Trials:
    """No batch comes: the run says which stage is stuck, with the stacks of its threads, and ends."""
    flags = ("--stall-timeout", "4")
    for first in range(0, trials, len(_STAGES)):  # side by side, as most of the time they wait
        runs = {}
        for trial, stage in zip(range(first, trials), _STAGES, strict=False):
            script = "train-atari.py" if stage == "simulators" else "tests/fakes/hanging.py"
            what = () if stage == "simulators" else (stage,)
            runs[stage] = train(directory / f"{trial}", *flags, *what, script=script)
        runs["simulators"].read_until("Start Epoch 2")
        for pid in runs["simulators"].simulators():
            os.kill(pid, signal.SIGSTOP)
        for stage, run in runs.items():
            out = expect_end(run, 1)
            assert f"blocked: {stage}" in out, out[-3000:]
            assert "thread master:" in out, out[-3000:]
            if stage == "simulators":
                assert "Checkpoint of step" in out.rpartition("Start Epoch")[2], "the begun epoch was not saved"
            yield stage


def pauses(directory: Path, trials: int, rng: random.Random) -> Trials:
    """Stop the learner's process, or all of a run's, for longer than every time-out: it goes on as if nothing was."""
    output = directory / "run"
    run = train(output, "--max-epoch", "100000", "--stall-timeout", "3", "--simulator-timeout", "3",
                "--eval-every", "3", "--eval-episode", "1")  # fmt: skip
    seen = run.read_until("Start Epoch 2")
    for trial in range(trials):
        whole = trial % 2 == 1
        time.sleep(rng.uniform(0, 1))
        pids = run.alive() if whole else [run.process.pid]
        minutes, start_s = stats(output)[-1]["train_minutes"], time.monotonic()
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(rng.uniform(5, 8))
        for pid in reversed(pids):
            os.kill(pid, signal.SIGCONT)
        expect_learning(run, output, 1)
        passed = time.monotonic() - start_s
        counted = 60 * (stats(output)[-1]["train_minutes"] - minutes)
        assert counted < passed - 3, f"{counted:.1f} s of {passed:.1f} s were counted"
        yield "all its processes" if whole else "the learner"
    assert stats(output)[-1]["simulator_restarts"] == 0
    run.process.send_signal(signal.SIGTERM)
    without_traceback(seen + expect_end(run, 143))
