"""Nothing moves any more: the run says what is stuck and ends."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

from bench.faults.trial import Trials, expect_end, train

_STAGES = ("simulators", "predictors", "learner")


def stalls(directory: Path, trials: int, rng: random.Random) -> Trials:
    """No batch comes: the run says which stage is stuck, with the stacks of its threads, and ends."""
    for trial in range(trials):
        stage, flags = _STAGES[trial % len(_STAGES)], ("--stall-timeout", "4")
        if stage == "simulators":
            run = train(directory / f"{trial}", *flags)
            run.read_until("Start Epoch 2")
            for pid in run.simulators():
                os.kill(pid, signal.SIGSTOP)
        else:
            run = train(directory / f"{trial}", *flags, stage, script="tests/hanging.py")
        out = expect_end(run, 1)
        assert f"blocked: {stage}" in out, out[-3000:]
        assert "thread master:" in out, out[-3000:]
        yield stage
