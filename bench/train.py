"""How much of what the cores can do does training deliver, from the game to the applied gradient?

    python -m bench.train [--network small|nature|batch-a3c] [--env Pong-v0] [--rounds 3]

Subject: the command line's ``--task train`` without evaluation; the speed is that of its epochs but the first.
Limit: cores / (step + forward + sample_reuse x train), each part alone on one core and in its best batch: the step as
in bench.simulators, the forward pass and the learner's update with TensorFlow on one thread.
The last line is JSON: ``states_per_s``, ``limit_states_per_s``, ``ratio`` and the parts in microseconds per state.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from a3c.config import Config
from a3c.doctor.speed import network_seconds, step_seconds, whole_step
from a3c.flags import parse_args
from a3c.system.machine import usable_cores
from atari_wrapper import get_protocol
from bench import harness
from bench.command_line import start, stats

_EPOCHS = 4
_TIMEOUT_S = 1800
_EPOCH_UPDATES = {"small": 160, "nature": 160, "batch-a3c": 30}  # about 15 s on two cores


def limit(config: Config, seconds: float) -> dict[str, float]:
    """The parts of a state on one core, in seconds, and the states per second that all cores could reach."""
    protocol = get_protocol(config.env)
    with harness.Cores(1) as core:
        (step,) = core.run(step_seconds, config.env, seconds)
        (network,) = core.run(network_seconds, config, len(protocol.actions), seconds)
    parts = {
        "step": whole_step(step, protocol),
        "forward": network["forward"],
        "train": config.sample_reuse * network["train"],
    }
    return {**parts, "states_per_s": usable_cores() / sum(parts.values())}


def run_training(flags: list[str], config: Config, epoch_updates: int) -> dict[str, float]:
    """Train with the command line; the medians of its epochs, the first one left out."""
    with tempfile.TemporaryDirectory() as directory:
        output = Path(directory) / "run"
        run = start("--env", config.env, "--network", config.network, "--eval-every", "0",
                    "--steps-per-epoch", str(epoch_updates), "--max-epoch", str(_EPOCHS),
                    "--output", str(output), *flags)  # fmt: skip
        out = run.finish(_TIMEOUT_S)
        if run.process.returncode != 0:
            raise RuntimeError(f"the training ended with status {run.process.returncode}:\n{out[-3000:]}")
        epochs = [epoch for epoch in stats(output) if "states_per_s" in epoch]
    waits = [name for name in epochs[0] if name.startswith("wait/")]
    return {name: statistics.median(epoch[name] for epoch in epochs[1:]) for name in ("states_per_s", *waits)}


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=sorted(_EPOCH_UPDATES), default="small")
    parser.add_argument("--env", default="Pong-v0")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement of a part")
    parser.add_argument("--epoch-updates", type=int, help="updates per epoch of the subject")
    args, flags = parser.parse_known_args()  # what is left goes to the command line as it is
    config = parse_args(["--env", args.env, "--network", args.network, *flags]).resolve(usable_cores(), 0)
    epoch_updates = args.epoch_updates or _EPOCH_UPDATES[args.network]
    results = harness.rounds(
        args.rounds,
        {
            "limit": lambda: limit(config, args.seconds),
            "training": lambda: run_training(flags, config, epoch_updates),
        },
    )
    limits, subjects = results["limit"], results["training"]
    speeds = {name: [result["states_per_s"] for result in found] for name, found in results.items()}
    harness.report(
        [
            {
                "round": number + 1,
                "states/s": subject["states_per_s"],
                "limit": bound["states_per_s"],
                "ratio": subject["states_per_s"] / bound["states_per_s"],
                **{f"{part}, us": 1e6 * bound[part] for part in ("step", "forward", "train")},
                "learner waits": subject["wait/learner"],
            }
            for number, (bound, subject) in enumerate(zip(limits, subjects, strict=True))
        ],
        {
            "benchmark": "train",
            "network": args.network,
            "cores": usable_cores(),
            "states_per_s": statistics.median(speeds["training"]),
            "limit_states_per_s": statistics.median(speeds["limit"]),
            "ratio": harness.median_ratio(speeds["training"], speeds["limit"]),
            **{f"{part}_us": 1e6 * statistics.median(bound[part] for bound in limits)
               for part in ("step", "forward", "train")},
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
