"""How does the suite compare with others that do the same work, on the same machine in the same run?

    make bench-peers                      # makes an environment of its own from bench/requirements.txt, and runs
    python -m bench.peers [--part simulators|train] [--game Pong] [--rounds 3] [--seconds 5]

Part ``simulators``: the suite's simulators under a free policy against EnvPool and ale_py's AtariVectorEnv. All play
the same game with a frameskip of 3, sticky actions 0.25, RGB frames of 84x84, no stack, random actions made beforehand.
A short calibration chooses the number of games and of batches that are best for each peer; the suite has its defaults.
What cannot be turned off in a peer stays: EnvPool takes the maximum of a step's last two frames.

Part ``train``: the command line against the A2C of Stable-Baselines3: the network ``small``, states of 84x84x12, the
same games, unroll and batch. And against itself with the layout and queues of the original: one game per process,
its inference batch and its queue. Speed alone is compared, not what is learned.

A peer that is not installed is said to be, and its ratio is null. The last line is JSON: ``ratios``, the median over
the rounds of the suite's states per second divided by each peer's.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import itertools
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import NamedTuple

from a3c.config import Config
from a3c.doctor.speed import Simulators
from a3c.system.machine import usable_cores
from atari_wrapper import get_protocol, make_player
from bench import harness
from bench.train import run_training

import gymnasium
import numpy as np

OURS = "the suite"
_FRAMESKIP = 3  # the mean of the -v0 ids'; no peer has theirs, 2 to 4 at random
_STICKY = 0.25
_WARM_UP_S = 0.5
_WARM_UP_UPDATES = 2
_MEASURED_EPOCHS = 3  # of run_training, too

# What both sides learn with, and the two that stand for the original's layout and queues. It had 66 batches in its
# queues; 64 is the most that --queue-size takes.
UNROLL_STEPS = 20
LIKE_A2C = ("--correction", "clipped-is", "--sample-reuse", "1")
LIKE_ORIGINAL = (*LIKE_A2C, "--gae-lambda", "1", "--local-time-max", "5", "--batch-size", "128", "--pool-states", "128")
ORIGINAL_QUEUES = ("--predict-batch-size", "15", "--queue-size", "64")
ORIGINAL_BATCH_STATES = 128


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
    ours = Simulators({"game": game}, envs_per_simulator, num_actions, "bench.peers:make_fixed_player")
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


def a2c_states_per_s(env_id: str, games: int, unroll_steps: int, updates: int) -> float:
    """Train Stable-Baselines3's A2C with the suite's network ``small``, in a process that does nothing else."""
    from a3c.policy.networks import NETWORKS

    import cv2
    import torch
    from stable_baselines3 import A2C
    from stable_baselines3.common.vec_env import SubprocVecEnv, VecFrameStack

    cv2.setNumThreads(1)  # the games' processes inherit it
    # Forked: a new interpreter for each game would import PyTorch once for each of them.
    env = VecFrameStack(SubprocVecEnv([partial(make_player, env_id)] * games, start_method="fork"), n_stack=4)
    torch.set_num_threads(usable_cores())
    network = NETWORKS["small"]

    class Trunk(torch.nn.Module):
        features_dim = network.hidden

        def __init__(self, observation_space):
            super().__init__()
            channels, size, _ = observation_space.shape
            layers = []
            for conv in network.convs:  # VALID, no pooling
                layers += [torch.nn.Conv2d(channels, conv.channels, conv.kernel, conv.stride), torch.nn.ReLU()]
                channels, size = conv.channels, conv.output_size(size)
            hidden = torch.nn.Linear(channels * size * size, network.hidden)
            self.layers = torch.nn.Sequential(*layers, torch.nn.Flatten(), hidden, torch.nn.ReLU())

        def forward(self, observations):
            return self.layers(observations)

    chosen = Config(network="small").resolve(usable_cores(), 0)
    agent = A2C(
        "CnnPolicy", env, n_steps=unroll_steps, device="cpu", use_rms_prop=False, seed=0,
        learning_rate=chosen.learning_rate.initial, ent_coef=chosen.entropy_beta.initial, gamma=chosen.gamma,
        gae_lambda=chosen.gae_lambda, vf_coef=chosen.value_weight / 2, max_grad_norm=chosen.gradient_clip_norm,
        policy_kwargs={"features_extractor_class": Trunk, "net_arch": [],
                       "optimizer_kwargs": {"eps": chosen.adam_epsilon}},
    )  # fmt: skip
    update_states = games * unroll_steps
    try:
        agent.learn(_WARM_UP_UPDATES * update_states)
        start = time.perf_counter()
        agent.learn(updates * update_states, reset_num_timesteps=False)
        return updates * update_states / (time.perf_counter() - start)
    finally:
        env.close()


def _drop_stderr() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def run_a2c(*args) -> float:
    """Call ``a2c_states_per_s`` in a new process, without its libraries' notes; an exception comes back."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=_drop_stderr) as pool:
        return pool.submit(a2c_states_per_s, *args).result()


def training_flags(games: int) -> dict[str, tuple[list[str], int]]:
    """The command lines that are measured, by name: their flags, and the states of their updates."""
    batch = UNROLL_STEPS * games
    sizes = ("--local-time-max", str(UNROLL_STEPS), "--batch-size", str(batch), "--pool-states", str(batch))
    layout = ("--num-envs", str(games))
    one_game_each = ("--simulator-proc", str(games), "--num-envs", str(games))
    return {
        f"{OURS}, unroll {UNROLL_STEPS}": ([*layout, *LIKE_A2C, *sizes], batch),
        f"{OURS}, unroll 5": ([*layout, *LIKE_ORIGINAL], ORIGINAL_BATCH_STATES),
        "original's layout": ([*one_game_each, *LIKE_ORIGINAL, *ORIGINAL_QUEUES], ORIGINAL_BATCH_STATES),
    }


A2C = "Stable-Baselines3 A2C"
TRAIN_PEERS = {A2C: f"{OURS}, unroll {UNROLL_STEPS}", "original's layout": f"{OURS}, unroll 5"}  # peer -> its subject


def compare_training(
    env_id: str, rounds: int, games: int, epoch_states: int
) -> tuple[dict[str, str], dict[str, list[float]]]:
    """Measure the training of all: each one's setting, and each one's states per second in the rounds."""
    config = Config(env=env_id, network="small")
    commands = training_flags(games)

    def ours(flags: list[str], batch: int) -> float:
        return run_training(flags, config, max(1, epoch_states // batch))["states_per_s"]

    measures = {name: partial(ours, *command) for name, command in commands.items()}
    chosen = {name: f"updates of {batch}" for name, (_, batch) in commands.items()}
    if importable("stable_baselines3"):
        batch = UNROLL_STEPS * games
        updates = max(1, _MEASURED_EPOCHS * epoch_states // batch)
        measures[A2C] = partial(run_a2c, env_id, games, UNROLL_STEPS, updates)
        chosen[A2C] = f"updates of {batch}"
    return chosen, harness.rounds(rounds, measures)


def rows(part: str, subjects: dict[str, str], chosen: dict[str, str], speeds: dict[str, list[float]]) -> list[dict]:
    """The table's rows of a part.

    Args:
        part: its name.
        subjects: what each peer is compared with.
        chosen: each one's setting.
        speeds: each one's states per second in the rounds; a peer without has not been measured.
    """
    found = []
    for name in (*dict.fromkeys(subjects.values()), *subjects):
        measured = name in speeds
        found.append(
            {
                "part": part,
                "who": name,
                "setting": chosen[name] if measured else "not installed",
                "states/s": statistics.median(speeds[name]) if measured else "-",
                "least": min(speeds[name]) if measured else "-",
                "most": max(speeds[name]) if measured else "-",
                "suite / peer": harness.median_ratio(speeds[subjects[name]], speeds[name])
                if measured and name in subjects
                else "-",
            }
        )
    return found


def _versions() -> dict[str, str]:
    names = ("ale-py", "envpool", "stable-baselines3", "torch", "tensorflow")
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("simulators", "train"), help="one of the two (default: both)")
    parser.add_argument("--game", default="Pong", help="without its version")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement of simulators")
    parser.add_argument("--simulator-proc", type=int, help="simulators: our processes (default: the suite's)")
    parser.add_argument("--num-envs", type=int, help="simulators: our games (default: the suite's)")
    parser.add_argument(
        "--peer-settings", type=parse_setting, nargs="+", metavar="GAMES/BATCH",
        default=likely_settings(usable_cores()), help="simulators: what a peer's calibration tries (default: by cores)",
    )  # fmt: skip
    parser.add_argument("--train-games", type=int, default=32, help="train: games, on both sides")
    parser.add_argument("--epoch-states", type=int, default=12_800, help="train: states of an epoch; 3 are measured")
    args = parser.parse_args()
    table = []
    if args.part != "train":
        layout = Config(simulator_proc=args.simulator_proc, num_envs=args.num_envs).resolve(usable_cores(), 0)
        measured = compare_simulators(
            args.game, args.rounds, args.seconds, layout.envs_per_simulator, args.peer_settings
        )
        table += rows("simulators", dict.fromkeys(SIMULATOR_PEERS, OURS), *measured)
    if args.part != "simulators":
        measured = compare_training(f"{args.game}-v0", args.rounds, args.train_games, args.epoch_states)
        table += rows("train", TRAIN_PEERS, *measured)
    result = {
        "benchmark": "peers", "game": args.game, "cores": usable_cores(), "rounds": args.rounds,
        "versions": _versions(), "ratios": {}, "states_per_s": {},
    }  # fmt: skip
    for row in table:
        speed, ratio = (round(row[key], 4) if row[key] != "-" else None for key in ("states/s", "suite / peer"))
        result["states_per_s"].setdefault(row["part"], {})[row["who"]] = speed
        if row["who"] in (*SIMULATOR_PEERS, *TRAIN_PEERS):
            result["ratios"][row["who"]] = ratio
    harness.report(table, result)


if __name__ == "__main__":
    main()
