"""An evaluation is stopped, or cannot write, or one of its models is bad: no episode that has ended is lost."""

from __future__ import annotations

import json
import random
import resource
import shutil
import signal
from pathlib import Path

from a3c.weights.model_file import read_model, write_model
from bench.command_line import ROOT, start
from tests.faults.trial import STOP_S, Trials, expect_end, without_traceback

import psutil

_EPISODES = 4


def evaluations(directory: Path, trials: int, rng: random.Random) -> Trials:
    """Evaluate two models, the first of them stands still: what has ended is printed and, if it can be, written."""
    still, good = directory / "still.npz", directory / "good.npz"
    shutil.copyfile(ROOT / "models" / "Pong-v0.npz", good)
    model = read_model(str(good))
    write_model(still, {**model.variables, "fc-pi/W": 0 * model.variables["fc-pi/W"]}, model.metadata)
    ways = (_broken_model, _stopped, _full_disk, _directory_is_a_file)
    for trial in range(trials):
        way = ways[trial % len(ways)]
        way([str(still), str(good)], directory / f"{trial}", rng)
        yield way.__name__.strip("_").replace("_", " ")


def _evaluate(models: list[str], output: Path, **options):
    return start("--task", "eval", "--load", *models, "--episode", str(_EPISODES), "--output", str(output), **options)


def _broken_model(models: list[str], output: Path, rng: random.Random) -> None:
    broken = output.with_suffix(".npz")
    content = Path(models[1]).read_bytes()
    broken.write_bytes(content[: rng.randrange(len(content))])
    out = expect_end(_evaluate([models[0], str(broken)], output), 2)
    without_traceback(out)
    assert "episode 1 of" not in out, "it played before it had looked at all models"
    assert str(broken) in out, out
    assert not output.exists()


def _stopped(models: list[str], output: Path, rng: random.Random) -> None:
    run, number = _evaluate(models, output), rng.choice((signal.SIGINT, signal.SIGTERM))
    seen = run.read_until(f"episode {rng.randrange(1, _EPISODES + 1)} of {_EPISODES}: score")
    run.process.send_signal(number)
    out = seen + expect_end(run, 128 + number, STOP_S)
    without_traceback(out)
    records = json.loads((output / "eval.json").read_text())
    played = out.count(f" of {_EPISODES}: score")
    assert sum(record["episodes"] for record in records) == played, (records, out)
    assert all(record["asked"] == _EPISODES for record in records)
    assert f" of {_EPISODES} episodes have ended" in out, out


def _full_disk(models: list[str], output: Path, rng: random.Random) -> None:
    run = _evaluate(models[:1], output)
    seen = run.read_until(f"episode {rng.randrange(1, _EPISODES // 2)} of")
    limit = rng.randrange(300)
    psutil.Process(run.process.pid).rlimit(resource.RLIMIT_FSIZE, (limit, limit))
    out = seen + expect_end(run, 1)
    without_traceback(out)
    assert out.count(f" of {_EPISODES}: score") == _EPISODES, out
    assert "| Pong-v0 |" in out, out
    assert "could not be written: File too large; copy it from above" in out, out
    assert not (output / "eval.md").exists()


def _directory_is_a_file(models: list[str], output: Path, rng: random.Random) -> None:
    output.write_text("mine")
    out = expect_end(_evaluate(models, output), 2)
    without_traceback(out)
    assert "it is no directory" in out, out
    assert "episode 1 of" not in out
    assert output.read_text() == "mine"
