"""How much of what the cores can emulate do the simulators deliver, with a policy that costs nothing?

    python -m bench.simulators [--games Pong-v0 Breakout-v0 Seaquest-v0] [--rounds 9] [--seconds 2]

Subject: real games in real simulator processes, received by the SimulatorMaster, which sends random actions back; two
processes per core with 32 games each, the best of what was tried (training's 8 games wait less for the policy).
Limit: cores / (mean frames per step x raw ALE frame + RGB screen + resize), each part alone in a loop, all cores busy.
Resets are the subject's cost: the limit has none.
The last line is JSON: ``states_per_s``, ``limit_states_per_s`` and ``ratio`` of the game with the least ratio.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time

from atari_wrapper import FRAME_SHAPE, IMAGE_SIZE, get_protocol, make_player
from bench import harness
from config import spread
from machine import usable_cores
from nursery import Nursery
from simulator import ATARI_PLAYER
from simulator_master import SimulatorMaster

import cv2
import numpy as np

_WARM_UP_S = 0.2


def step_seconds(env_id: str, seconds: float) -> dict[str, float]:
    """Time the parts of a step alone: seconds per emulator frame, per RGB screen and per resize."""
    cv2.setNumThreads(1)
    ale = make_player(env_id).unwrapped.ale
    actions = random.Random(0).choices(ale.getMinimalActionSet(), k=10_000)
    screen, image = ale.getScreenRGB(), np.empty(FRAME_SHAPE, np.uint8)
    return {
        "frame": _frame_seconds(ale, actions, 0.6 * seconds),
        "screen": harness.seconds_per_call(lambda: ale.getScreenRGB(screen), 0.2 * seconds),
        "resize": harness.seconds_per_call(
            lambda: cv2.resize(screen, IMAGE_SIZE, dst=image, interpolation=cv2.INTER_LINEAR), 0.2 * seconds
        ),
    }


def _frame_seconds(ale, actions: list, seconds: float) -> float:
    """Mean time of an emulator frame; resets are not in it."""
    frames, elapsed = 0, 0.0
    while elapsed < seconds:
        ale.reset_game()
        start = time.perf_counter()
        while not ale.game_over() and elapsed + time.perf_counter() - start < seconds:
            ale.act(actions[frames % len(actions)])
            frames += 1
        elapsed += time.perf_counter() - start
    return elapsed / frames


def limit_states_per_s(cores: harness.Cores, env_id: str, frames_per_step: float, seconds: float) -> float:
    """States per second that all cores together could emulate if nothing else cost anything."""
    parts = cores.run(step_seconds, env_id, seconds)
    return sum(1 / (frames_per_step * part["frame"] + part["screen"] + part["resize"]) for part in parts)


class Simulators:
    """Simulators with a free policy: random actions, made beforehand."""

    def __init__(self, player_args: dict, envs_per_simulator: tuple[int, ...], num_actions: int, player=ATARI_PLAYER):
        self.master = SimulatorMaster(Nursery(), envs_per_simulator, player_args, player)
        rng = np.random.default_rng(0)
        self._actions = rng.integers(num_actions, size=(1000, max(envs_per_simulator)), dtype=np.int8)
        # Steps that were not answered yet: the simulators rest between two measurements.
        self._waiting = [self._receive() for _ in envs_per_simulator]

    def states_per_s(self, seconds: float, on_step=lambda step: None) -> float:
        """Play for ``seconds`` after a warm-up. ``on_step`` is called with each step before it is answered."""
        for step in self._waiting:
            on_step(step)
            self._answer(step, 0)
        self._waiting.clear()
        self._play(_WARM_UP_S, on_step)
        start = time.perf_counter()
        states = self._play(seconds, on_step)
        result = states / (time.perf_counter() - start)
        while len(self._waiting) < len(self.master.envs_per_simulator):
            self._waiting.append(self._receive())
        return result

    def _play(self, seconds: float, on_step) -> int:
        states, number, end = 0, 0, time.perf_counter() + seconds
        while time.perf_counter() < end:
            step = self._receive()
            on_step(step)
            self._answer(step, number)
            states, number = states + len(step.ends), number + 1
        return states

    def _receive(self):
        step = self.master.receive(60)
        if step is None:
            raise RuntimeError("no simulator made a step for 60 s")
        return step

    def _answer(self, step, number: int) -> None:
        self.master.send(step.index, step.life, self._actions[number % len(self._actions), : len(step.ends)])

    def close(self) -> None:
        self.master.close()


def measure(
    cores: harness.Cores, env_id: str, rounds: int, seconds: float, envs_per_simulator: tuple[int, ...]
) -> dict:
    """Measure one game."""
    protocol = get_protocol(env_id)
    frames_per_step = statistics.mean(protocol.frameskip)
    simulators = Simulators({"env_id": env_id}, envs_per_simulator, len(protocol.actions))
    try:
        results = harness.rounds(
            rounds,
            {
                f"{env_id}, limit": lambda: limit_states_per_s(cores, env_id, frames_per_step, seconds),
                f"{env_id}, simulators": lambda: simulators.states_per_s(seconds),
            },
        )
    finally:
        simulators.close()
    limit, subject = results.values()
    return {
        "game": env_id,
        "states_per_s": statistics.median(subject),
        "limit_states_per_s": statistics.median(limit),
        "ratio": harness.median_ratio(subject, limit),
        "least": min(s / b for s, b in zip(subject, limit, strict=True)),
        "most": max(s / b for s, b in zip(subject, limit, strict=True)),
    }


def main() -> None:
    """Measure each game and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--games", nargs="+", default=["Pong-v0", "Breakout-v0", "Seaquest-v0"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--simulator-proc", type=int, help="processes (default: the suite's, 2 per core)")
    parser.add_argument("--num-envs", type=int, help="games, all processes together (default: 32 per process)")
    args = parser.parse_args()
    processes = args.simulator_proc or 2 * usable_cores()
    envs_per_simulator = spread(args.num_envs or 32 * processes, processes)
    with harness.Cores() as cores:
        rows = [measure(cores, game, args.rounds, args.seconds, envs_per_simulator) for game in args.games]
    least = min(rows, key=lambda row: row["ratio"])
    harness.report(rows, {"benchmark": "simulators", "cores": usable_cores(), **least})


if __name__ == "__main__":
    main()
