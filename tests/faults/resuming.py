"""What a run is made of goes on when it is resumed, and comes again when it is repeated."""

from __future__ import annotations

import random
import re
import signal
import time
from pathlib import Path

from a3c.weights.checkpoints import newest_whole, saved_steps
from a3c.weights.model_file import read_model
from bench.command_line import ROOT, SHORT, start, stats
from tests.faults.trial import (
    EPOCH_UPDATES,
    Trials,
    expect_end,
    expect_nobody,
    train,
    wait_for,
    without_traceback,
)

import numpy as np


def resumed(directory: Path, trials: int, rng: random.Random) -> Trials:
    """Stop a run in the midst of an epoch and resume it: updates, Adam, epochs, schedules and steps go on."""
    import tensorflow as tf

    for trial in range(trials):
        output = directory / f"{trial}"
        run = train(output, "--learning-rate", "0.001,20:0.0005", "--max-to-keep", "2")
        run.read_until("Start Epoch 2 ")
        time.sleep(rng.uniform(0, 1))
        run.process.send_signal(signal.SIGINT)
        expect_end(run, 130)
        step, before = saved_steps(output)[-1], stats(output)
        steps = int(tf.train.load_variable(newest_whole(output), "progress/steps"))
        assert read_model(str(output / "Pong-v0.npz")).metadata["updates"] == step
        last = max(step // EPOCH_UPDATES + 2, 3)
        expect_end(start("--resume", "--output", str(output), "--max-epoch", str(last)), 0)
        after = stats(output)
        assert after[: len(before)] == before
        assert [record["global_step"] for record in after] == [EPOCH_UPDATES * (n + 1) for n in range(last)]
        assert [record["epoch_num"] for record in after] == list(range(1, last + 1))
        assert after[-1]["learning_rate"] == np.float32(0.0005)
        assert steps < after[-1]["steps"]
        ended = tf.train.load_checkpoint(newest_whole(output))
        adams_count = 0.9 ** (EPOCH_UPDATES * last + 1)
        np.testing.assert_allclose(ended.get_tensor("beta1_power"), adams_count, rtol=1e-4)
        assert len(saved_steps(output)) == 2
        yield ""


def begun_with_load(directory: Path, trials: int, rng: random.Random) -> Trials:
    """Kill a run that began from a file's weights before its first epoch has ended: it is resumed from these."""
    loaded = read_model(str(ROOT / "models" / "Pong-v0.npz")).variables
    for trial in range(trials):
        output = directory / f"{trial}"
        run = train(output, "--load", str(ROOT / "models" / "Pong-v0.npz"), "--learning-rate", "0",
                    "--steps-per-epoch", "1000")  # fmt: skip
        run.read_until("Start Epoch 1 ")
        time.sleep(rng.uniform(0, 1))
        run.process.kill()
        run.finish()
        expect_nobody(run)
        assert saved_steps(output) == [0]
        expect_end(start("--resume", "--output", str(output), "--max-epoch", "1", "--steps-per-epoch", "4"), 0)
        model = read_model(str(output / "Pong-v0.npz"))
        assert model.metadata["updates"] == 4
        assert model.metadata["begun_from"]["file"] == "Pong-v0.npz"
        for name, values in loaded.items():
            np.testing.assert_array_equal(model.variables[name], values)
        yield ""


def two_in_one_directory(directory: Path, trials: int, rng: random.Random) -> Trials:
    """Begin, continue or begin again where a run is: only the first trains, and the others are told its process."""
    for trial in range(trials):
        output = directory / f"{trial}"
        first = train(output, "--max-epoch", "100000")
        if trial % 2:
            first.read_until("Start Epoch 2 ")
        else:
            wait_for(lambda output=output: list(output.glob(".train.lock")), 60, "its lock", first)
        flags = rng.choice(((), ("--resume",)))
        second = expect_end(start(*flags, *SHORT, "--output", str(output)), 2)
        assert re.search(rf"in use by process {first.process.pid} ", second), second
        without_traceback(second)
        first.read_until("Start Epoch 3 ")
        first.process.send_signal(signal.SIGTERM)
        expect_end(first, 143)
        assert newest_whole(output)
        yield "continue" if flags else "begin"


def repeated(directory: Path, trials: int, rng: random.Random) -> Trials:
    """Two deterministic runs of a seed, side by side, are equal to the bit, and have learned something."""
    import tensorflow as tf

    flags = ("--deterministic", *SHORT, "--simulator-proc", "1", "--steps-per-epoch", "8", "--max-epoch", "2")
    for trial in range(trials):
        outputs = [directory / f"{trial}-{number}" for number in range(2)]
        seed = str(rng.randrange(1000))
        runs = [start(*flags, "--seed", seed, "--output", str(output)) for output in outputs]
        for run in runs:
            expect_end(run, 0, 120)
        one, again = (read_model(str(output / "Pong-v0.npz")).variables for output in outputs)
        assert one.keys() == again.keys()
        for name, values in one.items():
            np.testing.assert_array_equal(again[name], values, f"{name} of two runs of a seed")
        before = tf.train.load_checkpoint(str(outputs[0] / "model-0"))
        assert all((before.get_tensor(name) != one[name]).any() for name in ("conv0/W", "fc-pi/W", "fc-v/W"))
        yield ""
