"""Using a trained policy: evaluate it, and watch it in a window.

It acts greedily with a 1% random action, unless something else is asked for. Evaluation plays on the same simulators
and transport as training; every game plays a number of episodes that is fixed beforehand, so that short episodes are
not over-represented.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

from a3c.acting.predictor import sample_actions
from a3c.config import spread
from a3c.errors import UsageError
from a3c.reports.scores import Scores
from a3c.seeds import Purpose, Seeds
from a3c.simulation.master import SimulatorClosedError, SimulatorMaster
from a3c.simulation.messages import REST, RUNNING
from a3c.simulation.nursery import Nursery
from a3c.system.clock import running_s
from a3c.system.machine import no_window
from atari_wrapper import STATE_SHAPE, stack_frames
from simulator import ATARI_PLAYER

import numpy as np

RANDOM_ACTION_PROBABILITY = 0.01
EVALUATION = f"greedy with {RANDOM_ACTION_PROBABILITY:.0%} random actions"
_GAMES_PER_SIMULATOR = 8
_STEP_TIMEOUT_S = 120.0
_POLL_S = 0.5

# States, uint8 [B, 84, 84, 12] -> policy, float32 [B, A], and value, float32 [B].
Policy = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
# Probabilities, float32 [B, A], and a generator -> actions, int64 [B].
ChooseActions = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def greedy_actions(policy: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Choose the most probable action, or with probability 0.01 any: ``[B, A]`` -> int64 ``[B]``."""
    actions = policy.argmax(axis=1)
    randomly = rng.random(len(policy)) < RANDOM_ACTION_PROBABILITY
    return np.where(randomly, rng.integers(policy.shape[1], size=len(policy)), actions)


def sampled_actions(policy: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw each action with the probability that the policy gives it, as training does: ``[B, A]`` -> int64 ``[B]``."""
    return sample_actions(policy, rng.random(len(policy)))[0]


class _Block:
    """The games of one simulator during an evaluation."""

    def __init__(self, quotas: tuple[int, ...]):
        envs = len(quotas)
        self.left = np.array(quotas)
        self.score = np.zeros(envs)
        self.finished: list[list[float]] = [[] for _ in quotas]
        self._states = np.zeros((2, envs, *STATE_SHAPE), np.uint8)

    def on_step(self, block) -> np.ndarray:
        """Count the step; return the states to act on."""
        first = (block.ends != RUNNING) | (block.sequence == 0)
        if block.sequence == 0:
            self.score[:] = 0
        self.score += block.rewards
        for env in np.flatnonzero(block.ends != RUNNING):
            self.finished[env].append(float(self.score[env]))
            self.score[env] = 0
            self.left[env] -= 1
        previous, states = self._states
        stack_frames(previous, block.frames, first, out=states)
        self._states = self._states[::-1]
        return states


def evaluate(
    policy: Policy,
    player_args: dict,
    episodes: int,
    processes: int,
    seeds: Seeds,
    player: str = ATARI_PLAYER,
    max_games: int | None = None,
    choose: ChooseActions = greedy_actions,
    on_episode: Callable[[float], None] = lambda score: None,
    check_stop: Callable[[], None] = lambda: None,
) -> Scores:
    """Play exactly ``episodes`` whole episodes on simulator processes.

    Args:
        policy: the policy to evaluate.
        player_args: keyword arguments of ``player``, such as ``{"env_id": "Pong-v0"}``.
        episodes: how many, at least 1.
        processes: simulator processes, at most.
        seeds: of the games and the random actions.
        player: ``module:function`` that makes one game.
        choose: makes actions of the policy's probabilities.
        max_games: games that play at the same time, at most; by default 8 for each process.
        on_episode: told the score of each episode when it ends.
        check_stop: called between steps; what it raises ends the evaluation.

    Raises:
        RuntimeError: no simulator made a step for two minutes.
        SimulatorClosedError: the window that a game was shown in was closed.
    """
    games = min(episodes, max_games or _GAMES_PER_SIMULATOR * processes)
    sizes = spread(games, min(processes, games))
    quotas = iter(spread(episodes, games))
    blocks = [_Block(tuple(next(quotas) for _ in range(envs))) for envs in sizes]
    rngs = [seeds.generator(simulator) for simulator in range(len(sizes))]  # theirs: steps arrive in any order
    master = SimulatorMaster(Nursery(), sizes, player_args, player, seeds)
    newest = running_s()
    try:
        while any(block.left.any() for block in blocks):
            check_stop()
            step = master.receive(_POLL_S)
            now = running_s()
            if step is None:
                if now - newest > _STEP_TIMEOUT_S:
                    raise RuntimeError(f"no simulator made a step for {_STEP_TIMEOUT_S:g} s")
                continue
            newest = now
            block = blocks[step.index]
            states = block.on_step(step)
            for env in np.flatnonzero(step.ends != RUNNING):
                on_episode(block.finished[env][-1])
            if block.left.any():
                actions = choose(policy(states)[0], rngs[step.index])
                master.send(step.index, step.life, np.where(block.left > 0, actions, REST).astype(np.int8))
    finally:
        master.close()
    return Scores(tuple(score for block in blocks for env in block.finished for score in env))


class Step(NamedTuple):
    """One step of an episode, and what the agent makes of where it led.

    Attributes:
        reward: its raw reward.
        emulator_frames: how many it took.
        state: the state that it led to, uint8 ``[84, 84, 12]``; the step after the next one overwrites it.
        policy: the probabilities of the actions there, float32 ``[A]``.
        value: what the agent expects from there on.
        action: what it chose there. At the end of an episode policy, value and action are those of the step before.
    """

    reward: float
    emulator_frames: int
    state: np.ndarray
    policy: np.ndarray
    value: float
    action: int


def play_episode(player, policy: Policy, rng: np.random.Generator, seed: int) -> Iterator[Step]:
    """Play one episode; yield after each step, the first time after the reset."""
    states = np.zeros((2, 1, *STATE_SHAPE), np.uint8)
    frame, info = player.reset(seed=seed)
    first, over, reward, emulated = True, False, 0.0, 0
    while True:
        stack_frames(states[0], frame[None], np.array([first]), out=states[1])
        if not over:
            policies, values = policy(states[1])
            action = int(greedy_actions(policies, rng)[0])
        yield Step(reward, info["frame_number"] - emulated, states[1][0], policies[0], float(values[0]), action)
        if over:
            return
        emulated, states, first = info["frame_number"], states[::-1], False
        frame, reward, terminated, truncated, info = player.step(action)
        reward, over = float(reward), terminated or truncated


def play(
    policy: Policy,
    env_id: str,
    episodes: int,
    seed: int,
    report: Callable[[str], None] = print,
    check_stop: Callable[[], None] = lambda: None,
) -> None:
    """Show the agent play in a window, at the game's own speed, until the window is closed or ``check_stop`` raises.

    Raises:
        UsageError: there is no display that opens.
    """
    if reason := no_window():
        raise UsageError(f"{reason}; watch in a browser with --watch PORT, or record with --task dump_video")
    done = itertools.count(1)
    # The game runs in a process of its own, also because its OpenGL and TensorFlow can clash in one.
    with contextlib.suppress(SimulatorClosedError):
        evaluate(
            policy,
            {"env_id": env_id, "render_mode": "human"},
            episodes,
            processes=1,
            seeds=Seeds(seed, Purpose.PLAY),
            max_games=1,
            on_episode=lambda score: report(f"episode {next(done)}/{episodes}: score {score:.10g}"),
            check_stop=check_stop,
        )
