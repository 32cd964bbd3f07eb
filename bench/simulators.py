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
import statistics

from a3c.config import spread
from a3c.doctor.speed import Simulators, step_seconds, whole_step
from a3c.system.machine import usable_cores
from atari_wrapper import Protocol, get_protocol
from bench import harness


def limit_states_per_s(cores: harness.Cores, protocol: Protocol, seconds: float) -> float:
    """States per second that all cores together could emulate if nothing else cost anything."""
    return sum(1 / whole_step(parts, protocol) for parts in cores.run(step_seconds, protocol.env, seconds))


def measure(
    cores: harness.Cores, env_id: str, rounds: int, seconds: float, envs_per_simulator: tuple[int, ...]
) -> dict:
    """Measure one game."""
    protocol = get_protocol(env_id)
    simulators = Simulators({"env_id": env_id}, envs_per_simulator, len(protocol.actions))
    try:
        results = harness.rounds(
            rounds,
            {
                f"{env_id}, limit": lambda: limit_states_per_s(cores, protocol, seconds),
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
