"""Models that come with the project: the final weights of runs, in half the bytes, with their evaluation.

    python -m bench.models RUN_OR_MODEL [...]

The weights of the largest layer are rounded to float16, the file is compressed. The rounded policy then plays 100
episodes as ``--task eval`` does, and the exact one is asked what it would do: if it would act differently in one of the
first 10,000 states, nothing is written and the status is 1. Else models/GAME.npz holds the weights, the run's metadata
and the evaluation, and models/GAME.json the score of each episode. docs/results.md gets a table of them.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from a3c.errors import UsageError
from a3c.playing.episode import GREEDY, Policy
from a3c.playing.evaluation import evaluate
from a3c.reports.scores import Evaluation
from a3c.seeds import Purpose, Seeds
from a3c.system.machine import usable_cores
from a3c.weights.file_policy import FilePolicy
from a3c.weights.model_file import ModelFile, read_model, write_model
from a3c.weights.paths import choose
from atari_wrapper import get_protocol
from bench import harness
from bench.command_line import ROOT

import numpy as np

MODELS = ROOT / "models"
DOCUMENT = ROOT / "docs" / "results.md"
EPISODES, STATES, SEED = 100, 10_000, 0


class Compared:
    """A policy that plays, and another that is asked about the same states.

    Attributes:
        states: how many it was asked about.
        others: in how many of them its most probable action was another.
    """

    def __init__(self, plays: Policy, asked: Policy, states: int = STATES):
        """``states``: from so many on, the other one is not asked any more."""
        self._plays, self._asked, self._most = plays, asked, states
        self.states = self.others = 0

    def __call__(self, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        policy, value = self._plays(states)
        if self.states < self._most:
            policy_of_asked, _ = self._asked(states)
            self.states += len(states)
            self.others += int((policy.argmax(axis=1) != policy_of_asked.argmax(axis=1)).sum())
        return policy, value


def rounded(model: ModelFile) -> ModelFile:
    """The model with the weights of its largest layer as float16."""
    largest = max(model.variables, key=lambda name: model.variables[name].size)
    return model._replace(variables=model.variables | {largest: model.variables[largest].astype(np.float16)})


def pack(model: ModelFile, directory: Path, episodes: int = EPISODES, **player_args) -> dict:
    """Round, compare, evaluate and write a model; a line of the table.

    Args:
        model: of a run.
        directory: for ``GAME.npz`` and ``GAME.json``.
        episodes: of the evaluation.
        player_args: of the game, but for its id.

    Raises:
        RuntimeError: the rounded policy acts differently; nothing is written.
    """
    env_id, small = model.metadata["env"], rounded(model)
    compared = Compared(FilePolicy(small, usable_cores()), FilePolicy(model, usable_cores()))
    scores = evaluate(compared, {"env_id": env_id, **player_args}, episodes, 2 * usable_cores(),
                      Seeds(SEED, Purpose.EVALUATION))  # fmt: skip
    if compared.others:
        raise RuntimeError(f"{model.path}: rounded, it acts differently in {compared.others} of {compared.states:,} "
                           "states: it was not written")  # fmt: skip
    path = directory / f"{env_id}.npz"
    record = Evaluation(path.name, get_protocol(env_id), GREEDY, scores, episodes).record()
    evaluation = {name: record[name] for name in ("mean", "stderr", "episodes")} | {"protocol": GREEDY}
    write_model(path, small.variables, model.metadata | {"evaluation": evaluation}, compressed=True)
    harness.save(record, path.with_suffix(".json"))
    return {
        "game": env_id,
        **{name: record[name] for name in ("mean", "stderr", "min", "max", "published")},
        "states compared": compared.states,
        "MB": path.stat().st_size / 1e6,
    }


def table(directory: Path) -> str:
    """The models that were packed into a directory, in Markdown; links as from ``docs/``."""
    lines = ["| game | score | standard deviation | lowest to highest | published | steps | minutes |",
             "|---|--:|--:|---|--:|--:|--:|"]  # fmt: skip
    for path in sorted(directory.glob("*.npz")):
        metadata = read_model(str(path)).metadata
        if "evaluation" in metadata:
            scored = json.loads(path.with_suffix(".json").read_text())
            published = "" if scored["published"] is None else f"{scored['published']:,.0f}"
            lines.append(
                f"| [{path.stem}](../models/{path.name}) | **{scored['mean']:,.0f}** ± {scored['stderr']:,.0f} | "
                f"{np.std(scored['scores'], ddof=1):,.0f} | {scored['min']:,.0f} to {scored['max']:,.0f} | "
                f"{published} | {metadata['steps'] / 1e6:.1f} M | {metadata['train_minutes']:.0f} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Pack each model, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="output directories of runs, or model files")
    rows, problems = [], []
    for path in parser.parse_args().models:
        harness.progress(path)
        try:
            rows.append(pack(read_model(choose(path)), MODELS))
        except (RuntimeError, UsageError) as error:
            problems.append(str(error))
    harness.progress("")
    for text in problems:
        print(text, file=sys.stderr)
    if rows:
        harness.put(table(MODELS), DOCUMENT, "models")
        harness.report(rows, {"benchmark": "models", "models": rows})
    if problems:
        sys.exit(1)


if __name__ == "__main__":
    main()
