"""What others learn in the same time, on the same cores, from the same states: Stable-Baselines3's A2C and PPO.

    make bench-learning-peers ARGS="ppo a2c --minutes 40"        # in the environment of make bench-peers

Each trains on the suite's own games (its protocol, states of 84x84x12) with its own network for Atari and the settings
that RL Baselines3 Zoo has for Atari games; one process per game, all cores. Wall clock is from the process's start; the
final policy plays 100 episodes, greedy with 1% random actions, on the suite's simulators. The result joins
``results/<experiment>.json``, beside the suite's own runs of that experiment, and its picture.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import os
import sys
import time
from collections import deque
from concurrent.futures import ProcessPoolExecutor

from a3c.playing.episode import GREEDY
from a3c.playing.evaluation import evaluate
from a3c.seeds import Purpose, Seeds
from a3c.system.machine import usable_cores
from a3c.system.processes import die_with_parent
from atari_wrapper import make_player
from bench import harness
from bench.learning import EXPERIMENTS, RESULTS, draw

import gymnasium
import numpy as np
import psutil

_POINT_S = 20.0  # between two points of a curve
_ONLINE_EPISODES = 100


def _settings(algorithm: str, remaining) -> dict:
    """RL Baselines3 Zoo's for Atari; its linear schedules are over the time here. ``remaining()``: from 1 to 0."""
    if algorithm == "a2c":
        from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike

        return {"games": 16, "n_steps": 5, "ent_coef": 0.01, "vf_coef": 0.25,
                "policy_kwargs": {"optimizer_class": RMSpropTFLike, "optimizer_kwargs": {"eps": 1e-5}}}  # fmt: skip
    return {"games": 8, "n_steps": 128, "n_epochs": 4, "batch_size": 256, "vf_coef": 0.5, "ent_coef": 0.01,
            "learning_rate": lambda _: 2.5e-4 * remaining(), "clip_range": lambda _: 0.1 * remaining()}  # fmt: skip


def make_game(env_id: str) -> gymnasium.Env:
    """One of the suite's games; it learns from clipped rewards, as the suite does, and reports the raw score."""
    from stable_baselines3.common.monitor import Monitor

    return gymnasium.wrappers.TransformReward(
        Monitor(make_player(env_id), info_keywords=("frame_number",)), lambda reward: float(np.clip(reward, -1, 1))
    )


def learn(algorithm: str, env_id: str, seed: int, minutes: float, episodes: int) -> dict:
    """Train and evaluate: a run as ``bench.learning`` keeps it. To be called in a process of its own."""
    import cv2
    import stable_baselines3
    import torch
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.vec_env import SubprocVecEnv, VecFrameStack

    cv2.setNumThreads(1)  # the games' processes inherit it
    start = psutil.Process().create_time()

    def elapsed_minutes() -> float:
        return (time.time() - start) / 60

    settings = _settings(algorithm, lambda: max(0.0, 1 - elapsed_minutes() / minutes))
    games = settings.pop("games")
    learner = os.getpid()

    def game() -> gymnasium.Env:
        die_with_parent(learner)
        return make_game(env_id)

    env = VecFrameStack(SubprocVecEnv([game] * games, start_method="fork"), n_stack=4)
    torch.set_num_threads(usable_cores())
    curve, scores, frames = [], deque(maxlen=_ONLINE_EPISODES), np.zeros(games, int)

    class Clock(BaseCallback):
        """Ends the training when the time is over, and keeps its curve."""

        def _on_step(self) -> bool:
            for game, info in enumerate(self.locals["infos"]):
                frames[game] = info["frame_number"]
                if "episode" in info:
                    scores.append(info["episode"]["r"])
            passed = elapsed_minutes()
            if 60 * (passed - (curve[-1]["train_minutes"] if curve else 0.0)) >= _POINT_S or passed >= minutes:
                curve.append(
                    {"steps": self.num_timesteps, "emulator_frames": int(frames.sum()), "train_minutes": passed}
                    | ({"online_score": float(np.mean(scores))} if scores else {})
                )
                harness.progress(f"{algorithm}: {passed:.1f} of {minutes:g} minutes, {curve[-1]}")
            return passed < minutes

    try:
        agent = getattr(stable_baselines3, algorithm.upper())("CnnPolicy", env, seed=seed, device="cpu", **settings)
        agent.learn(10**12, callback=Clock())
    finally:
        env.close()

    @torch.no_grad()
    def policy(states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        observations = torch.from_numpy(np.ascontiguousarray(states.transpose(0, 3, 1, 2)))
        distribution = agent.policy.get_distribution(observations).distribution
        return distribution.probs.numpy(), agent.policy.predict_values(observations).numpy()[:, 0]

    found = evaluate(policy, {"env_id": env_id}, episodes, 2 * usable_cores(), Seeds(seed, Purpose.EVALUATION))
    final = {
        "protocol": GREEDY, "mean": found.mean, "stderr": found.stderr,
        "scores": [float(score) for score in found.scores], "cores": usable_cores(),
        **{name: curve[-1][name] for name in ("steps", "emulator_frames", "train_minutes")},
    }  # fmt: skip
    return {"final": final, "curve": curve}


def main() -> None:
    """Train what was asked for, keep it and draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("algorithms", nargs="+", choices=("a2c", "ppo"))
    parser.add_argument("--experiment", choices=("pong", "breakout"), default="pong")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--episodes", type=int, default=100)
    args = parser.parse_args()
    if importlib.util.find_spec("stable_baselines3") is None:
        sys.exit("Stable-Baselines3 is not installed here: type make bench-learning-peers, which installs it apart")
    path = RESULTS / f"{args.experiment}.json"
    experiment = EXPERIMENTS[args.experiment]
    results = {}
    for algorithm in args.algorithms:
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, spawn, initializer=die_with_parent, initargs=(os.getpid(),)) as pool:
            run = pool.submit(learn, algorithm, experiment.env, args.seed, args.minutes, args.episodes).result()
        record = json.loads(path.read_text()) if path.exists() else {"env": experiment.env, "settings": {}}
        name = f"Stable-Baselines3 {algorithm.upper()}"
        record["settings"].setdefault(name, {"flags": "RL Baselines3 Zoo", "runs": {}})["runs"][str(args.seed)] = run
        harness.save(record, path)
        draw(record, path.with_suffix(".png"))
        results[name] = {key: run["final"][key] for key in ("mean", "stderr", "steps", "train_minutes")}
    rows = [{"who": name, **final} for name, final in results.items()]
    harness.report(rows, {"benchmark": "learning peers", "env": experiment.env, "results": results})


if __name__ == "__main__":
    main()
