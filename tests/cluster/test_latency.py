"""What a round trip costs a core, and how many games hide it."""

from __future__ import annotations

from a3c.acting_defaults import GAMES_PER_CORE
from a3c.cluster.latency import STEP_S, games_per_core, use_of_core

import pytest


@pytest.mark.parametrize(
    ("games", "round_trip_s", "share"),
    [(20, 0.0, 1.0), (2, STEP_S, 1.0), (2, 3 * STEP_S, 0.5), (4, 6 * STEP_S, 0.5), (2, 1e9 * STEP_S, 0.0)],
)
def test_use_of_a_core_with_two_processes(games, round_trip_s, share):
    assert use_of_core(games, round_trip_s) == pytest.approx(share, abs=1e-6)


def test_one_process_always_waits_for_its_round_trip():
    assert use_of_core(1, STEP_S, processes=1) == pytest.approx(0.5)


def test_more_games_are_given_where_the_round_trip_is_longer():
    trips = (0.0, 0.0002, 0.001, 0.005, 0.02, 1.0)
    games = [games_per_core(trip) for trip in trips]
    assert games[0] == GAMES_PER_CORE
    assert games == sorted(games)
    assert games[-1] == games[-2] == 64  # the learner's data would be too old
    assert all(use_of_core(count, trip) == 1.0 for count, trip in zip(games[:4], trips[:4], strict=True))
