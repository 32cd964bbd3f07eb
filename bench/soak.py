"""A long run: memory, open files and threads of the learner and of each simulator, sampled all the time.

    make bench-soak ARGS="--minutes 60"          # trains Pong-v0 with the defaults
    make bench-soak ARGS="--minutes 60 --pid 1234"   # watches a training that runs already

What counts is the difference between the second quarter of the time and the last one, when all buffers are there.
It is written to results/soak.json.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import statistics
import time
from pathlib import Path

from bench import harness
from bench.command_line import start
from bench.learning import RESULTS

import psutil

_SAMPLES = 120


def sample(learner: psutil.Process) -> dict[str, dict[str, float]]:
    """What each of a run's processes holds now: unique memory in MB, open files, threads."""
    children = [child for child in learner.children() if child.status() != psutil.STATUS_ZOMBIE]
    nursery = [child for child in children if "simulator" in child.cmdline()]
    simulators = [process for parent in nursery for process in parent.children()]
    processes = {"learner": learner, "nursery": nursery[0]} | {
        f"simulator {number}": process for number, process in enumerate(sorted(simulators, key=lambda p: p.pid))
    }
    return {
        name: {
            "memory MB": process.memory_full_info().uss / 1e6,
            "open files": process.num_fds(),
            "threads": process.num_threads(),
        }
        for name, process in processes.items()
    }


def watch(learner: psutil.Process, minutes: float) -> list[dict]:
    """Sample a run for so long."""
    samples, began = [], time.monotonic()
    for number in range(_SAMPLES + 1):
        time.sleep(max(0.0, began + 60 * minutes * number / _SAMPLES - time.monotonic()))
        with contextlib.suppress(IndexError, psutil.NoSuchProcess):  # an evaluation's nursery may just be going
            samples.append({"minutes": (time.monotonic() - began) / 60, **sample(learner)})
        harness.progress(f"{samples[-1]['minutes']:.1f} of {minutes:g} minutes" if samples else "starting")
    return samples


def growth(samples: list[dict]) -> list[dict]:
    """For each process that was always there, and each quantity: medians of the second and of the last quarter.

    An evaluation's processes come and go.
    """
    quarter = len(samples) // 4
    second, last = samples[quarter : 2 * quarter], samples[-quarter:]
    rows = []
    always = set(samples[0]).intersection(*samples) - {"minutes"}
    for process in sorted(always):
        for quantity in samples[-1][process]:
            early, late = (
                statistics.median(sample[process][quantity] for sample in part if process in sample)
                for part in (second, last)
            )
            rows.append({"process": process, "what": quantity, "early": early, "late": late, "growth": late - early})
    return rows


def main() -> None:
    """Watch a run and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--pid", type=int, help="of a training that runs already")
    parser.add_argument("--output", default="train_log/soak", help="of the training that is started")
    args = parser.parse_args()
    if args.pid is not None:
        samples = watch(psutil.Process(args.pid), args.minutes)
    else:
        run = start("--output", args.output)
        try:
            run.read_until("Start Epoch 2", 600)
            samples = watch(psutil.Process(run.process.pid), args.minutes)
        finally:
            run.process.send_signal(signal.SIGTERM)
            run.finish()
    rows = growth(samples)
    harness.save({"minutes": args.minutes, "growth": rows, "samples": samples}, Path(RESULTS) / "soak.json")
    harness.progress("")
    harness.report(rows, {"benchmark": "soak", "minutes": args.minutes, "growth": rows})


if __name__ == "__main__":
    main()
