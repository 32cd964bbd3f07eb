"""Using a trained policy: evaluate it, watch it, record it.

All act greedily with a 1% random action. Evaluation plays on the same simulators and transport as training; every game
plays a number of episodes that is fixed beforehand, so that short episodes are not over-represented.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from atari_wrapper import FRAMES_PER_S, STATE_SHAPE, make_player, stack_frames
from config import UsageError, file_name, make_output, spread
from messages import REST, RUNNING
from nursery import Nursery
from overlay import Overlay
from score_report import Scores
from simulator import ATARI_PLAYER
from simulator_master import SimulatorClosedError, SimulatorMaster

import imageio_ffmpeg
import numpy as np

RANDOM_ACTION_PROBABILITY = 0.01
EVALUATION = f"greedy with {RANDOM_ACTION_PROBABILITY:.0%} random actions"
_GAMES_PER_SIMULATOR = 8
_STEP_TIMEOUT_S = 120.0
_POLL_S = 0.5

# States, uint8 [B, 84, 84, 12] -> policy, float32 [B, A], and value, float32 [B].
Policy = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def greedy_actions(policy: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Choose the most probable action, or with probability 0.01 any: ``[B, A]`` -> int64 ``[B]``."""
    actions = policy.argmax(axis=1)
    randomly = rng.random(len(policy)) < RANDOM_ACTION_PROBABILITY
    return np.where(randomly, rng.integers(policy.shape[1], size=len(policy)), actions)


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
    seed: int,
    player: str = ATARI_PLAYER,
    max_games: int | None = None,
    on_episode: Callable[[float], None] = lambda score: None,
    check_stop: Callable[[], None] = lambda: None,
) -> Scores:
    """Play exactly ``episodes`` whole episodes on simulator processes.

    Args:
        policy: the policy to evaluate.
        player_args: keyword arguments of ``player``, such as ``{"env_id": "Pong-v0"}``.
        episodes: how many, at least 1.
        processes: simulator processes, at most.
        seed: of the games and the random actions.
        player: ``module:function`` that makes one game.
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
    rng = np.random.default_rng(seed)
    master = SimulatorMaster(Nursery(), sizes, player_args, player, seed)
    newest = time.monotonic()
    try:
        while any(block.left.any() for block in blocks):
            check_stop()
            step = master.receive(_POLL_S)
            now = time.monotonic()
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
                actions = greedy_actions(policy(states)[0], rng)
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
        UsageError: there is no display.
    """
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise UsageError(
            "there is no display to play on: watch in a browser with --watch PORT, or record with --task dump_video"
        )
    done = itertools.count(1)
    # The game runs in a process of its own, also because its OpenGL and TensorFlow can clash in one.
    with contextlib.suppress(SimulatorClosedError):
        evaluate(
            policy,
            {"env_id": env_id, "render_mode": "human"},
            episodes,
            processes=1,
            seed=seed,
            max_games=1,
            on_episode=lambda score: report(f"episode {next(done)}/{episodes}: score {score:.10g}"),
            check_stop=check_stop,
        )


def record(
    policy: Policy,
    env_id: str,
    episodes: int,
    directory: Path,
    seed: int,
    overlay: bool = False,
    report: Callable[[str], None] = print,
    check_stop: Callable[[], None] = lambda: None,
) -> list[Path]:
    """Write one H.264 video for each episode, at the game's own size and speed.

    The video has the emulator's 60 frames a second; the frame of a step is shown for as long as the step took.
    With ``overlay`` the frames are larger, and have the policy and the value beside them.
    ``check_stop`` is called between steps; when it raises, the video of the episode at hand is given up.

    Returns:
        The files, named with environment, episode and score.
    """
    make_output(directory)
    rng = np.random.default_rng(seed)
    paths = []
    for episode in range(episodes):
        player = make_player(env_id, render_mode="rgb_array")
        height, width = player.unwrapped.observation_space.shape[:2]
        drawing = Overlay((height, width), player.unwrapped.get_action_meanings()) if overlay else None
        stem = f"{file_name(env_id)}-episode-{episode + 1:03d}"
        unfinished = directory / f".{stem}.unfinished.mp4"
        video = imageio_ffmpeg.write_frames(
            str(unfinished),
            drawing.size if drawing else (width, height),
            fps=FRAMES_PER_S,
            codec="libx264",
            macro_block_size=2,
            output_params=["-crf", "18", "-preset", "veryfast", "-movflags", "+faststart"],
        )
        video.send(None)
        score = 0.0
        try:
            for step in play_episode(player, policy, rng, seed * 1_000_000 + episode):
                check_stop()
                score += step.reward
                frame = np.ascontiguousarray(player.render())
                if drawing:
                    frame = drawing.draw(frame, step, score)
                for _ in range(step.emulator_frames):
                    video.send(frame)
            video.close()
            paths.append(directory / f"{stem}-score-{score:.10g}.mp4")
            unfinished.replace(paths[-1])
        finally:
            video.close()
            player.close()
            unfinished.unlink(missing_ok=True)
        report(f"episode {episode + 1}/{episodes}: score {score:.10g}, {paths[-1]}")
    return paths
