"""How do the simulators scale with processes and with games per process, and how much memory does each one need?

    python -m bench.scaling [--game Pong-v0] [--processes 1 2 4 8] [--games-per-process 1 4 8 16] [--plot scaling.png]

Subject and limit are those of bench.simulators: real games in real simulator processes under a free policy, against
what all cores could emulate. Each measurement starts its simulators anew, so that none of another rests beside them.
Unique memory is what a process would give back if it ended, private clean + private dirty in its smaps; what it
shares with the others, such as the imports, is not in it. The goal is less than 40 MB for each simulator process.

The last line is JSON: ``points``, each with ``states_per_s``, its ``ratio`` to the limit and ``unique_mb``, the mean
over its simulators; ``limit_states_per_s``; and ``unique_mb``, the most of all points.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from a3c.doctor.speed import Simulators
from a3c.system.machine import usable_cores
from atari_wrapper import get_protocol
from bench import harness
from bench.simulators import limit_states_per_s

import psutil

_GOAL_UNIQUE_MB = 40.0
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito's, for all eyes
_MARKERS = "osD^vP"


def measure(env_id: str, num_actions: int, processes: int, games: int, seconds: float) -> dict[str, float]:
    """Measure one point: its speed, then the mean unique memory of its simulators, which have played by then."""
    simulators = Simulators({"env_id": env_id}, (games,) * processes, num_actions)
    try:
        speed = simulators.states_per_s(seconds)
        forked = psutil.Process(simulators.master._nursery._process.pid).children()
        if len(forked) != processes:
            raise RuntimeError(f"{len(forked)} simulator processes were found, not {processes}")
        unique = [process.memory_full_info().uss / 1e6 for process in forked]
        return {"states_per_s": speed, "unique_mb": statistics.mean(unique)}
    finally:
        simulators.close()


def plot(path: Path, game: str, points: list[dict], limit: float) -> None:
    """Plot the speed against the games per process, one line per number of processes."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    ticks = sorted({point["games_per_process"] for point in points})
    for number, processes in enumerate(sorted({point["processes"] for point in points})):
        line = sorted((p["games_per_process"], p["states_per_s"]) for p in points if p["processes"] == processes)
        axes.plot(
            *zip(*line, strict=True),
            color=_COLOURS[number % len(_COLOURS)],
            marker=_MARKERS[number % len(_MARKERS)],
            label=f"{processes} process{'es' if processes > 1 else ''}",
        )
    axes.axhline(limit, color="black", linestyle="--", label="limit: emulation and resize alone")
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel("games per simulator process")
    axes.set_ylabel("states per second")
    axes.set_title(f"{game}, simulators with a free policy, {usable_cores()} cores")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    """Measure the grid and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--game", default="Pong-v0")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--games-per-process", type=int, nargs="+", default=[1, 4, 8, 16])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--plot", type=Path, default=Path("scaling.png"), metavar="FILE", help="where the plot goes")
    args = parser.parse_args()
    if min(*args.processes, *args.games_per_process, args.rounds) < 1 or args.seconds <= 0:
        parser.error("processes, games, rounds and seconds must be positive")
    protocol = get_protocol(args.game)
    grid = {
        f"{processes} x {games} games": (processes, games)
        for processes in args.processes
        for games in args.games_per_process
    }
    measures = {
        name: lambda point=point: measure(args.game, len(protocol.actions), *point, args.seconds)
        for name, point in grid.items()
    }
    with harness.Cores() as cores:
        limit = {"limit": lambda: limit_states_per_s(cores, protocol, args.seconds)}
        results = harness.rounds(args.rounds, limit | measures)
    limits = results.pop("limit")
    points = []
    for name, found in results.items():
        processes, games = grid[name]
        speeds, megabytes = ([result[key] for result in found] for key in ("states_per_s", "unique_mb"))
        point = {
            "states_per_s": statistics.median(speeds),
            "ratio": harness.median_ratio(speeds, limits),
            "unique_mb": statistics.median(megabytes),
            "unique_mb_per_game": statistics.median(megabytes) / games,
        }
        rounded = {key: round(value, 4) for key, value in point.items()}
        points.append({"processes": processes, "games_per_process": games, **rounded})
    limit = statistics.median(limits)
    plot(args.plot, args.game, points, limit)
    most = max(point["unique_mb"] for point in points)
    verdict = "met" if most < _GOAL_UNIQUE_MB else "missed"
    print(f"plot: {args.plot}")
    print(f"unique memory of a simulator: {most:.1f} MB at most; goal: under {_GOAL_UNIQUE_MB:.0f} MB, {verdict}")
    harness.report(
        [
            {
                "processes": point["processes"],
                "games each": point["games_per_process"],
                "states/s": point["states_per_s"],
                "of the limit": point["ratio"],
                "unique MB": point["unique_mb"],
                "per game": point["unique_mb_per_game"],
            }
            for point in points
        ],
        {
            "benchmark": "scaling",
            "game": args.game,
            "cores": usable_cores(),
            "limit_states_per_s": limit,
            "unique_mb": most,
            "unique_mb_goal": _GOAL_UNIQUE_MB,
            "points": points,
        },
    )


if __name__ == "__main__":
    main()
