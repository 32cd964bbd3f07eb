"""The game: Atari environments under the suite's protocol.

``make_player`` builds one environment whose observation is the newest 84x84 RGB frame;
``stack_frames`` turns such frames into the network's state, the last four frames. The two are apart
because only the newest frame crosses from a simulator to the learner.

The protocol of the ``-v0`` ids: every action is repeated 2, 3 or 4 emulator frames at random, the emulator
keeps the previous action with probability 0.25 (Machado et al. 2018, "Revisiting the ALE", section 5),
the minimal action set, an episode ends with the game and is cut at 60,000 steps.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import re
import warnings

from a3c.errors import UsageError

import ale_py
import cv2
import gymnasium
import numpy as np
from ale_py.env import AtariEnv

IMAGE_SIZE = (84, 84)
FRAME_HISTORY = 4
FRAME_SHAPE = (*IMAGE_SIZE, 3)
STATE_SHAPE = (*IMAGE_SIZE, 3 * FRAME_HISTORY)
MAX_EPISODE_STEPS = 60_000
_FIRE_STEPS = 2  # of a FIRE reset
FRAMES_PER_S = 60  # of the console, NTSC

gymnasium.register_envs(ale_py)
ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
# The suite measures on the -v0 ids, whatever newer versions exist.
warnings.filterwarnings("ignore", message=r".*The environment .* is out of date", category=DeprecationWarning)


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What an environment id stands for, as resolved: the scores of two protocols do not compare.

    Attributes:
        env: the environment id.
        frameskip: emulator frames per step, the least and the most.
        sticky: probability that the emulator repeats its previous action.
        actions: the names of the actions, in the order of the policy's outputs.
        max_episode_steps: steps after which an episode is cut.
        max_episode_frames: emulator frames after which the emulator cuts it.
    """

    env: str
    frameskip: tuple[int, int]
    sticky: float
    actions: tuple[str, ...]
    max_episode_steps: int
    max_episode_frames: int

    def __str__(self) -> str:
        low, high = self.frameskip
        skip = f"{low}" if low == high else f"{low} to {high} at random"
        return (
            f"{self.env}: frameskip {skip}, sticky actions {self.sticky:g}, {len(self.actions)} actions "
            f"({' '.join(self.actions)}), cut at {self.max_episode_steps:,} steps or {self.max_episode_frames:,} frames"
        )


@functools.cache
def _shared_screen(shape: tuple[int, ...]) -> np.ndarray:
    """The screen that all players of a process draw on, so that it stays in the cache: it is read at once."""
    return np.empty(shape, np.uint8)


class Player(gymnasium.Wrapper):
    """An Atari game seen as its newest frame, resized to 84x84 with OpenCV's bilinear filter; cut after some steps.

    A step is that of Gymnasium's ``AtariEnv``, taken on the emulator itself: the layers between, a new screen for each
    step and a random number for each frameskip would cost 5% of the emulation. A game that waits for FIRE is started:
    after a reset it takes action 1, then action 2, and drops their rewards.

    Attributes:
        frame: the newest frame, uint8 ``[84, 84, 3]``, which the next step overwrites; a caller may give another array.
    """

    def __init__(self, env: gymnasium.Env, max_episode_steps: int, seed: int | None = None):
        """``seed``: what the game was built with, if a seed was given."""
        super().__init__(env)
        self._built_with = seed
        self.observation_space = gymnasium.spaces.Box(0, 255, FRAME_SHAPE, np.uint8)
        game = env.unwrapped
        self._ale = game.ale
        self._actions = list(game._action_set)
        meanings = game.get_action_meanings()
        self._first_actions = (1, 2) if len(meanings) >= 3 and meanings[1] == "FIRE" else ()
        frameskip = game._frameskip
        self._frameskip = frameskip if isinstance(frameskip, tuple) else (frameskip, frameskip + 1)
        self._frameskips = iter(())
        self._screen = _shared_screen(game.observation_space.shape)
        self.frame = np.empty(FRAME_SHAPE, np.uint8)
        self._max_steps, self._steps = max_episode_steps, 0

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self._frameskips = iter(())  # the next ones are to be of this seed
        built_with, self._built_with = self._built_with, None
        self.env.reset(seed=None if seed == built_with else seed, options=options)
        for action in self._first_actions:
            self._act(action)
            if self._ale.game_over():
                self.env.reset()
        self._steps = 0
        return self._observe()

    def step(self, action: int):
        ale, reward = self._ale, self._act(action)
        self._steps += 1
        frame, info = self._observe()
        truncated = self._steps >= self._max_steps or ale.game_truncated()
        return frame, reward, ale.game_over(with_truncation=False), truncated, info

    def _act(self, action: int) -> float:
        ale, chosen, reward = self._ale, self._actions[action], 0.0
        for _ in range(next(self._frameskips, 0) or self._draw_frameskips()):
            reward += ale.act(chosen)
        return reward

    def _observe(self):
        self._ale.getScreenRGB(self._screen)
        cv2.resize(self._screen, IMAGE_SIZE, dst=self.frame, interpolation=cv2.INTER_LINEAR)
        return self.frame, {"lives": self._ale.lives(), "frame_number": self._ale.getFrameNumber()}

    def _draw_frameskips(self) -> int:
        self._frameskips = iter(self.np_random.integers(*self._frameskip, size=1000).tolist())
        return next(self._frameskips)


def _atari_spec(env_id: str) -> gymnasium.envs.registration.EnvSpec:
    def is_atari(spec):
        return str(spec.entry_point).startswith("ale_py")

    spec = gymnasium.registry.get(env_id)
    if spec is None:
        atari_ids = [name for name, spec in gymnasium.registry.items() if is_atari(spec)]
        near = _meant(env_id, atari_ids)
        hint = f"did you mean {', '.join(near)}?" if near else "try Pong-v0 or ALE/Pong-v5"
        raise UsageError(f"unknown environment {env_id!r}: {hint}")
    if not is_atari(spec):
        raise UsageError(f"{env_id} is no Atari game: name one such as Pong-v0 or ALE/Pong-v5")
    return spec


def _meant(env_id: str, atari_ids: list[str]) -> list[str]:
    """All ids of the game that an unknown id names, the most alike first; else one id of each similar game."""
    by_game: dict[str, list[str]] = {}
    for name in atari_ids:
        by_game.setdefault(_game(name), []).append(name)
    if ids := by_game.get(_game(env_id)):
        return sorted(ids, key=lambda name: -difflib.SequenceMatcher(None, env_id.lower(), name.lower()).ratio())
    return [by_game[game][0] for game in difflib.get_close_matches(_game(env_id), by_game, n=3)]


def _game(env_id: str) -> str:
    """The game of an id, in small letters: without namespace, version and variant, also where Gym had these."""
    words = re.split(r"[:/]", env_id.lower())[-1]
    name = re.sub(r"[^a-z0-9]", "", re.sub(r"[^a-z0-9]*v\d+\s*$", "", words))
    return re.sub(r"(ram|deterministic|noframeskip)+$", "", name)


@functools.cache
def get_protocol(env_id: str) -> Protocol:
    """Resolve the protocol of an Atari environment id.

    Raises:
        UsageError: the id is unknown to Gymnasium, or is no Atari game.
    """
    spec = _atari_spec(env_id)
    skip = spec.kwargs.get("frameskip", 4)
    game = _make_game(env_id)
    actions = tuple(game.unwrapped.get_action_meanings())
    game.close()
    return Protocol(
        env=env_id,
        frameskip=(skip[0], skip[1] - 1) if isinstance(skip, (tuple, list)) else (skip, skip),
        sticky=spec.kwargs.get("repeat_action_probability", 0.25),
        actions=actions,
        max_episode_steps=MAX_EPISODE_STEPS,
        max_episode_frames=_max_frames(spec),
    )


def _max_frames(spec: gymnasium.envs.registration.EnvSpec) -> int:
    # Gymnasium cuts all ids at 108,000 frames, about 36,000 steps; the -v0 protocol goes on to 60,000 steps.
    if spec.version == 0:
        skip = spec.kwargs.get("frameskip", 4)
        return (MAX_EPISODE_STEPS + _FIRE_STEPS) * (skip[1] - 1 if isinstance(skip, (tuple, list)) else skip)
    return spec.kwargs.get("max_num_frames_per_episode", 108_000)


class _SeededGame(AtariEnv):
    """Gymnasium's game, seeded when it is built. To seed it later is to load its ROM again, which takes 0.2 s."""

    def __init__(self, first_seed: int, **options):
        self._first_seed = first_seed
        super().__init__(**options)

    def seed_game(self, seed: int | None = None) -> tuple[int, int]:
        return super().seed_game(self._first_seed if seed is None else seed)


def _make_game(env_id: str, render_mode: str | None = None, seed: int | None = None) -> gymnasium.Env:
    spec = _atari_spec(env_id)
    if seed is not None:
        spec = dataclasses.replace(spec, entry_point=_SeededGame, kwargs={**spec.kwargs, "first_seed": seed})
    return gymnasium.make(
        spec,
        obs_type="rgb",
        render_mode=render_mode,
        max_num_frames_per_episode=_max_frames(spec),
        disable_env_checker=True,
    )


def make_player(
    env_id: str,
    render_mode: str | None = None,
    max_episode_steps: int = MAX_EPISODE_STEPS,
    seed: int | None = None,
) -> gymnasium.Env:
    """Build one Atari game under the protocol of its id.

    Args:
        env_id: an Atari id known to Gymnasium: ``Pong-v0``, ``ALE/Pong-v5``, ``BreakoutNoFrameskip-v4``.
        render_mode: as in Gymnasium: ``None``, ``"rgb_array"`` or ``"human"``.
        max_episode_steps: steps after which an episode is truncated; the steps of a FIRE reset do not count.
        seed: what the first reset will seed it with, if that is known: it need not be loaded again then.

    Returns:
        An environment with the newest frame, uint8 ``[84, 84, 3]`` RGB, as observation (good until its next step),
        the raw reward of the game, and in ``info`` the ``lives`` and the ``frame_number``, emulator frames played
        since it was built.

    Raises:
        UsageError: the id is unknown to Gymnasium, or is no Atari game.
    """
    return Player(_make_game(env_id, render_mode, seed), max_episode_steps, seed)


def stack_frames(previous: np.ndarray, frames: np.ndarray, first: np.ndarray, out: np.ndarray) -> None:
    """Append the newest frames to a block of states: channel = 3 * history + colour, oldest frame first.

    Shifting all states as one flat copy is what makes it cheap: the three newest channels then hold what belongs
    to the next pixel, and are written after it.

    Args:
        previous: the states before, uint8 ``[E, 84, 84, 12]``, C-contiguous.
        frames: the newest frames, uint8 ``[E, 84, 84, 3]``.
        first: bool ``[E]``, true where the frame is the first of an episode: the history before it is zeros.
        out: where the new states go, like ``previous``, which it does not overlap.
    """
    colours = frames.shape[-1]
    out.reshape(-1)[:-colours] = previous.reshape(-1)[colours:]
    for colour in range(colours):
        out[..., colour - colours] = frames[..., colour]
    for env in np.flatnonzero(first):
        out[env, ..., :-colours] = 0
