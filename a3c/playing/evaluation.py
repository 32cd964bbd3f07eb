"""A fair evaluation, on the same simulators and transport as training.

Every game plays a number of episodes that is fixed beforehand, so that short episodes are not over-represented.
"""

from __future__ import annotations

from collections.abc import Callable

from a3c.cluster.cluster import Cluster
from a3c.config import spread
from a3c.errors import RunError
from a3c.playing.episode import ChooseActions, Policy, greedy_actions
from a3c.reports.scores import Scores
from a3c.seeds import Seeds
from a3c.simulation.master import SimulatorMaster
from a3c.simulation.messages import ATARI_PLAYER, REST, RUNNING
from a3c.simulation.nursery import Nursery
from a3c.system.clock import running_s
from atari_wrapper import STATE_SHAPE, stack_frames

import numpy as np

_GAMES_PER_SIMULATOR = 8
_STALL_STEPS = 4  # steps' time without any: above what a start may take
_POLL_S = 0.5


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
    step_timeout_s: float = 60.0,
    choose: ChooseActions = greedy_actions,
    on_episode: Callable[[float], None] = lambda score: None,
    check_stop: Callable[[], None] = lambda: None,
    cluster: Cluster | None = None,
) -> Scores:
    """Play exactly ``episodes`` whole episodes on simulator processes.

    Args:
        policy: the policy to evaluate.
        player_args: keyword arguments of ``player``, such as ``{"env_id": "Pong-v0"}``.
        episodes: how many, at least 1.
        processes: simulator processes, at most.
        seeds: of the games and the random actions.
        player: ``module:function`` that makes one game.
        max_games: games that play at the same time, at most; by default 8 for each process.
        step_timeout_s: after which a simulator is replaced, as in ``SimulatorMaster``.
        choose: makes actions of the policy's probabilities.
        on_episode: told the score of each episode when it ends.
        check_stop: called between steps; what it raises ends the evaluation.
        cluster: whose hosts play; by default this machine does.

    Raises:
        RunError: no simulator made a step for four times as long, while a host was there.
        SimulatorClosedError: the window that a game was shown in was closed.
    """
    games = min(episodes, max_games or _GAMES_PER_SIMULATOR * processes)
    sizes = spread(games, min(processes, games))
    quotas = iter(spread(episodes, games))
    blocks = [_Block(tuple(next(quotas) for _ in range(envs))) for envs in sizes]
    rngs = [seeds.generator(simulator) for simulator in range(len(sizes))]  # theirs: steps arrive in any order
    if cluster is None:
        master = SimulatorMaster(Nursery(), sizes, player_args, player, seeds, step_timeout_s)
    else:
        master = cluster.master(sizes, player_args, player, seeds, step_timeout_s)
    newest = running_s()
    try:
        while any(block.left.any() for block in blocks):
            check_stop()
            step = master.receive(_POLL_S)
            now = running_s()
            if step is None:
                newest = now if master.hosts_away else newest
                if now - newest > _STALL_STEPS * step_timeout_s:
                    raise RunError(f"no simulator made a step for {_STALL_STEPS * step_timeout_s:g} s")
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
