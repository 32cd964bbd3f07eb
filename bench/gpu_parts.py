"""The parts of a training alone, as ``bench.gpu`` needs them: the networks on the device, the game, the master.

As a program, ``python -m bench.gpu_parts SECONDS NETWORK[,NETWORK...] [FLAG ...]``, it is the process that uses the
device, whose memory is free again at its end. It prints a line of JSON for the device, and one for each network.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterable

from a3c.config import Config
from a3c.doctor.speed import network_seconds
from a3c.flags import parse_args
from a3c.system import gpu
from a3c.system.machine import usable_cores
from a3c.system.processes import start_program
from atari_wrapper import get_protocol
from bench.transport import WholeBatches


def on_device(
    seconds: float, networks: Iterable[str], flags: list[str], within_s: float
) -> tuple[dict, dict[str, dict[str, float]]]:
    """What TensorFlow sees, and each network's forward pass and update, in seconds per state.

    Args:
        seconds: of each measurement.
        networks: their names.
        flags: of the command line.
        within_s: what was not measured by then is left out.

    Raises:
        RuntimeError: not even the devices were listed by then.
    """
    names, pipe = ",".join(networks), subprocess.PIPE
    process = start_program("bench.gpu_parts", seconds, names, *flags, stdout=pipe, stderr=pipe, text=True)
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


def master(config: Config, seconds: float) -> tuple[float, float]:
    """States per second from games that cost nothing to whole batches, and seconds of the master's thread per state."""
    with WholeBatches(config) as batches:
        measured = batches.measure(seconds)
    return measured["states"], measured["master"]


def _measure(seconds: float, networks: list[str], flags: list[str]) -> None:
    from a3c.learning.devices import visible_gpus

    import tensorflow as tf

    num_gpus = visible_gpus(parse_args(flags).gpu)
    seen = tf.config.list_physical_devices("GPU")
    names = [tf.config.experimental.get_device_details(device).get("device_name", device.name) for device in seen]
    print(json.dumps({"num_gpus": num_gpus, "names": names}), flush=True)
    gpu_bytes = gpu.smallest_bytes(gpu.query()) if num_gpus else None
    for network in networks:
        config = parse_args([*flags, "--network", network]).resolve(usable_cores(), num_gpus, gpu_bytes)
        actions = len(get_protocol(config.env).actions)
        callers = config.predictor_thread_per_gpu
        sizes = (config.predict_batch_size,), (config.batch_size,)
        print(json.dumps({"network": network, "states_of_inference": config.predict_batch_size,
                          "states_of_update": config.batch_size,
                          **network_seconds(config, actions, seconds, *sizes, callers)}), flush=True)  # fmt: skip


if __name__ == "__main__":
    _measure(float(sys.argv[1]), sys.argv[2].split(","), sys.argv[3:])
