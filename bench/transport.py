"""How many states per second does the transport move when the games cost nothing?

    python -m bench.transport [--rounds 3] [--seconds 5] [--simulator-proc N] [--num-envs E]

Fake games that only hand out a frame; everything else is real: processes, sockets, messages, and the history stacked
into the unroll, ready for a predictor. The cost of a state is split into

    simulator   the simulator's loop over its games, and encoding
    socket      what remains of cores / states_per_s: ZMQ, the kernel, waking each other, and waiting
    decode      checking a message
    stack       the history, in the unroll builder

The last line is JSON: ``states_per_s`` and the four in microseconds per state.
"""

from __future__ import annotations

import argparse
import statistics

from atari_wrapper import FRAME_SHAPE
from bench import harness
from bench.simulators import Simulators
from config import Config
from machine import usable_cores
from messages import StepBlock, decode, encode_step
from simulator import GameBlock
from unroll import UnrollBuilder

import numpy as np

_UNROLL_STEPS = 64
_NUM_ACTIONS = 6


class FakeGame:
    """A game that costs nothing: always the same frame, and an end every 1,000 steps."""

    def __init__(self):
        self._frame = np.random.default_rng(0).integers(0, 256, FRAME_SHAPE, np.uint8)
        self._steps = 0

    def reset(self, seed=None):
        return self._frame, {"frame_number": self._steps}

    def step(self, action):
        self._steps += 1
        return self._frame, 0.0, self._steps % 1000 == 0, False, {"frame_number": self._steps}


class Master:
    """What the learner's master does with a step besides receiving it: the history, in an unroll."""

    def __init__(self, envs_per_simulator: tuple[int, ...]):
        self._envs = envs_per_simulator
        self._builders: list[UnrollBuilder | None] = [None] * len(envs_per_simulator)

    def on_step(self, step: StepBlock) -> None:
        """Make the states that a predictor would take."""
        if step.sequence == 0:
            self._builders[step.index] = UnrollBuilder(self._envs[step.index], _UNROLL_STEPS)
            self._builders[step.index].start(step.frames)
        else:
            self._builders[step.index].record(step.rewards, step.ends)
            self._builders[step.index].push(step.frames)


def part_seconds(envs: int, seconds: float) -> dict[str, float]:
    """Time the parts alone, in this process: seconds per state."""
    games = GameBlock([FakeGame() for _ in range(envs)], seed=0)
    actions = np.zeros(envs, np.int8)

    def simulate():
        games.step(actions)
        return encode_step(StepBlock(0, 1, 1, games.emulator_frames, games.rewards, games.ends, games.frames))

    message = [simulate()[0], games.frames.tobytes()]
    step = decode(message, (envs,))
    master = Master((envs,))
    master.on_step(step._replace(sequence=0))
    parts = {
        "simulator": simulate,
        "decode": lambda: decode(message, (envs,)),
        "stack": lambda: master.on_step(step),
    }
    return {name: harness.seconds_per_call(part, seconds) / envs for name, part in parts.items()}


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--simulator-proc", type=int, help="processes (default: the suite's, 2 per core)")
    parser.add_argument("--num-envs", type=int, help="games, all processes together (default: the suite's)")
    args = parser.parse_args()
    chosen = Config(simulator_proc=args.simulator_proc, num_envs=args.num_envs)
    envs_per_simulator = chosen.resolve(usable_cores(), 0).envs_per_simulator
    simulators = Simulators({}, envs_per_simulator, _NUM_ACTIONS, "bench.transport:FakeGame")
    master = Master(envs_per_simulator)
    try:
        results = harness.rounds(
            args.rounds,
            {
                "parts": lambda: part_seconds(max(envs_per_simulator), args.seconds / 3),
                "transport": lambda: simulators.states_per_s(args.seconds, master.on_step),
            },
        )
    finally:
        simulators.close()
    rows = []
    for number, (parts, speed) in enumerate(zip(*results.values(), strict=True)):
        total = usable_cores() / speed
        socket = total - sum(parts.values())
        costs = {**parts, "socket": socket, "all": total}
        rows.append({"round": number + 1, "states/s": speed, **{f"{part}, us": 1e6 * costs[part] for part in costs}})
    medians = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
    harness.report(
        rows,
        {
            "benchmark": "transport",
            "cores": usable_cores(),
            "states_per_s": medians["states/s"],
            **{f"{part}_us": medians[f"{part}, us"] for part in ("simulator", "socket", "decode", "stack")},
        },
    )


if __name__ == "__main__":
    main()
