"""Masters that end with their test."""

from __future__ import annotations

from a3c.simulation.master import SimulatorMaster

import pytest
from fake_games import COUNTING
from masters import RecordingNursery, seeds_of


@pytest.fixture
def start():
    """Starts a master of simulators with their games; ends all of them after the test."""
    masters = []

    def start(games, player=COUNTING, seed=0, step_timeout_s=60.0, **player_args):
        nursery = RecordingNursery()
        masters.append(SimulatorMaster(nursery, games, player_args, player, seeds_of(seed), step_timeout_s))
        return masters[-1], nursery

    yield start
    for master in masters:
        master.close()
