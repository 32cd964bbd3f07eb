"""Numbers go wrong: the run stops there, says where, and keeps what was good."""

from __future__ import annotations

import random
import re
from pathlib import Path

from a3c.weights.checkpoints import newest_whole, saved_steps
from a3c.weights.model_file import read_model
from a3c.weights.paths import expand
from tests.faults.trial import EPOCH_UPDATES, Trials, expect_end, train, without_traceback

import numpy as np

_SCRIPT = "tests/fakes/poisoned.py"
# After the first checkpoint: an epoch is 512 states, and a prediction is of at least 2.
_PREDICTIONS, _UPDATES = (500, 700), (EPOCH_UPDATES, 3 * EPOCH_UPDATES)


def losses(directory: Path, trials: int, rng: random.Random) -> Trials:
    """The loss: the run stops at that update and writes its batch; the checkpoints are from before it."""
    for trial in range(trials):
        output, update = directory / f"{trial}", rng.randrange(9, 24)
        out = expect_end(train(output, "--learning-rate", f"0.001,{update}:1e30"), 1)
        number, told, _ = _told(output, out)
        assert "the loss is" in told, told
        assert update <= number <= update + 2, (update, number)
        _expect_good(output, number)
        yield ""


def policies(directory: Path, trials: int, rng: random.Random) -> Trials:
    """The policy: a predictor's probabilities for one state, once, or the weights, from an update on."""
    for trial in range(trials):
        output, what = directory / f"{trial}", ("prediction", "weights")[trial % 2]
        correction = rng.choice(("clipped-is", "vtrace", "clipped-surrogate"))
        moment = rng.randrange(*_PREDICTIONS if what == "prediction" else _UPDATES)
        run = train(output, "--correction", correction, what, str(moment), script=_SCRIPT)
        number, told, batch = _told(output, expect_end(run, 1))
        if what == "prediction":
            assert "not finite in its batch: mu" in told, told
            (offending,) = map(tuple, np.argwhere(np.isnan(batch["mu"])))
            assert batch["state"][offending].any()
        else:
            assert number == moment + 1, (number, moment)
        _expect_good(output, number)
        yield what


def rewards(directory: Path, trials: int, rng: random.Random) -> Trials:
    """A reward: it is the game's failure, told with its traceback, before anything is learned from it."""
    for trial in range(trials):
        output, reward = directory / f"{trial}", ("nan", "inf", "-inf")[trial % 3]
        run = train(output, "reward", f"{reward}:{rng.randrange(300, 600)}", script=_SCRIPT)
        out = expect_end(run, 1)
        assert out.count("Traceback") == 1, out[-3000:]
        assert re.search(rf"simulator \d fails:(.|\n)*a reward that is not finite: \[.*{reward}.*\]", out), out[-3000:]
        _expect_good(output)
        yield reward


def _told(output: Path, out: str) -> tuple[int, str, dict[str, np.ndarray]]:
    """The update that a run says it stopped at, that line, and the batch it has written."""
    without_traceback(out)
    (told,) = re.findall(r"^train-atari\.py: update \d+: .*$", out, re.MULTILINE)
    (path,) = output.glob("batch-of-update-*.npz")
    number = int(path.stem.rpartition("-")[2])
    assert f"update {number}:" in told, told
    assert str(path) in told, told
    with np.load(path, allow_pickle=False) as arrays:
        batch = dict(arrays)
    assert batch["state"].shape[-3:] == (84, 84, 12)
    return number, told, batch


def _expect_good(output: Path, update: int | None = None) -> None:
    """Raise AssertionError unless there is a checkpoint, none is from after this update, all is finite and loads."""
    assert saved_steps(output), "nothing was saved"
    assert update is None or saved_steps(output)[-1] < update, (saved_steps(output), update)
    assert newest_whole(output).endswith(f"-{saved_steps(output)[-1]}")
    (model,) = expand((str(output),))
    assert all(np.isfinite(v).all() for v in read_model(model).variables.values())
