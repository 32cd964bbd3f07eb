"""Would another default learn more? Settings side by side, on eight games that are unlike each other, two seeds each.

    python -m bench.learning trials

Each run is one of bench.games: a million steps, 30 episodes of the final weights with actions sampled, cut at 10,000
steps. A score counts as the share of the way from random to the published one. A setting is better if the mean share
over games and seeds is, by an interval that excludes 0: a stratified bootstrap, which draws each game's seeds anew
(Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice", section 4.2). The
defaults' run of seed 0 is the one of bench.games, and is not made again.
"""

from __future__ import annotations

import json
from pathlib import Path

from a3c.config import LEARNING_DEFAULTS
from a3c.reports.scores import published_score
from bench import games, harness
from bench.command_line import ROOT

import numpy as np

RESULTS = Path("results/trials.json")
_RUNS = Path("train_log/trials")
GAMES = ("Pong-v0", "Breakout-v0", "Seaquest-v0", "SpaceInvaders-v0", "Qbert-v0", "BeamRider-v0", "MsPacman-v0",
         "RoadRunner-v0")  # fmt: skip
SEEDS = (0, 1)
DEFAULTS = "defaults"
_STAIRS = 24
_DRAWS, _INTERVAL = 20_000, (2.5, 97.5)


def annealed(value: float, updates: int, stairs: int = _STAIRS) -> str:
    """A schedule from the value to almost zero, linear over the run's updates but for the stairs it goes down."""
    changes = [f"{updates * stair // stairs}:{value * (1 - stair / stairs):.4g}" for stair in range(1, stairs)]
    return ",".join([f"{value:g}", *changes])


SETTINGS = {
    DEFAULTS: (),
    "learning rate annealed to zero": (
        "--learning-rate", annealed(LEARNING_DEFAULTS["small"]["learning_rate"].initial, games.UPDATES),
    ),
}  # fmt: skip


def run() -> None:
    """Train and score what is not there yet; the file is written after each run."""
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for seed in SEEDS:
        for env_id in GAMES:
            for setting, flags in SETTINGS.items():
                if (setting, seed) == (DEFAULTS, games.SEED):
                    continue
                found = rows.setdefault(setting, {}).setdefault(env_id, {})
                if str(seed) in found:
                    continue
                output = _RUNS / f"{setting.replace(' ', '-')}-{env_id}-{seed}"
                harness.progress(f"{env_id}, seed {seed}, {setting}")
                games.train(env_id, (*games.training_flags(seed), *flags), output)
                found[str(seed)] = games.score(env_id, output, ("sampled",))
                harness.save(rows, RESULTS)
    harness.progress("")


def shares(setting: dict, table: dict) -> np.ndarray:
    """Shares of the way from random to the published score, float64 ``[games, seeds]``.

    Args:
        setting: its rows, by game and seed; of the games that have all seeds.
        table: rows of bench.games.
    """
    found = []
    for env_id, of_seeds in setting.items():
        random = table[env_id]["random"]["mean"]
        way = published_score(env_id) - random
        found.append([(of_seeds[str(seed)]["sampled"]["mean"] - random) / way for seed in SEEDS])
    return np.array(found)


def difference(ours: np.ndarray, theirs: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """How much larger the mean of ``ours`` is, and the bootstrap's 95% interval; both float64 ``[games, seeds]``."""
    rng = np.random.default_rng(seed)

    def means(values: np.ndarray) -> np.ndarray:
        drawn = rng.integers(values.shape[1], size=(_DRAWS, *values.shape))
        return np.take_along_axis(values[None], drawn, axis=2).mean(axis=(1, 2))

    low, high = np.percentile(means(ours) - means(theirs), _INTERVAL)
    return float(ours.mean() - theirs.mean()), float(low), float(high)


def compared(rows: dict, table: dict) -> list[dict]:
    """A line for each setting: its mean share beside that of the defaults, on the games that both have.

    Args:
        rows: of ``run``, by setting, game and seed.
        table: rows of bench.games.
    """
    of_table = {env_id: {str(games.SEED): table[env_id]} for env_id in GAMES if env_id in table}
    defaults = {env_id: row | rows.get(DEFAULTS, {}).get(env_id, {}) for env_id, row in of_table.items()}
    lines = []
    for setting, ours in (rows | {DEFAULTS: defaults}).items():
        common = [env_id for env_id in defaults
                  if all({*map(str, SEEDS)} <= {*of.get(env_id, ())} for of in (ours, defaults))]  # fmt: skip
        if common:
            found = [shares({env_id: of[env_id] for env_id in common}, table) for of in (ours, defaults)]
            more, low, high = difference(*found)
            lines.append({"setting": setting, "games": len(common), "mean share": float(found[0].mean()),
                          "more": more, "from": low, "to": high})  # fmt: skip
    return lines


def report() -> None:
    """Print how the settings compare."""
    lines = compared(*(json.loads((ROOT / path).read_text()) for path in (RESULTS, games.RESULTS)))
    if lines:
        harness.report(lines, {"benchmark": "trials", "settings": lines})
    else:
        print("no game has all its runs yet")
