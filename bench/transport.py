"""How many states per second does the transport move when the games cost nothing?

    python -m bench.transport [--rounds 3] [--seconds 5] [--simulator-proc N] [--num-envs E]

Fake games that only hand out a frame; everything else is real: processes, sockets, messages, and the history stacked
into the unroll, ready for a predictor. The cost of a state is split into

    simulator   the simulator's loop over its games, and encoding
    socket      what remains of cores / states_per_s: ZMQ, the kernel, waking each other, and waiting
    decode      checking a message
    stack       the history, in the unroll builder

With --ray the ways to a cluster's hosts are compared instead (bench/wires.py).

The last line is JSON: ``states_per_s`` and the four in microseconds per state.
"""

from __future__ import annotations

import argparse
import statistics

from a3c.config import Config
from a3c.doctor.speed import FREE_GAME, FreeGame, Histories, Simulators, seconds_per_call
from a3c.simulation.messages import StepBlock, decode, encode_step
from a3c.system.machine import usable_cores
from bench import harness
from simulator import GameBlock

import numpy as np

_NUM_ACTIONS = 6


def part_seconds(envs: int, seconds: float) -> dict[str, float]:
    """Time the parts alone, in this process: seconds per state."""
    games = GameBlock([FreeGame() for _ in range(envs)], seed=0)
    actions = np.zeros(envs, np.int8)

    def simulate():
        games.step(actions)
        return encode_step(StepBlock(0, 1, 1, games.emulator_frames, games.rewards, games.ends, games.frames))

    message = [simulate()[0], games.frames.tobytes()]
    step = decode(message, (envs,))
    master = Histories((envs,))
    master.on_step(step._replace(sequence=0))
    parts = {
        "simulator": simulate,
        "decode": lambda: decode(message, (envs,)),
        "stack": lambda: master.on_step(step),
    }
    return {name: seconds_per_call(part, seconds) / envs for name, part in parts.items()}


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--simulator-proc", type=int, help="processes (default: the suite's, 2 per core)")
    parser.add_argument("--num-envs", type=int, help="games, all processes together (default: the suite's)")
    parser.add_argument("--ray", action="store_true", help="the ways to other machines instead: tcp, lz4, CURVE")
    args = parser.parse_args()
    chosen = Config(simulator_proc=args.simulator_proc, num_envs=args.num_envs)
    envs_per_simulator = chosen.resolve(usable_cores(), 0).envs_per_simulator
    if args.ray:
        from bench import wires

        wires.measure(args.rounds, args.seconds, envs_per_simulator)
        return
    simulators = Simulators({}, envs_per_simulator, _NUM_ACTIONS, FREE_GAME)
    master = Histories(envs_per_simulator)
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
