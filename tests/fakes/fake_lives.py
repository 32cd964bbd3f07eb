"""Fake games that tell which life of a simulator they are of, and the check that what the learner takes mixes no two.

A game's seed is its life's own, and each of its frames, rewards and ends follows from its seed, episode and step.
"""

from __future__ import annotations

import fcntl
import os
import signal
import termios
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from a3c.acting.batches import Batch, UnrollBatch
from a3c.seeds import GAMES_PER_LIFE
from a3c.simulation.messages import RUNNING, TERMINATED, TRUNCATED

import numpy as np
from fake_games import FakeCountingGame, FakeFrame, read_fake_frame

LIFE = "fake_lives:make_life_telling_game"
LENGTHS = (5, 1, 12, 30)  # of the episodes, over and over
CUT = (False, False, True, False)  # which of them are truncated
SEEDS_PER_LIFE = GAMES_PER_LIFE


def life_reward(game: FakeFrame) -> float:
    """The reward of the step that led to this frame: within [-1, 1], so that clipping leaves it alone."""
    return ((31 * game.seed + 7 * game.episode + 3 * game.step) % 39 - 19) / 20


def end_after(game: FakeFrame) -> int:
    """How the episode goes on when this frame's step is over."""
    number = game.episode % len(LENGTHS)
    if game.step + 1 < LENGTHS[number]:
        return RUNNING
    return TRUNCATED if CUT[number] else TERMINATED


class LifeTellingGame(FakeCountingGame):
    """One of a simulator's games. After SIGUSR1 the process is killed while it sends its next message."""

    last_made: LifeTellingGame | None = None
    asked_to_die = False

    def __init__(self, step_s: float = 0.0):
        """``step_s``: how long a step takes."""
        super().__init__(LENGTHS, CUT)
        self._step_s = step_s
        LifeTellingGame.last_made = self

    def reward(self, episode: int, step: int) -> float:
        return life_reward(FakeFrame(self._seed, episode, step, 0))

    def step(self, action: int):
        if self.asked_to_die and self is self.last_made:
            threading.Thread(target=_die_when_sending, daemon=True).start()
        time.sleep(self._step_s)
        return super().step(action)


def _die_when_sending() -> None:
    """Kill this process once a part of a message is on its way: it is cut if a socket does not take it at once."""
    sockets = [int(entry.name) for entry in Path("/proc/self/fd").iterdir() if entry.is_socket()]
    while True:
        if any(fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(4)) != bytes(4) for fd in sockets):
            os.kill(os.getpid(), signal.SIGKILL)


def make_life_telling_game(seed: int, step_s: float = 0.0) -> LifeTellingGame:
    """Make one, and listen for SIGUSR1."""

    def ask_to_die(*_) -> None:
        LifeTellingGame.asked_to_die = True

    signal.signal(signal.SIGUSR1, ask_to_die)
    return LifeTellingGame(step_s)


class Checked(NamedTuple):
    """What a check went over: transitions, those of them whose successor was there too, and whose lives they were."""

    transitions: int
    followed: int
    lives: frozenset[int]


def read_state(state: np.ndarray) -> FakeFrame:
    """The newest of a state's frames, uint8 ``[84, 84, 12]``.

    Raises:
        AssertionError: they are not consecutive frames of one episode.
    """
    oldest_first = [read_fake_frame(state[:1, :, at : at + 3]) for at in range(0, 12, 3)]
    newest = oldest_first[-1]
    assert (newest.action == -1) == (newest.step == 0), newest
    for step, frame in enumerate(reversed(oldest_first)):
        expected = (newest.seed, newest.episode, newest.step - step) if step <= newest.step else (0, 0, 0)
        assert frame[:3] == expected, f"frames of one state: {oldest_first}"
    return newest


def check_transitions(batch: Batch, gamma: float, gae_lambda: float) -> Checked:
    """Check a batch of transitions whose advantages are not normalised.

    Raises:
        AssertionError: one is not of a single life, or its action or return is not its own.
    """
    games = [read_state(state) for state in batch.states]
    at = {game[:3]: number for number, game in enumerate(games)}
    assert len(at) == len(games), "a transition came twice"
    values = batch.returns - batch.advantages
    followed = 0
    for game, action, its_return in zip(games, batch.actions, batch.returns, strict=True):
        after = game._replace(step=game.step + 1)
        reward, end = life_reward(after), end_after(game)
        assert end != TRUNCATED, f"{game} leads to where nothing was seen"
        if end == TERMINATED:
            np.testing.assert_allclose(its_return, reward, atol=1e-5, err_msg=f"{game}")
            continue
        following = at.get(after[:3])
        if following is None:
            continue
        followed += 1
        assert games[following].action == action, f"{game} by {action} led to {games[following]}"
        value, next_return = values[following], batch.returns[following]
        within = reward + gamma * ((1 - gae_lambda) * value + gae_lambda * next_return)
        at_its_end = reward + gamma * value
        assert min(abs(its_return - within), abs(its_return - at_its_end)) < 1e-3, f"the return of {game}"
    return Checked(len(games), followed, _lives(games))


def check_unrolls(batch: UnrollBatch) -> Checked:
    """Check a batch of unrolls.

    Raises:
        AssertionError: one is not of a single life, or its actions, rewards or ends are not its own.
    """
    seen = []
    for states, actions, rewards, ends in zip(batch.states, batch.actions, batch.rewards, batch.ends, strict=True):
        games = [read_state(state) for state in states]
        for t, (game, after) in enumerate(pairwise(games)):
            assert ends[t] == end_after(game), f"{game} ends with {ends[t]}"
            np.testing.assert_allclose(rewards[t], life_reward(game._replace(step=game.step + 1)), atol=1e-6)
            if ends[t] == RUNNING:
                assert after == (game.seed, game.episode, game.step + 1, actions[t]), f"{game} led to {after}"
            else:
                assert after == (game.seed, game.episode + 1, 0, -1), f"{game} ended and led to {after}"
        seen += games[:-1]
    return Checked(len(seen), len(seen), _lives(seen))


def _lives(games: list[FakeFrame]) -> frozenset[int]:
    return frozenset(game.seed // SEEDS_PER_LIFE for game in games)
