"""What a round trip costs a core that plays, and how many games hide it.

A core has k processes of E games, a step of a game takes t seconds, and a process waits R seconds for its actions, in
which the core's other processes play: of its time it uses ``min(1, k E t / (E t + R))``.
"""

from __future__ import annotations

import math

from a3c.acting_defaults import GAMES_PER_CORE

PROCESSES_PER_CORE = 2
STEP_S = 0.5e-3  # a step of a usual game
_MOST_GAMES = 64  # more make the learner's data old


def use_of_core(
    games: float, round_trip_s: float, step_s: float = STEP_S, processes: int = PROCESSES_PER_CORE
) -> float:
    """The share of a core's time in which it plays, 0 to 1.

    Args:
        games: on that core, in all its processes.
        round_trip_s: from a step's end until its actions are there.
        step_s: of one game.
        processes: k.
    """
    block_s = games / processes * step_s
    return min(1.0, processes * block_s / (block_s + round_trip_s))


def games_per_core(round_trip_s: float) -> int:
    """How many games a core is given, so that its processes play while others' steps are on their way."""
    hidden = math.ceil(PROCESSES_PER_CORE * round_trip_s / STEP_S / (PROCESSES_PER_CORE - 1))
    return min(_MOST_GAMES, GAMES_PER_CORE + hidden)
