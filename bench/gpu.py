"""What the machine of a training with a GPU does: speeds, waits, the GPU, their limits, and whether the score rises.

    python -m bench.gpu [--seconds 25] [--rise-seconds 180] [FLAG ...]

Under 8 minutes. First the parts alone: the networks' forward pass and update on the device, in the batches that
training uses; a game's step on one core; and the master, from games that cost nothing to whole batches. Then trainings
on Breakout-v0 with the command line's defaults, or with the flags that are given: each network, and batch-a3c with
twice as many games while that makes it faster. The default network trains for three minutes, in which its score must
rise. Each speed stands beside its limit, ``min(cores / step, 1 / master's cost, GPU's batch rate)``, and beside what
was published for the original. What there was no time for is left out and named.

Without a GPU all of it runs on the CPU, and says so. The last line is JSON. The status is 1 if a part failed or the
score did not rise.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import signal
import statistics
import sys
import time

from a3c.config import NETWORKS, Config
from a3c.doctor.report import Estimate, estimate
from a3c.doctor.speed import step_seconds, whole_step
from a3c.errors import problem
from a3c.flags import parse_args
from a3c.system import gpu
from a3c.system.machine import usable_cores
from atari_wrapper import get_protocol
from bench import harness
from bench.gpu_parts import master, on_device
from bench.gpu_run import WAITS, train

_TOTAL_S = 455.0  # what would end later is left out
_DEVICE_S = 80.0  # the networks alone, at the most
_AROUND_S = 90.0  # a training's start, first epoch and end, at the most
_LEAST_AROUND_S = 25.0  # with less time left none is started
_RISE_S = 180.0
_ONLINE_EPISODES = 100  # that an online score is the mean of
_SURE = 3.0  # standard errors
_FASTER = 1.05  # times as fast: more games still help
_MOST_DOUBLINGS = 3
_EPOCHS = 5  # in a training's time
_EPOCH_S = 6.0  # at the most
_REACHED = 0.6  # of the limit: an epoch's length is chosen by it
PUBLISHED = {"batch-a3c": (2000, 2560)}  # states/s: 2 TitanX and 20 cores; a V100 and 12 cores


class Bench:
    """Measures part by part, until the time is over.

    Attributes:
        problems: what failed or was left out, in words.
        rows: a line of the table for each training.
        score: how the online score went in the default network's training.
    """

    def __init__(self, flags: list[str], seconds: float, rise_seconds: float):
        self._flags, self._seconds, self._rise_seconds = ["--env", "Breakout-v0", *flags], seconds, rise_seconds
        self._part_s = min(2.0, seconds / 10)
        self._end = time.monotonic() + _TOTAL_S
        self._cores = usable_cores()
        self.problems: list[str] = []
        self.rows: list[dict] = []
        self.score: dict | None = None

    def parts(self) -> dict:
        """Measure the parts alone, which the trainings are held against. Raises RuntimeError: they cannot be."""
        harness.progress("the networks alone")
        device, self._networks = on_device(self._part_s, NETWORKS, self._flags, _DEVICE_S)
        self._num_gpus = device["num_gpus"]
        self._gpu_bytes = gpu.smallest_bytes(gpu.query()) if self._num_gpus else None
        harness.progress("a game's step and the master alone")
        original = self._config("--network", "batch-a3c")
        with harness.Cores(1) as core:
            (step,) = core.run(step_seconds, original.env, self._part_s)
        self._step_s = whole_step(step, get_protocol(original.env))
        original = dataclasses.replace(original, pool_states=original.batch_size, sample_reuse=1)
        transport_per_s, self._master_s = master(original, 2 * self._part_s)
        harness.progress("")
        if self._num_gpus == 0:
            print(f"no GPU: TensorFlow sees none. {self._cores} CPU cores did all of this: not a GPU's figures")
        return {
            "device": device["names"] or "CPU",
            "cores": self._cores,
            "step_us": 1e6 * self._step_s,
            "master_us": 1e6 * self._master_s,
            "transport_states_per_s": transport_per_s,
            "networks": self._networks,
        }

    def trainings(self) -> None:
        """Train: the default network, the others, and batch-a3c with more and more games."""
        default = self._config().network
        for network in (default, *(name for name in NETWORKS if name != default)):
            self._row(network, self._config("--network", network), is_default=network == default)
        speed = next((row["states/s"] for row in self.rows if row["network"] == "batch-a3c"), None)
        games = self._config("--network", "batch-a3c").num_envs
        for _ in range(_MOST_DOUBLINGS if speed else 0):
            games *= 2
            more = self._config("--network", "batch-a3c", "--num-envs", str(games))
            before, speed = speed, self._row("batch-a3c", more)
            if speed is None or speed < _FASTER * before:
                break

    def _config(self, *flags: str) -> Config:
        return parse_args([*self._flags, *flags]).resolve(self._cores, self._num_gpus, self._gpu_bytes)

    def _limit(self, config: Config) -> Estimate:
        found = self._networks[config.network]
        parts = {"game": self._step_s, "inference": found["forward"], "training": config.sample_reuse * found["train"]}
        return estimate(parts, 1 / self._master_s, self._cores, self._num_gpus)

    def _row(self, network: str, config: Config, is_default: bool = False) -> float | None:
        """Train and make a line of the table; its states per second, None if there are none."""
        what = f"{network} with {config.num_envs} games"
        seconds = self._rise_seconds if is_default else self._seconds
        left = self._end - time.monotonic()
        if left < seconds + _LEAST_AROUND_S:
            self.problems.append(f"{what}: left out, {max(0.0, left):.0f} s were left")
            return None
        harness.progress(f"training, {what}: {seconds:.0f} s")
        try:
            limit = self._limit(config)
            updates = _REACHED * limit.states_per_s * min(_EPOCH_S, seconds / _EPOCHS) / config.batch_size
            of_a_pool = config.pool_states // config.batch_size * config.sample_reuse
            epoch = of_a_pool * max(1, round(config.sample_reuse * updates / of_a_pool))
            gpus = ["--gpu", "0"] if self._num_gpus and "--gpu" not in self._flags else []
            flags = [*self._flags, *gpus, "--network", network, "--num-envs", str(config.num_envs)]
            flags += ["--steps-per-epoch", str(epoch)]
            settled = config.num_envs + _ONLINE_EPISODES  # each game's first episode is in no score
            found = train(flags, seconds, min(left, seconds + _AROUND_S), settled)
        except (RuntimeError, KeyError, OSError) as error:
            self.problems.append(f"{what}: {problem(error)}")
            print(error, file=sys.stderr)
            return None
        finally:
            harness.progress("")
        self.rows.append(row(network, config.num_envs, found, limit))
        if is_default:
            self.score = rise(found["scores"]) | {"seconds": seconds, "network": network}
        return found["states_per_s"]


def row(network: str, games: int, found: dict, limit: Estimate) -> dict:
    """A training's line of the table: shares from 0 to 1, and GB; None stands for what is not known.

    Args:
        network: its name.
        games: how many were played at once.
        found: of ``train``.
        limit: of the same parts alone.
    """
    low, high = PUBLISHED.get(network, (None, None))
    gigabytes = None if found["gpu_bytes"] is None else found["gpu_bytes"] / 1e9
    waits = dict(zip(("simulators", "queue", "predictors", "learner", "cores busy"), WAITS, strict=True))
    return {
        "network": network,
        "games": games,
        "states/s": found["states_per_s"],
        "published": f"{low:,}-{high:,}" if low else "-",
        "limit": limit.states_per_s,
        "of it": found["states_per_s"] / limit.states_per_s,
        "limited by": limit.limited_by,
        "saturates": found["saturates"],
        "GPU busy": found["gpu_busy"],
        "GPU GB": gigabytes,
        **{(name if name == "cores busy" else f"wait {name}"): found[wait] for name, wait in waits.items()},
    }


def rise(scores: list[float]) -> dict:
    """Whether online scores rise: the mean of their last third against that of their first.

    Each is a mean of 100 episodes. A Breakout's score counts bricks, whose variance is taken to be its mean; the last
    third must be higher by three standard errors.
    """
    third = len(scores) // 3
    if third == 0:
        return {"first": None, "last": None, "rises": False}
    first, last = statistics.mean(scores[:third]), statistics.mean(scores[-third:])
    error = math.sqrt((abs(first) + abs(last)) / _ONLINE_EPISODES)
    return {"first": first, "last": last, "rises": last > first + _SURE * error}


def rounded(value):
    """A result with its floats rounded, in lists and dictionaries too."""
    if isinstance(value, dict):
        return {name: rounded(part) for name, part in value.items()}
    if isinstance(value, list):
        return [rounded(part) for part in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def main(arguments: list[str] | None = None) -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=25.0, help="of each training but the longest")
    parser.add_argument("--rise-seconds", type=float, default=_RISE_S, help="of the one whose score must rise")
    args, flags = parser.parse_known_args(arguments)  # what is left goes to the trainings as it is
    bench = Bench(flags, args.seconds, args.rise_seconds)
    parts = bench.parts()
    bench.trainings()
    score = bench.score
    if args.rise_seconds >= _RISE_S and score is not None and not score["rises"]:
        bench.problems.append(f"the score did not rise: {score['first']} at first, {score['last']} at last")
    for name, found in parts["networks"].items():
        inference, training = (f"{1 / found[part]:,.0f} states/s" for part in ("forward", "train"))
        print(f"{name} alone: inference {inference} in batches of {found['states_of_inference']}, training {training} "
              f"in batches of {found['states_of_update']}")  # fmt: skip
    print(f"a game's step {parts['step_us']:.0f} us on one core; the master {parts['master_us']:.0f} us a state, "
          f"{parts['transport_states_per_s']:,.0f} states/s from free games")  # fmt: skip
    if score is not None:
        print(f"online score in {score['seconds']:.0f} s of {score['network']}: {score['first']} at first, "
              f"{score['last']} at last")  # fmt: skip
    for text in bench.problems:
        print(f"problem: {text}")
    result = {"benchmark": "gpu", **parts, "published_states_per_s": PUBLISHED["batch-a3c"], "trainings": bench.rows,
              "score": score, "problems": bench.problems}  # fmt: skip
    harness.report(bench.rows or [{"network": "none trained"}], rounded(result))
    if bench.problems:
        sys.exit(1)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that a training ends with it
    main()
