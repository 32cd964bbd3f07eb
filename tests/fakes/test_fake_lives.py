"""The check of what the learner takes finds what it is there to find."""

from __future__ import annotations

from a3c.acting.batches import BatchPool, Transitions, WholeUnrolls
from a3c.acting.unroll import UnrollBuilder
from a3c.simulation.messages import RUNNING

import numpy as np
import pytest
from fake_games import FakeFrame
from fake_lives import SEEDS_PER_LIFE, LifeTellingGame, check_transitions, check_unrolls, read_state

GAMMA, LAMBDA = 0.9, 0.8
STEPS, UNROLLS = 8, 6


def play(items, lives=(3, 3), pool_states: int = 2 * STEPS * UNROLLS):
    """The batch of some unrolls of two games; after half of them each is of the life that ``lives`` names."""
    rng = np.random.default_rng(0)
    pool = BatchPool(items, pool_states, pool_states, 1, rng)
    builder = UnrollBuilder(2, STEPS)
    games = [LifeTellingGame() for _ in range(2)]
    builder.push(np.stack([game.reset(seed=lives[0] * SEEDS_PER_LIFE + env)[0] for env, game in enumerate(games)]))
    for number in range(UNROLLS * STEPS + 40):
        actions = rng.integers(6, size=2)
        builder.decide(actions, np.full(2, 0.25), rng.normal(size=2), number)
        if lives[1] != lives[0] and number == UNROLLS * STEPS // 2:  # as a master that does not begin it anew
            games = [LifeTellingGame() for _ in range(2)]
            for env, game in enumerate(games):
                game.reset(seed=lives[1] * SEEDS_PER_LIFE + env)
        steps = [game.step(action) for game, action in zip(games, actions, strict=True)]
        ends = np.array([1 if over else 2 if cut else RUNNING for _, _, over, cut, _ in steps], np.uint8)
        frames = [game.reset()[0] if end else step[0] for game, step, end in zip(games, steps, ends, strict=True)]
        unroll = builder.record(np.array([step[1] for step in steps], np.float32), ends)
        for batches in pool.add(unroll) if unroll else ():
            return batches[0]()
        builder.push(np.stack(frames))
    raise AssertionError("no batch")


def transitions(**options):
    return play(Transitions(GAMMA, LAMBDA, normalize_advantages=False), **options)


def unrolls(**options):
    return play(WholeUnrolls(STEPS), **options)


def test_what_is_right_passes():
    checked = check_transitions(transitions(), GAMMA, LAMBDA)
    assert checked.transitions == 2 * STEPS * UNROLLS
    assert checked.transitions / 2 < checked.followed < checked.transitions
    assert checked.lives == {3}
    assert check_unrolls(unrolls()) == (2 * STEPS * UNROLLS, 2 * STEPS * UNROLLS, {3})


def test_two_lives_in_one_history_are_found():
    with pytest.raises(AssertionError, match="frames of one state"):
        check_transitions(transitions(lives=(3, 4)), GAMMA, LAMBDA)
    with pytest.raises(AssertionError, match=r"ends with|led to|frames of one state"):
        check_unrolls(unrolls(lives=(3, 4)))


def test_a_life_that_goes_on_in_anothers_unroll_is_found():
    batch, other = unrolls(), unrolls(lives=(4, 4))
    batch.states[0, STEPS // 2 :] = other.states[0, STEPS // 2 :]
    with pytest.raises(AssertionError, match="led to"):
        check_unrolls(batch)


@pytest.mark.parametrize("column", ["actions", "returns", "advantages"])
def test_a_column_of_another_game_is_found(column):
    batch = transitions()
    moved = batch._replace(**{column: np.roll(getattr(batch, column), 1)})
    with pytest.raises(AssertionError):
        check_transitions(moved, GAMMA, LAMBDA)


@pytest.mark.parametrize("column", ["actions", "rewards", "ends"])
def test_a_column_of_another_unroll_is_found(column):
    batch = unrolls()
    moved = batch._replace(**{column: np.roll(getattr(batch, column), 1, axis=1)})
    with pytest.raises(AssertionError):
        check_unrolls(moved)


def test_a_transition_that_came_twice_is_found():
    batch = transitions()
    batch.states[1] = batch.states[0]
    with pytest.raises(AssertionError, match="twice"):
        check_transitions(batch, GAMMA, LAMBDA)


def test_the_first_state_of_an_episode_has_no_history():
    state = np.zeros((84, 84, 12), np.uint8)
    state[..., 9:] = FakeFrame(5, 2, 0, -1).paint()
    assert read_state(state) == (5, 2, 0, -1)
    state[..., 6:9] = FakeFrame(5, 1, 11, 3).paint()
    with pytest.raises(AssertionError, match="frames of one state"):
        read_state(state)
