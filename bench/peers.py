"""How does the suite compare with others that do the same work, on the same machine in the same run?

    make bench-peers                      # makes an environment of its own from bench/requirements.txt, and runs
    python -m bench.peers [--part simulators|train] [--game Pong] [--rounds 3] [--seconds 5]

Part ``simulators``: the suite's simulators under a free policy against EnvPool and ale_py's AtariVectorEnv; see
peer_simulators.py.

Part ``train``: the command line against the A2C of Stable-Baselines3: the network ``small``, states of 84x84x12, the
same games, unroll and batch. And against itself with the layout and queues of the original: one game per process,
its inference batch and its queue. Speed alone is compared, not what is learned.

A peer that is not installed is said to be, and its ratio is null. The last line is JSON: ``ratios``, the median over
the rounds of the suite's states per second divided by each peer's.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import multiprocessing
import os
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from a3c.config import Config
from a3c.system.machine import usable_cores
from atari_wrapper import make_player
from bench import harness
from bench.peer_simulators import OURS, SIMULATOR_PEERS, compare_simulators, importable, likely_settings, parse_setting
from bench.train import run_training

_WARM_UP_UPDATES = 2
_MEASURED_EPOCHS = 3  # of run_training, too

# What both sides learn with, and the two that stand for the original's layout and queues. It had 66 batches in its
# queues, two more than here.
UNROLL_STEPS = 20
LIKE_A2C = ("--correction", "clipped-is", "--sample-reuse", "1")
LIKE_ORIGINAL = (*LIKE_A2C, "--gae-lambda", "1", "--local-time-max", "5", "--batch-size", "128", "--pool-states", "128")
ORIGINAL_QUEUES = ("--predict-batch-size", "15", "--queue-size", "64")
ORIGINAL_BATCH_STATES = 128


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
