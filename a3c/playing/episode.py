"""One episode of the agent at play, and how it chooses its actions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from a3c.acting.predictor import sample_actions
from atari_wrapper import STATE_SHAPE, stack_frames

import numpy as np

RANDOM_ACTION_PROBABILITY = 0.01
GREEDY = f"greedy with {RANDOM_ACTION_PROBABILITY:.0%} random actions"
SAMPLED = "actions sampled from the policy"

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


class Step(NamedTuple):
    """One step of an episode, and what the agent makes of where it led.

    Attributes:
        reward: its raw reward.
        emulator_frames: how many it took.
        state: the state that it led to, uint8 ``[84, 84, 12]``; the step after the next one overwrites it.
        policy: the probabilities of the actions there, float32 ``[A]``.
        value: what the agent expects from there on.
        action: what it chose there. At the end of an episode policy, value and action are those of the step before.
        over: whether the episode ends there.
    """

    reward: float
    emulator_frames: int
    state: np.ndarray
    policy: np.ndarray
    value: float
    action: int
    over: bool


def play_episode(
    player, policy: Policy, rng: np.random.Generator, seed: int, choose: ChooseActions = greedy_actions
) -> Iterator[Step]:
    """Play one episode; yield after each step, the first time after the reset."""
    states = np.zeros((2, 1, *STATE_SHAPE), np.uint8)
    frame, info = player.reset(seed=seed)
    first, over, reward, emulated = True, False, 0.0, 0
    while True:
        stack_frames(states[0], frame[None], np.array([first]), out=states[1])
        if not over:
            policies, values = policy(states[1])
            action = int(choose(policies, rng)[0])
        emulator_frames = info["frame_number"] - emulated
        yield Step(reward, emulator_frames, states[1][0], policies[0], float(values[0]), action, over)
        if over:
            return
        emulated, states, first = info["frame_number"], states[::-1], False
        frame, reward, terminated, truncated, info = player.step(action)
        reward, over = float(reward), terminated or truncated
