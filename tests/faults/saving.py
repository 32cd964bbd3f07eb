"""Saving and resuming: killed while it saves, damaged files, a full disk, a directory that cannot be written."""

from __future__ import annotations

import random
import resource
import signal
import time
from pathlib import Path

from a3c.weights.checkpoints import newest_whole, saved_steps
from a3c.weights.model_file import read_model
from bench.command_line import SHORT, start, stats
from tests.faults.trial import (
    EPOCH_UPDATES,
    Trials,
    expect_end,
    expect_nobody,
    train,
    wait_for,
    without_traceback,
)

import psutil


def kills_while_saving(directory: Path, trials: int, rng: random.Random) -> Trials:
    """Kill a run that saves all the time, and resume it, over and over: it always goes on, and never from the start."""
    output, newest = directory / "run", 0
    for trial in range(trials):
        flags = ("--resume",) if trial else (*SHORT, "--steps-per-epoch", "1", "--max-to-keep", "3")
        run = start("--output", str(output), *flags)
        run.read_until(f"Start Epoch {newest + 3} ")
        time.sleep(rng.uniform(0, 2))
        run.process.kill()
        run.finish()
        expect_nobody(run)
        prefix = newest_whole(output)
        step = int(prefix.rpartition("-")[2])
        assert step >= newest + 2, f"resumed at {newest}, killed later, and found {step}"
        assert step == saved_steps(output)[-1], "the newest checkpoint was not whole"
        assert len(saved_steps(output)) <= 4
        newest = step
        yield ""
    read_model(str(output / "Pong-v0.npz"))


def damaged_files(directory: Path, trials: int, rng: random.Random) -> Trials:
    """Cut or change the newest checkpoint, and cut ``stats.json``: that is told, and the one before is taken."""
    output = directory / "run"
    expect_end(train(output, "--max-epoch", "2"), 0)
    for trial in range(trials):
        *_, before, newest = saved_steps(output)
        path = output / f"model-{newest}.{('data-00000-of-00001', 'index')[trial % 2]}"
        content = bytearray(path.read_bytes())
        if trial % 4 < 2:
            path.write_bytes(content[: rng.randrange(len(content))])
        else:
            at = rng.randrange(len(content))
            content[at] ^= 0xFF
            path.write_bytes(content)
        cut = output / "stats.json"
        cut.write_text(cut.read_text()[: -rng.randrange(1, 200)])
        last_epoch = newest // EPOCH_UPDATES
        out = expect_end(start("--resume", "--output", str(output), "--max-epoch", str(last_epoch)), 0)
        assert f"model-{newest} is not whole" in out, out[-3000:]
        assert "stats.json is not whole" in out, out[-3000:]
        assert saved_steps(output)[-1] == newest
        assert stats(output)[-1]["epoch_num"] == last_epoch
        assert before in saved_steps(output)
        yield "cut" if trial % 4 < 2 else "changed"


def refused_writes(directory: Path, trials: int, rng: random.Random) -> Trials:
    """Nothing can be written for a while: that is told, training goes on, and the next save that can is made."""
    output = directory / "run"
    run = train(output, "--max-epoch", "100000", script="tests/fakes/obedient.py")
    run.read_until("Start Epoch 2")
    learner = psutil.Process(run.process.pid)
    for trial in range(trials):
        is_full = trial % 2 == 0
        run.discard()
        if is_full:
            learner.rlimit(resource.RLIMIT_FSIZE, (rng.randrange(100_000), resource.RLIM_INFINITY))
        else:
            output.chmod(0o555)
        run.read_until("could not be written")
        prefix = newest_whole(output)
        learner.rlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        output.chmod(0o755)
        wait_for(lambda before=prefix: newest_whole(output) != before, 30, "a checkpoint afterwards", run)
        yield "full disk" if is_full else "read-only directory"
    run.process.send_signal(signal.SIGTERM)
    without_traceback(expect_end(run, 143))
    assert newest_whole(output).endswith(f"-{saved_steps(output)[-1]}")


def full_at_the_end(directory: Path, trials: int, rng: random.Random) -> Trials:
    """Nothing can be written any more when a run ends: it says from where on its learning is lost, and has failed."""
    for trial in range(trials):
        output, by_signal = directory / f"{trial}", trial % 2 == 0
        run = train(output, "--max-epoch", "100000" if by_signal else "12")
        run.read_until("Start Epoch 3")
        psutil.Process(run.process.pid).rlimit(resource.RLIMIT_FSIZE, (rng.randrange(100_000), resource.RLIM_INFINITY))
        seen = ""
        if by_signal:
            seen = run.read_until("could not be written")
            run.process.send_signal(signal.SIGTERM)
        out = seen + expect_end(run, 1)
        without_traceback(out)
        newest = saved_steps(output)[-1]
        assert f"what was learned after that of step {newest} is lost" in out, out[-3000:]
        assert newest_whole(output) == str(output / f"model-{newest}")
        if by_signal:
            epoch = newest // EPOCH_UPDATES + 1
            expect_end(start("--resume", "--output", str(output), "--max-epoch", str(epoch)), 0)
            assert stats(output)[-1]["epoch_num"] == epoch
        yield "by a signal" if by_signal else "after the last epoch"
