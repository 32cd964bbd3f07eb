"""What share of a core plays, against the round trip to the learner and the games on that core?

    python -m bench.latency [--rounds 3] [--seconds 3] [--games 8 16 32 64] [--milliseconds 0 0.2 1 5]

Simulators of a real game play on one core, while this process, on another, holds each answer back for as long as the
network would take. Measured is the speed against that of the most games without a round trip; computed is
``a3c.cluster.latency.use_of_core``, with the time of a step as measured. The last column is the number of games that
a cluster with such a round trip is given.
"""

from __future__ import annotations

import argparse
import functools
import os
import statistics
import time
from collections import deque

from a3c.cluster.latency import PROCESSES_PER_CORE, games_per_core, use_of_core
from a3c.config import spread
from a3c.simulation.master import SimulatorMaster
from a3c.simulation.messages import StepBlock
from a3c.simulation.nursery import Nursery
from bench import harness

import numpy as np

_WARM_UP_S = 0.5
_START_S = 120.0


class FarSimulators:
    """Simulators on one core, whose actions come a round trip later. One thread uses it."""

    def __init__(self, env_id: str, games: int, core: int):
        self._master = SimulatorMaster(_PinnedNursery(core), spread(games, PROCESSES_PER_CORE), {"env_id": env_id})
        self._due: deque[tuple[float, StepBlock]] = deque()
        for _ in range(PROCESSES_PER_CORE):
            step = self._master.receive(_START_S)
            if step is None:
                raise RuntimeError(f"no simulator has started within {_START_S:g} s")
            self._due.append((0.0, step))

    def states_per_s(self, round_trip_s: float, seconds: float) -> float:
        """Play for ``seconds`` after a warm-up, and rest."""
        self._play(round_trip_s, _WARM_UP_S)
        start = time.perf_counter()
        states = self._play(round_trip_s, seconds)
        return states / (time.perf_counter() - start)

    def _play(self, round_trip_s: float, seconds: float) -> int:
        """It waits by asking again and again: what sleeps comes back too late for a fifth of a millisecond."""
        states, end = 0, time.perf_counter() + seconds
        while (now := time.perf_counter()) < end:
            while self._due and self._due[0][0] <= now:
                _, step = self._due.popleft()
                self._master.send(step.index, step.life, np.zeros(len(step.ends), np.int8))
            step = self._master.receive(0)
            if step is not None:
                self._due.append((time.perf_counter() + round_trip_s, step))
                states += len(step.ends)
        return states

    def close(self) -> None:
        self._master.close()


class _PinnedNursery(Nursery):
    """Its simulators play on one core."""

    def __init__(self, core: int):
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {core})
        try:
            super().__init__()
        finally:
            os.sched_setaffinity(0, before)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="Breakout-v0")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--games", type=int, nargs="+", default=[8, 16, 32, 64], help="on the core")
    parser.add_argument("--milliseconds", type=float, nargs="+", default=[0.0, 0.2, 1.0, 5.0], help="round trips")
    args = parser.parse_args()
    ours, theirs, *_ = (*sorted(os.sched_getaffinity(0)), *os.sched_getaffinity(0))
    blocks = {games: FarSimulators(args.env, games, theirs) for games in args.games}
    os.sched_setaffinity(0, {ours})
    try:
        results = harness.rounds(
            args.rounds,
            {
                (games, ms): functools.partial(simulators.states_per_s, ms / 1e3, args.seconds)
                for games, simulators in blocks.items()
                for ms in args.milliseconds
            },
        )
    finally:
        for simulators in blocks.values():
            simulators.close()
    full = results[max(args.games), min(args.milliseconds)]
    step_s = 1 / statistics.median(full)
    rows = [
        {
            "round trip, ms": ms,
            "games": games,
            "states/s": statistics.median(found),
            "plays": harness.median_ratio(found, full),
            "computed": use_of_core(games, ms / 1e3, step_s),
            "games given": games_per_core(ms / 1e3),
        }
        for (games, ms), found in sorted(results.items(), key=lambda item: (item[0][1], item[0][0]))
    ]
    harness.report(rows, {"benchmark": "latency", "game": args.env, "step_s": step_s, "rows": rows})


if __name__ == "__main__":
    main()
