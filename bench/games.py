"""What the defaults learn of each game of the published table in one million steps: ``make bench-learning ARGS=games``.

The games are trained one after the other, one seed each. Of each, three policies then play 30 episodes under the
``-v0`` protocol, cut at 10,000 steps so that no game takes hours: uniformly random actions, the final weights with
actions sampled, and greedily with 1% random actions. A game's row goes to results/games.json when it is done. Called
again, it goes on where it was stopped: a training is resumed, a row that is there is not made again.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from a3c.playing.episode import GREEDY, Policy, greedy_actions, sampled_actions
from a3c.playing.evaluation import evaluate
from a3c.seeds import Purpose, Seeds
from a3c.system.machine import usable_cores
from a3c.weights.checkpoints import saved_steps
from a3c.weights.file_policy import FilePolicy
from a3c.weights.model_file import read_model
from bench import harness
from bench.command_line import ROOT, ended, start

import numpy as np

RESULTS = Path("results/games.json")
_RUNS = Path("train_log/games")
SEED, EPISODES, MOST_STEPS = 0, 30, 10_000
_EPOCHS, _EPOCH_UPDATES = 12, 326
UPDATES = _EPOCHS * _EPOCH_UPDATES  # to a million steps, 256 in each
POLICIES = ("random", "sampled", "greedy")


def games() -> list[str]:
    """The ``-v0`` ids of the published table."""
    return [
        f"{name}-v0" for name in json.loads((ROOT / "a3c" / "reports" / "published_scores.json").read_text())["scores"]
    ]


def training_flags(seed: int) -> tuple[str, ...]:
    """Of a training of a million steps."""
    return ("--seed", str(seed), "--steps-per-epoch", str(_EPOCH_UPDATES), "--max-epoch", str(_EPOCHS),
            "--eval-every", "0", "--max-to-keep", "2")  # fmt: skip


def run(flags: tuple[str, ...] = training_flags(SEED), env_ids: list[str] | None = None, path: Path = RESULTS) -> dict:
    """Train and score the games that have no row yet; returns the rows by game."""
    rows = json.loads(path.read_text()) if path.exists() else {}
    for env_id in env_ids or games():
        if env_id not in rows:
            harness.progress(f"{env_id}: one million steps, {len(rows)} games are done")
            train(env_id, flags, _RUNS / env_id)
            harness.progress(f"{env_id}: 3 x {EPISODES} episodes")
            rows[env_id] = score(env_id, _RUNS / env_id)
            harness.save(rows, path)
    harness.progress("")
    return rows


def train(env_id: str, flags: tuple[str, ...], output: Path) -> None:
    """Train to the last epoch, from where it was stopped. Raises RuntimeError: it ended early."""
    if _is_done(output, flags):
        return
    begin = ["--resume"] if saved_steps(output) else ["--env", env_id, *flags]
    arguments = [*begin, "--output", str(output)]
    output.mkdir(parents=True, exist_ok=True)
    with (output / "output.txt").open("a") as log:
        training = start(*arguments, stdout=log, start_new_session=False).process
        with ended(training):
            status = training.wait()
    if status != 0:
        raise RuntimeError(f"train-atari.py {' '.join(arguments)} ended with status {status}: see {output}/output.txt")


def _is_done(output: Path, flags: tuple[str, ...]) -> bool:
    given = dict(zip(flags[::2], flags[1::2], strict=True))
    steps = saved_steps(output)
    return bool(steps) and steps[-1] >= int(given["--steps-per-epoch"]) * int(given["--max-epoch"])


def score(
    env_id: str,
    output: Path,
    policies: tuple[str, ...] = POLICIES,
    episodes: int = EPISODES,
    most_steps: int = MOST_STEPS,
) -> dict:
    """A game's row: the scores of the policies, and what the training was."""
    model = read_model(str(output / f"{env_id}.npz"))
    actions = model.num_actions

    def uniform(states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.full((len(states), actions), 1 / actions, np.float32), np.zeros(len(states), np.float32)

    def play(policy: Policy, choose) -> dict:
        player_args = {"env_id": env_id, "max_episode_steps": most_steps}
        seeds = Seeds(SEED, Purpose.EVALUATION)
        scores = evaluate(policy, player_args, episodes, 2 * usable_cores(), seeds, choose=choose)
        return {"mean": scores.mean, "stderr": scores.stderr, "scores": list(scores.scores)}

    trained = FilePolicy(model, usable_cores())
    epochs = json.loads((output / "stats.json").read_text())
    plays = dict(zip(POLICIES, ((uniform, sampled_actions), (trained, sampled_actions), (trained, greedy_actions)),
                     strict=True))  # fmt: skip
    return {
        **{name: play(*plays[name]) for name in policies},
        "protocol": f"actions sampled, or {GREEDY}; {episodes} episodes, cut at {most_steps:,} steps",
        **{name: model.metadata[name] for name in ("steps", "emulator_frames", "updates", "seed", "cores")},
        "train_minutes": model.metadata["train_minutes"],
        "states_per_s": float(np.median([epoch["states_per_s"] for epoch in epochs])),
        "curve": [[epoch["steps"], epoch.get("online_score"), epoch["entropy"]] for epoch in epochs],
        "versions": {**model.metadata["versions"], "commit": _commit()},
        "processor": _processor(),
    }


def _commit() -> str:
    shown = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return shown.stdout.strip() or "not known"


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "not known")
