"""Random numbers: repeatable, and shared by no two that should differ."""

from __future__ import annotations

import itertools

from a3c.seeds import GAMES_PER_LIFE, Purpose, Seeds

import numpy as np


def all_seeds() -> list[Seeds]:
    seeds = (0, 1, 2, 2**31 - 1)
    return [Seeds(seed, purpose, number) for seed, purpose, number in itertools.product(seeds, Purpose, (0, 1, 10))]


def test_no_two_lives_share_a_game():
    lives = [seeds.of_life(life) for seeds in all_seeds() for life in range(50)]
    assert len(set(lives)) == len(lives)
    assert all(life % GAMES_PER_LIFE == 0 and 0 <= life < 2**63 - GAMES_PER_LIFE for life in lives)


def test_no_two_generators_draw_the_same():
    drawn = [tuple(seeds.generator(part).integers(2**62, size=2)) for seeds in all_seeds() for part in range(5)]
    assert len(set(drawn)) == len(drawn)


def test_they_repeat():
    seeds = Seeds(7, Purpose.VIDEO, 3)
    assert seeds.of_life(2) == Seeds(7, Purpose.VIDEO, 3).of_life(2)
    np.testing.assert_array_equal(seeds.generator(1).random(3), seeds.generator(1).random(3))


def test_a_purpose_keeps_its_number():
    assert [purpose.value for purpose in Purpose] == list(range(8))
