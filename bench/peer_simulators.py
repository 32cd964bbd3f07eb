"""Simulators of other libraries beside the suite's, under a policy that costs nothing: the first part of bench.peers.

All play the same game with a frameskip of 3, sticky actions 0.25, RGB frames of 84x84, no stack, random actions made
beforehand. A short calibration chooses the number of games and of batches that are best for each peer; the suite has
its defaults. What cannot be turned off in a peer stays: EnvPool takes the maximum of a step's last two frames.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from a3c.doctor.speed import Simulators
from a3c.system.machine import usable_cores
from atari_wrapper import get_protocol, make_player
from bench import harness

import gymnasium
import numpy as np

OURS = "the suite"
_FRAMESKIP = 3  # the mean of the -v0 ids'; no peer has theirs, 2 to 4 at random
_STICKY = 0.25
_WARM_UP_S = 0.5


def make_fixed_player(game: str, seed: int | None = None) -> gymnasium.Env:
    """Build the suite's player of a game, ``Pong``, with the frameskip that all can do."""
    return make_player(_fixed_id(game), seed=seed)


def _fixed_id(game: str) -> str:
    spec, env_id = gymnasium.spec(f"ALE/{game}-v5"), f"Bench/{game}-v5"
    if env_id not in gymnasium.registry:
        settings = {**spec.kwargs, "frameskip": _FRAMESKIP, "repeat_action_probability": _STICKY}
        gymnasium.register(env_id, spec.entry_point, kwargs=settings)
    return env_id


def importable(module: str) -> bool:
    """Whether a peer's module can be imported; tried in a process of its own, which may fail as it likes."""
    return subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True).returncode == 0


class Setting(NamedTuple):
    """How a peer's games are played: how many there are, and how many are stepped in a batch."""

    games: int
    batch: int

    def __str__(self) -> str:
        return f"{self.games} games, " + ("in step" if self.games == self.batch else f"batches of {self.batch}")


def parse_setting(text: str) -> Setting:
    """Parse ``GAMES/BATCH``. Raises argparse.ArgumentTypeError."""
    games, _, batch = text.partition("/")
    if not (games.isdecimal() and batch.isdecimal() and 0 < int(batch) <= int(games)):
        raise argparse.ArgumentTypeError(f"{text!r} is no GAMES/BATCH: try for example 24/8, or 16/16 for all in step")
    return Setting(int(games), int(batch))


def likely_settings(cores: int) -> list[Setting]:
    """The settings that a calibration tries: all games in step, and batches of those that are ready."""
    return [
        *(Setting(games * cores, games * cores) for games in (4, 8)),
        *(Setting(3 * batch * cores, batch * cores) for batch in (2, 4)),
    ]


class VectorGames:
    """A peer's games with a free policy: random actions, made beforehand."""

    def __init__(self, env, setting: Setting, num_actions: int, start: Callable, send: Callable):
        """Start the games.

        Args:
            env: the peer's vector environment; ``recv`` takes a batch, whose ``info["env_id"]`` tells of which games.
            setting: how it was made.
            num_actions: the actions are below it.
            start: called with ``env``, returns the ``env_id`` of the first batch.
            send: called with ``env``, actions int32 ``[batch]`` and ``env_id``.
        """
        self.setting = setting
        self._env, self._send = env, send
        rng = np.random.default_rng(0)
        self._actions = itertools.cycle(rng.integers(num_actions, size=(1000, setting.batch), dtype=np.int32))
        self._ready = start(env)
        for _ in range(2 * setting.games // setting.batch):  # until all games have had their reset, a slow one
            self._step()

    def states_per_s(self, seconds: float, warm_up_s: float = _WARM_UP_S) -> float:
        """Play for ``seconds`` after a warm-up; the games rest afterwards."""
        self._play(warm_up_s)
        start = time.perf_counter()
        states = self._play(seconds)
        return states / (time.perf_counter() - start)

    def _play(self, seconds: float) -> int:
        states, end = 0, time.perf_counter() + seconds
        while time.perf_counter() < end:
            states += self._step()
        return states

    def _step(self) -> int:
        self._send(self._env, next(self._actions), self._ready)
        observations, *_, info = self._env.recv()
        self._ready = info["env_id"]
        return len(observations)

    def close(self) -> None:
        self._env.close()


def make_envpool(game: str, setting: Setting) -> VectorGames:
    """Make EnvPool's games."""
    import envpool

    env = envpool.make(
        f"{game}-v5", env_type="gymnasium", num_envs=setting.games, batch_size=setting.batch,
        num_threads=usable_cores(), frame_skip=_FRAMESKIP, repeat_action_probability=_STICKY, stack_num=1,
        gray_scale=False, img_height=84, img_width=84, use_inter_area_resize=False, noop_max=1,
    )  # fmt: skip

    def start(env):
        env.async_reset()
        return env.recv()[-1]["env_id"]

    return VectorGames(env, setting, env.action_space.n, start, lambda env, actions, ids: env.send(actions, ids))


def make_atari_vector_env(game: str, setting: Setting) -> VectorGames:
    """Make ale_py's games. Its frames are resized with OpenCV's area filter; there is no choice."""
    from ale_py.vector_env import AtariVectorEnv

    env = AtariVectorEnv(
        gymnasium.spec(f"ALE/{game}-v5").kwargs["game"], setting.games, batch_size=setting.batch,
        num_threads=usable_cores(), frameskip=_FRAMESKIP, repeat_action_probability=_STICKY, stack_num=1,
        grayscale=False, img_height=84, img_width=84, maxpool=False, noop_max=0, reward_clipping=False,
    )  # fmt: skip
    return VectorGames(
        env,
        setting,
        env.single_action_space.n,
        lambda env: env.reset(seed=0)[1]["env_id"],
        lambda env, actions, _: env.send(actions),
    )


SIMULATOR_PEERS = {
    "EnvPool": ("envpool", make_envpool),
    "AtariVectorEnv": ("ale_py.vector_env", make_atari_vector_env),
}


def calibrate(
    name: str, make: Callable[[Setting], VectorGames], settings: list[Setting], seconds: float
) -> VectorGames:
    """Try each setting for ``seconds``; the games of the fastest."""
    best: VectorGames | None = None
    best_speed = 0.0
    for setting in settings:
        harness.progress(f"calibration of {name}: {setting}")
        games = make(setting)
        speed = games.states_per_s(seconds / 2, warm_up_s=seconds / 2)
        if speed > best_speed:
            best, games, best_speed = games, best, speed
        if games is not None:
            games.close()
    return best


def compare_simulators(
    game: str, rounds: int, seconds: float, envs_per_simulator: tuple[int, ...], settings: list[Setting]
) -> tuple[dict[str, str], dict[str, list[float]]]:
    """Measure the simulators of all: each one's setting, and each one's states per second in the rounds."""
    peers: dict[str, VectorGames | None] = dict.fromkeys(SIMULATOR_PEERS)
    num_actions = len(get_protocol(_fixed_id(game)).actions)
    ours = Simulators({"game": game}, envs_per_simulator, num_actions, "bench.peer_simulators:make_fixed_player")
    try:
        for name, (module, make) in SIMULATOR_PEERS.items():
            if importable(module):
                peers[name] = calibrate(name, partial(make, game), settings, seconds / 3)
        playing = {OURS: ours, **{name: peer for name, peer in peers.items() if peer is not None}}
        speeds = harness.rounds(rounds, {name: partial(games.states_per_s, seconds) for name, games in playing.items()})
    finally:
        for games in (ours, *peers.values()):
            if games is not None:
                games.close()
    chosen = {name: str(peer.setting) for name, peer in peers.items() if peer is not None}
    return {OURS: f"{sum(envs_per_simulator)} games, {len(envs_per_simulator)} processes", **chosen}, speeds
