"""Trials of other defaults: what is trained, and what is made of it. Trainings have their tests in test_bench_games."""

from __future__ import annotations

import json

from a3c.config import Schedule
from bench import games, trials
from bench.trials import DEFAULTS, annealed, compared, difference, run, shares

import numpy as np
import pytest


def test_a_rate_goes_down_in_stairs_from_its_value_to_almost_zero():
    schedule = Schedule.parse(annealed(6e-4, updates=1200, stairs=6))
    assert [schedule.at(update) for update in (0, 199, 200, 600, 1199)] == pytest.approx([6e-4, 6e-4, 5e-4, 3e-4, 1e-4])


def test_each_setting_is_trained_once_for_each_game_and_seed_but_for_the_runs_of_the_table(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    trained = []
    monkeypatch.setattr(games, "train", lambda env_id, flags, output: trained.append((env_id, flags, output)))
    monkeypatch.setattr(games, "score", lambda env_id, output, policies: {"of": f"{output} {policies}"})
    run()
    rows = json.loads(trials.RESULTS.read_text())
    for setting, of_games in rows.items():
        assert list(of_games) == list(trials.GAMES)
        seeds = ["1"] if setting == DEFAULTS else ["0", "1"]
        assert all(list(of_seeds) == seeds for of_seeds in of_games.values())
    made = len(rows) * 8 * 2 - 8
    assert len(trained) == len({output for *_, output in trained}) == made
    of_each_seed = [games.training_flags(seed) for seed in (0, 1)]
    assert all(flags[: len(of_each_seed[0])] in of_each_seed for _, flags, _ in trained)
    assert sum("--learning-rate" in flags for _, flags, _ in trained) == 16
    run()
    assert len(trained) == made


def rows_of(*means):
    return {env_id: {str(seed): {"sampled": {"mean": mean}} for seed, mean in enumerate(of_seeds)}
            for env_id, of_seeds in zip(("Pong-v0", "Breakout-v0"), means, strict=False)}  # fmt: skip


def table_of(*means):
    """Rows of bench.games: random play, and sampled play of the defaults, seed 0."""
    rows = (("Pong-v0", -21), ("Breakout-v0", 2))
    return {env_id: {"random": {"mean": random}, "sampled": {"mean": mean}}
            for (env_id, random), mean in zip(rows, means, strict=True)}  # fmt: skip


def test_a_score_counts_as_the_share_of_the_way_to_the_published_one():
    found = shares(rows_of((-21, 0), (668, 1334)), table_of(-21, 668))
    np.testing.assert_allclose(found, [[0, 0.5], [666 / 665, 1332 / 665]])


def test_an_interval_excludes_zero_where_all_seeds_differ_and_not_where_they_overlap():
    base, noise = np.full((8, 2), 0.2), np.tile([-0.1, 0.1], (8, 1))
    more, low, high = difference(base + 0.3 + noise, base + noise)
    assert more == pytest.approx(0.3)
    assert 0 < low < more < high
    more, low, high = difference(base + 0.01 + noise, base + noise)
    assert low < 0 < more < high


def test_an_interval_is_that_of_the_means_of_seeds_drawn_anew():
    ours = np.array([[0.0, 1.0]])  # means 0, 0.5 (twice) and 1, alike for the other
    assert difference(ours, ours) == (0, -1, 1)


def test_games_that_lack_a_seed_are_left_out_and_the_defaults_seed_0_is_that_of_the_table():
    of_seed_1 = {env_id: {"1": row} for env_id, row in table_of(0, 2).items()}
    rows = {DEFAULTS: of_seed_1, "other": rows_of((0, 0), (2,))}
    of_defaults, of_other = compared(rows, table_of(-21, 2))
    assert (of_defaults["games"], of_defaults["mean share"], of_defaults["more"]) == (2, 0.125, 0)
    assert (of_other["games"], of_other["mean share"], of_other["more"]) == (1, 0.5, 0.25)
    assert compared({"other": rows["other"]}, table_of(-21, 2)) == []
    assert compared(rows, {}) == []
