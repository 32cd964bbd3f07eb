"""What the rows of ``bench.games`` show: the table and the picture of docs/results.md, and the README's sentence.

    python -m bench.learning games --draw

The sampled policy is compared; the greedy one stands beside it.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import NamedTuple

from a3c.reports.scores import published_score
from bench import harness
from bench.command_line import ROOT
from bench.games import EPISODES, MOST_STEPS, RESULTS, games

PICTURE = Path("results/games.png")
DOCUMENTS = (Path("docs/results.md"), Path("README.md"))
P = 0.01


class Game(NamedTuple):
    """A game's line.

    Attributes:
        name: without ``-v0``.
        random, ours, greedy, published: mean scores.
        stderr, greedy_stderr: standard errors of the means of ours.
        minutes: of training.
        share: of the way from random to published.
        p: one-sided Mann-Whitney test that ours is above random, times the number of games (Bonferroni), at most 1.
    """

    name: str
    random: float
    ours: float
    stderr: float
    greedy: float
    greedy_stderr: float
    published: float
    minutes: float
    share: float
    p: float


def read(path: Path = ROOT / RESULTS) -> list[Game]:
    """The games that are done, in the order of their names."""
    return [_game(env_id, row) for env_id, row in sorted(json.loads(path.read_text()).items())]


def _game(env_id: str, row: dict) -> Game:
    from scipy.stats import mannwhitneyu  # it takes a second to load

    random, ours, greedy, published = row["random"], row["sampled"], row["greedy"], published_score(env_id)
    p = mannwhitneyu(ours["scores"], random["scores"], alternative="greater").pvalue
    return Game(
        env_id.removesuffix("-v0"),
        random["mean"],
        ours["mean"],
        ours["stderr"],
        greedy["mean"],
        greedy["stderr"],
        published,
        row["train_minutes"],
        (ours["mean"] - random["mean"]) / (published - random["mean"]),
        min(1.0, float(p) * len(games())),
    )


def table(lines: list[Game]) -> str:
    """The table, in Markdown."""
    head = "| game | random | ours, actions sampled | ours, greedy | published | share | above random | minutes |"
    rows = [
        f"| {game.name} | {game.random:,.1f} | **{game.ours:,.1f}** ± {game.stderr:,.1f} | {game.greedy:,.1f} ± "
        f"{game.greedy_stderr:,.1f} | {game.published:,.0f} | {game.share:.3f} | "
        f"{f'p = {game.p:.1g}' if game.p < P else 'no'} | {game.minutes:.0f} |"
        for game in lines
    ]
    return "\n".join([head, "|---|--:|--:|--:|--:|--:|---|--:|", *rows])


def sentence(lines: list[Game]) -> str:
    """The result in one sentence."""
    above = sum(game.p < P for game in lines)
    share = statistics.median(game.share for game in lines)
    minutes = statistics.median(game.minutes for game in lines)
    trained = "All" if len(lines) == len(games()) else f"So far {len(lines)} of the"
    return (
        f"{trained} {len(games())} games of the published table were trained, for one million steps each, a median of "
        f"{minutes:.0f} minutes on two cores: {above} beat random play (p < {P}), and the median game went {share:.0%} "
        f"of the way from random to the published score. Each score is of {EPISODES} episodes, actions sampled, cut at "
        f"{MOST_STEPS:,} steps."
    )


def draw(lines: list[Game], path: Path) -> None:
    """Draw the shares as bars, the largest first; the axis is linear up to a tenth and logarithmic beyond."""
    from matplotlib.figure import Figure

    lines = sorted(lines, key=lambda game: game.share)
    figure = Figure(figsize=(8, 1.2 + 0.19 * len(lines)), layout="constrained")
    axis = figure.subplots()
    colours = ["tab:blue" if game.p < P else "lightgray" for game in lines]
    axis.barh([game.name for game in lines], [game.share for game in lines], color=colours)
    axis.set_xscale("symlog", linthresh=0.1)
    axis.axvline(1, color="black", linewidth=0.8)
    axis.set_xlabel("share of the way from random (0) to the published score (1); gray: not above random")
    axis.tick_params(axis="y", labelsize=8)
    axis.margins(y=0.01)
    axis.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=110)


def report() -> None:
    """Bring the picture and both documents up to date."""
    lines = read()
    draw(lines, ROOT / PICTURE)
    for path, text in zip(DOCUMENTS, (f"{sentence(lines)}\n\n{table(lines)}", sentence(lines)), strict=True):
        harness.put(text, ROOT / path, "games")
