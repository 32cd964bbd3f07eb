"""The parts of a training alone, as ``bench.gpu`` needs them: the networks on the device, the game, the master.

As a program, ``python -m bench.gpu_parts SECONDS [FLAG ...]``, it is the process that uses the device, whose memory is
free again at its end. It prints a line of JSON for the device, and one for each network.
"""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
import time

from a3c.acting.batches import BatchPool, MakeBatch, Transitions
from a3c.acting.collector import Collector
from a3c.acting.predictor import Request
from a3c.config import NETWORKS, Config
from a3c.doctor.speed import FREE_GAME, Simulators, network_seconds
from a3c.flags import parse_args
from a3c.simulation.messages import StepBlock
from a3c.system import gpu
from a3c.system.machine import usable_cores
from a3c.system.processes import start_program
from atari_wrapper import get_protocol

import numpy as np


def on_device(seconds: float, flags: list[str], within_s: float) -> tuple[dict, dict[str, dict[str, float]]]:
    """What TensorFlow sees, and each network's forward pass and update, in seconds per state.

    Args:
        seconds: of each measurement.
        flags: of the command line.
        within_s: what was not measured by then is left out.

    Raises:
        RuntimeError: not even the devices were listed by then.
    """
    process = start_program(
        "bench.gpu_parts", seconds, *flags, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    errors = f"nothing within {within_s:.0f} s"
    try:
        out, errors = process.communicate(timeout=within_s)
    except subprocess.TimeoutExpired:
        process.kill()
        out, _ = process.communicate()
    finally:
        process.kill()
    lines = []
    with contextlib.suppress(ValueError):  # cut
        lines.extend(json.loads(line) for line in out.splitlines() if line.startswith("{"))
    if not lines:
        raise RuntimeError(f"the networks cannot be measured: {errors[-2000:]}")
    return lines[0], {line.pop("network"): line for line in lines[1:]}


class Master:
    """What the master's thread does with a step: history, unroll and batch; nothing is done with the batches.

    Attributes:
        states: counted.
    """

    def __init__(self, config: Config):
        """``config``: the resolved configuration, its pool no larger than a batch."""
        items = Transitions(config.gamma, config.gae_lambda, normalize_advantages=False)
        pool = BatchPool(items, config.batch_size, config.pool_states, config.sample_reuse, np.random.default_rng(0))
        sizes = config.envs_per_simulator
        self._requests: queue.SimpleQueue[Request] = queue.SimpleQueue()
        self._collector = Collector(sizes, config.local_time_max, pool, False, self._requests, self._put)
        self.states = 0

    def on_step(self, step: StepBlock) -> None:
        """Take a step, and decide as a predictor would."""
        self._collector.on_step(step)
        request, games = self._requests.get(timeout=60), len(step.ends)
        request.builder.decide(np.zeros(games, np.int64), np.ones(games, np.float32), np.zeros(games, np.float32), 0)
        self.states += games

    def _put(self, batches: list[MakeBatch]) -> None:
        for make_batch in batches:
            make_batch()


def master(config: Config, seconds: float) -> tuple[float, float]:
    """States per second from games that cost nothing to whole batches, and seconds of the master's thread per state."""
    simulators, receiver = Simulators({}, config.envs_per_simulator, 1, FREE_GAME), Master(config)
    try:
        start = time.thread_time()
        rate = simulators.states_per_s(seconds, receiver.on_step)
        return rate, (time.thread_time() - start) / receiver.states
    finally:
        simulators.close()


def _measure(seconds: float, flags: list[str]) -> None:
    from a3c.learning.devices import visible_gpus

    import tensorflow as tf

    num_gpus = visible_gpus(parse_args(flags).gpu)
    seen = tf.config.list_physical_devices("GPU")
    names = [tf.config.experimental.get_device_details(device).get("device_name", device.name) for device in seen]
    print(json.dumps({"num_gpus": num_gpus, "names": names}), flush=True)
    gpu_bytes = gpu.smallest_bytes(gpu.query()) if num_gpus else None
    for network in NETWORKS:
        config = parse_args([*flags, "--network", network]).resolve(usable_cores(), num_gpus, gpu_bytes)
        actions = len(get_protocol(config.env).actions)
        callers = config.predictor_thread_per_gpu
        sizes = (config.predict_batch_size,), (config.batch_size,)
        print(json.dumps({"network": network, "states_of_inference": config.predict_batch_size,
                          "states_of_update": config.batch_size,
                          **network_seconds(config, actions, seconds, *sizes, callers)}), flush=True)  # fmt: skip


if __name__ == "__main__":
    _measure(float(sys.argv[1]), sys.argv[2:])
