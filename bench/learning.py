"""Does it learn? Trains with the command line on several seeds, scores the final weights and draws the curves.

    python -m bench.learning pong|breakout|queue|correction [--seeds 0 1 2] [--minutes 120] [--draw]
    python -m bench.learning games|trials

pong, breakout: the README's command without other flags; 100 episodes of its final weights, greedy with 1% random.
queue: the original's deep queue of batches against the suite's; correction: clipped-is against vtrace. Both on a quick
game, with five seeds; their final weights are sampled from, as a policy so young is not yet one to act greedily with.

games: each game of the published table for a million steps; see games.py. trials: other defaults; see trials.py.

Runs are kept in train_log/learning; one that was interrupted is continued. What is measured goes to
results/<name>.json, and results/<name>.png is drawn from that file alone; --draw does only this.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import signal
import sys
import time
from pathlib import Path

from a3c.playing.episode import GREEDY, greedy_actions, sampled_actions
from a3c.playing.evaluation import evaluate
from a3c.reports.curves import STYLES, draw_band
from a3c.seeds import Purpose, Seeds
from a3c.system.machine import usable_cores
from a3c.weights.checkpoints import saved_steps
from a3c.weights.file_policy import FilePolicy
from a3c.weights.model_file import read_model
from bench import games, games_report, harness, trials
from bench.command_line import ended, start

import numpy as np

_RUNS = Path("train_log/learning")
RESULTS = Path("results")
_POLL_S = 1.0
_SLOWEST = 3  # times as long as its minutes of training a run may take, with its evaluations
_CURVE = ("steps", "emulator_frames", "train_minutes", "states_per_s", "policy_lag_mean", "entropy", "value_loss",
          "online_score", "mean_score", "stderr_score")  # fmt: skip
# The original's learner, with unrolls that divide a batch, as vtrace needs.
_ORIGINAL = ("--network", "small", "--local-time-max", "8", "--batch-size", "128", "--pool-states", "128",
             "--sample-reuse", "1", "--gae-lambda", "1", "--queue-size", "1")  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Settings that are compared on one game.

    Attributes:
        env: the game.
        minutes: wall clock of each run, evaluations left out.
        seeds: of the runs of each setting.
        settings: flags by name.
        episodes: of the evaluation of the final weights.
        sampled_steps: act by sampling in the evaluation, and cut its episodes at this many steps; 0: greedy, 1% random.
    """

    env: str
    minutes: float
    seeds: tuple[int, ...]
    settings: dict[str, tuple[str, ...]]
    episodes: int = 100
    sampled_steps: int = 0


EXPERIMENTS = {
    "pong": Experiment("Pong-v0", 120, (0, 1, 2), {"defaults": ()}),
    "breakout": Experiment("Breakout-v0", 120, (0,), {"defaults": ()}),
    "queue": Experiment(
        "CrazyClimber-v0", 3, (0, 1, 2, 3, 4),
        {"1 batch": (*_ORIGINAL, "--correction", "clipped-is"),
         "66 batches": (*_ORIGINAL, "--correction", "clipped-is", "--queue-size", "66")},
        episodes=20, sampled_steps=2000,
    ),
    "correction": Experiment(
        "CrazyClimber-v0", 3, (0, 1, 2, 3, 4),
        {name: (*_ORIGINAL, "--correction", name) for name in ("clipped-is", "vtrace")},
        episodes=20, sampled_steps=2000,
    ),
}  # fmt: skip
OF_MANY_GAMES = {"games": (games.run, games_report.report), "trials": (trials.run, trials.report)}


def train(env: str, flags: tuple[str, ...], seed: int, minutes: float, output: Path) -> None:
    """Train, or continue to, until the first epoch's end after ``minutes`` of training."""
    if _minutes(output) >= minutes:
        return
    resume = ["--resume"] if saved_steps(output) else ["--env", env, "--seed", str(seed), *flags]
    arguments = [*resume, "--output", str(output)]
    output.mkdir(parents=True, exist_ok=True)
    with (output / "output.txt").open("a") as log:
        training = start(*arguments, stdout=log, start_new_session=False).process
        deadline = time.monotonic() + 60 * (_SLOWEST * minutes + 10)
        with ended(training):
            while training.poll() is None and _minutes(output) < minutes and time.monotonic() < deadline:
                time.sleep(_POLL_S)
    if _minutes(output) < minutes:
        raise RuntimeError(f"train-atari.py {' '.join(arguments)} ended early: see {output}/output.txt")


def curve(output: Path) -> list[dict]:
    """What a run's ``stats.json`` has of each epoch."""
    try:
        records = json.loads((output / "stats.json").read_text())
    except (FileNotFoundError, ValueError):  # not there yet, or being written
        return []
    return [{name: record[name] for name in _CURVE if name in record} for record in records if "steps" in record]


def _minutes(output: Path) -> float:
    return max((record["train_minutes"] for record in curve(output)), default=0.0)


def final_scores(experiment: Experiment, output: Path, seed: int) -> dict:
    """Evaluate a run's final weights: raw scores and what they are of."""
    model = read_model(str(output / f"{experiment.env}.npz"))
    player_args, choose, protocol = {"env_id": experiment.env}, greedy_actions, GREEDY
    if steps := experiment.sampled_steps:
        player_args["max_episode_steps"], choose = steps, sampled_actions
        protocol = f"sampled actions, episodes cut at {steps} steps"
    policy, seeds = FilePolicy(model, usable_cores()), Seeds(seed, Purpose.EVALUATION)
    scores = evaluate(policy, player_args, experiment.episodes, 2 * usable_cores(), seeds, choose=choose)
    return {
        "protocol": protocol,
        "mean": scores.mean,
        "stderr": scores.stderr,
        "scores": [float(score) for score in scores.scores],
        **{name: model.metadata[name] for name in ("steps", "emulator_frames", "updates", "train_minutes", "cores")},
    }


def run(name: str, experiment: Experiment) -> Path:
    """Train and evaluate what is not in ``results/<name>.json`` yet; the file is written after each run."""
    path = RESULTS / f"{name}.json"
    record = json.loads(path.read_text()) if path.exists() else {"env": experiment.env, "settings": {}}
    for seed in experiment.seeds:
        for setting, flags in experiment.settings.items():
            runs = record["settings"].setdefault(setting, {"flags": " ".join(flags), "runs": {}})["runs"]
            if str(seed) in runs:
                continue
            output = _RUNS / name / f"{setting.replace(' ', '-')}-{seed}"
            harness.progress(f"{name}: {setting}, seed {seed}: {experiment.minutes:g} minutes of training")
            train(experiment.env, flags, seed, experiment.minutes, output)
            harness.progress(f"{name}: {setting}, seed {seed}: {experiment.episodes} episodes")
            runs[str(seed)] = {"final": final_scores(experiment, output, seed), "curve": curve(output)}
            harness.save(record, path)
    harness.progress("")
    return path


def rows(record: dict) -> list[dict]:
    """A line for each setting: its seeds' final means, their mean, and the standard error of that."""
    table = []
    for setting, found in record["settings"].items():
        means = np.array([run["final"]["mean"] for run in found["runs"].values()])
        finals = [run["final"] for run in found["runs"].values()]
        table.append(
            {
                "setting": setting,
                "seeds": len(means),
                "mean": float(means.mean()),
                "stderr of seeds": float(means.std(ddof=1) / np.sqrt(len(means))) if len(means) > 1 else None,
                "least": float(means.min()),
                "most": float(means.max()),
                "minutes": float(np.mean([final["train_minutes"] for final in finals])),
                "steps": float(np.mean([final["steps"] for final in finals])),
            }
        )
    return table


def draw(record: dict, path: Path) -> None:
    """Draw the training episodes' score against minutes, steps and frames: mean and range over the seeds."""
    from matplotlib import pyplot as plt

    axes_of = {"train_minutes": "minutes of training", "steps": "million steps", "emulator_frames": "million frames"}
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), sharey=True, layout="constrained")
    for number, (setting, found) in enumerate(record["settings"].items()):
        curves = [
            [point for point in run["curve"] if "online_score" in point] for run in found["runs"].values()
        ]  # fmt: skip
        if not all(curves):
            continue  # no episode has ended
        for axis, name in zip(axes, axes_of, strict=True):
            unit = 1 if name == "train_minutes" else 1e6
            xs = [np.array([point[name] for point in points]) / unit for points in curves]
            ys = [np.array([point["online_score"] for point in points]) for points in curves]
            label = f"{setting} ({len(xs)} seed{'s' * (len(xs) > 1)})"
            draw_band(axis, list(zip(xs, ys, strict=True)), label, STYLES[number])
    for axis, text in zip(axes, axes_of.values(), strict=True):
        axis.set_xlabel(text)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("score of training episodes")
    axes[0].legend(loc="best")
    figure.suptitle(f"{record['env']}: mean and range over seeds")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Run an experiment, or go on with it, and report."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that the training ends with it
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", choices=[*sorted(EXPERIMENTS), *OF_MANY_GAMES])
    parser.add_argument("--seeds", type=int, nargs="+")
    parser.add_argument("--minutes", type=float, help="of each run's training")
    parser.add_argument("--draw", action="store_true", help="only draw what is in results/ already")
    args = parser.parse_args()
    if args.experiment in OF_MANY_GAMES:
        run_all, report = OF_MANY_GAMES[args.experiment]
        if not args.draw:
            run_all()
        report()
        return
    given = {"seeds": args.seeds and tuple(args.seeds), "minutes": args.minutes}
    experiment = dataclasses.replace(
        EXPERIMENTS[args.experiment], **{name: value for name, value in given.items() if value}
    )
    path = RESULTS / f"{args.experiment}.json"
    if not args.draw:
        run(args.experiment, experiment)
    record = json.loads(path.read_text())
    draw(record, path.with_suffix(".png"))
    table = rows(record)
    harness.report(table, {"benchmark": f"learning {args.experiment}", "env": record["env"], "settings": table})


if __name__ == "__main__":
    main()
