"""How many states per second does the transport move when the games cost nothing?

    python -m bench.transport [--rounds 3] [--seconds 5] [--simulator-proc N] [--num-envs E] [--unrolls T]

Fake games that only hand out a frame; everything else is real: processes, sockets, messages, and the history stacked
into the unroll, ready for a predictor. The cost of a state is split into

    simulator   the simulator's loop over its games, and encoding
    socket      what remains of cores / states_per_s: ZMQ, the kernel, waking each other, and waiting
    decode      checking a message
    stack       the history, in the unroll builder

With ``--unrolls T`` the states go all the way: to predictors whose policy is free, into unrolls of T steps and batches
of 128, which a learner takes and does nothing with. The table then says what the master's thread worked for a state.
With ``--ray`` the ways to a cluster's hosts are compared instead (bench/wires.py).

The last line is JSON: ``states_per_s`` and the parts in microseconds per state.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time

from a3c.acting.actor import Actor
from a3c.config import Config
from a3c.doctor.speed import FREE_GAME, FreeGame, Histories, Simulators, seconds_per_call
from a3c.simulation.master import SimulatorMaster
from a3c.simulation.messages import StepBlock, decode, encode_step
from a3c.simulation.nursery import Nursery
from a3c.system.machine import usable_cores
from a3c.system.stopping import StopRequest
from bench import harness
from simulator import GameBlock

import numpy as np

_NUM_ACTIONS = 6
_WARM_UP_S = 0.5


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


class WholeBatches:
    """The whole way of a state from a game that costs nothing to the learner's batch. A context manager."""

    def __init__(self, config: Config):
        """``config``: the resolved configuration."""
        master = SimulatorMaster(Nursery(), config.envs_per_simulator, {}, FREE_GAME)
        self._actor = Actor(config, master, 1, 1, StopRequest())
        self._actor.start([_free_policy])
        self._take(_WARM_UP_S)

    def measure(self, seconds: float) -> dict[str, float]:
        """States per second in batches, and seconds that the master's thread was on a core for each."""
        (thread,) = (t for t in self._actor._threads if t.name == "master")
        clock = time.pthread_getcpuclockid(thread.ident)
        start, busy = time.perf_counter(), time.clock_gettime(clock)
        states = self._take(seconds)
        return {
            "states": states / (time.perf_counter() - start),
            "master": (time.clock_gettime(clock) - busy) / states,
        }

    def _take(self, seconds: float) -> int:
        states, end = 0, time.perf_counter() + seconds
        while time.perf_counter() < end:
            states += len(self._actor.take_batch().actions)
            self._actor.updates += 1
        return states

    def __enter__(self) -> WholeBatches:
        return self

    def __exit__(self, *_):
        self._actor.close()


def _free_policy(states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    size = len(states)
    return np.full((size, _NUM_ACTIONS), 1 / _NUM_ACTIONS, np.float32), np.zeros(size, np.float32)


def measure_batches(config: Config, args: argparse.Namespace) -> None:
    """Measure and report the whole way."""
    with WholeBatches(config) as batches:
        measured = harness.rounds(args.rounds, {"batches": lambda: batches.measure(args.seconds)})["batches"]
    rows = [
        {"round": number, "states/s": speed["states"], "master, us": 1e6 * speed["master"]}
        for number, speed in enumerate(measured, 1)
    ]
    medians = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
    harness.report(
        rows,
        {
            "benchmark": "transport",
            "unrolls": config.local_time_max,
            "cores": usable_cores(),
            "states_per_s": medians["states/s"],
            "master_us": medians["master, us"],
        },
    )


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--simulator-proc", type=int, help="processes (default: the suite's, 2 per core)")
    parser.add_argument("--num-envs", type=int, help="games, all processes together (default: the suite's)")
    parser.add_argument("--unrolls", type=int, metavar="T", help="go all the way, to batches of unrolls of T steps")
    parser.add_argument("--ray", action="store_true", help="the ways to other machines instead: tcp, lz4, CURVE")
    args = parser.parse_args()
    chosen = Config(simulator_proc=args.simulator_proc, num_envs=args.num_envs)
    if args.unrolls is not None:
        whole_way = dataclasses.replace(chosen, network="batch-a3c", local_time_max=args.unrolls)
        measure_batches(whole_way.resolve(usable_cores(), 0), args)
        return
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
