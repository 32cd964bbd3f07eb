"""How many states per second does each way to the learner carry? The part of ``bench.transport`` for ``--ray``.

Games that cost nothing and show real frames, on this machine, all through the same nursery, so that nothing but the
wire differs; Ray itself is not on a step's way. The last row's simulators are hosts' of ``--ray local``, as a user's.
"""

from __future__ import annotations

import contextlib
import functools
import statistics
import time

from a3c.cluster.cluster import Cluster
from a3c.config import Config
from a3c.doctor.speed import RECORDED_GAME, Histories, Simulators
from a3c.simulation.master import SimulatorMaster
from a3c.simulation.nursery import Nursery
from a3c.simulation.remote import RemoteWire
from a3c.system.machine import usable_cores
from bench import harness

import zmq

_ENV = "Breakout-v0"
_ACTIONS = 4
_LOOPBACK = "127.0.0.1"
FLOOR = 0.6  # of ipc's states/s, with lz4 and CURVE


class KeyedNursery(Nursery):
    """Gives its simulators the keys that a host would."""

    def __init__(self, wire: RemoteWire):
        super().__init__()
        public, secret = (key.decode() for key in zmq.curve_keypair())
        self.keys = {"public_key": public, "secret_key": secret}
        wire.admit(frozenset([public]))

    def spawn(self, spec: dict) -> None:
        super().spawn({**spec, "address": {**spec["address"], **self.keys}})


class _OpenWire(RemoteWire):
    """Neither encrypted nor authenticated: what tcp alone costs."""

    def _encrypt(self, socket: zmq.Socket) -> None:
        pass

    @property
    def address(self) -> dict:
        return {**super().address, "server_key": ""}


def _over(kind: type[RemoteWire], codec: str):
    wire = kind(_LOOPBACK, codec)
    return functools.partial(SimulatorMaster, KeyedNursery(wire), wire=wire)


def measure(rounds: int, seconds: float, envs_per_simulator: tuple[int, ...]) -> None:
    """Measure all ways in turn, and report.

    Args:
        rounds: how often.
        seconds: of each measurement.
        envs_per_simulator: games of each simulator.
    """
    with contextlib.ExitStack() as stack:
        progress = harness.progress
        progress("a cluster of this machine starts")
        cluster = stack.enter_context(Cluster(Config(ray="local")))
        ways = {
            "ipc": None,
            "tcp": _over(_OpenWire, "none"),
            "tcp, CURVE": _over(RemoteWire, "none"),
            "tcp, lz4, CURVE": _over(RemoteWire, "lz4"),
            "the same by Ray": cluster.master,
        }
        measures = {}
        for name, make_master in ways.items():
            simulators = Simulators({"env_id": _ENV}, envs_per_simulator, _ACTIONS, RECORDED_GAME, make_master)
            stack.callback(simulators.close)
            measures[name] = functools.partial(_speed, simulators, Histories(envs_per_simulator), seconds)
        results = harness.rounds(rounds, measures)
    ipc = [speed for speed, _ in results["ipc"]]
    rows = []
    for name, found in results.items():
        speeds, costs = zip(*found, strict=True)
        rows.append(
            {
                "wire": name,
                "states/s": statistics.median(speeds),
                "of ipc": harness.median_ratio(speeds, ipc),
                "learner's CPU, us a state": 1e6 * statistics.median(costs),
            }
        )
    ratio = next(row["of ipc"] for row in rows if row["wire"] == "tcp, lz4, CURVE")
    cores = usable_cores()
    harness.report(rows, {"benchmark": "transport", "wires": rows, "cores": cores, "ratio": ratio, "floor": FLOOR})


def _speed(simulators: Simulators, histories: Histories, seconds: float) -> tuple[float, float]:
    """States per second, and seconds of this process's CPU, all threads, for a state."""
    before, start = time.process_time(), time.perf_counter()
    speed = simulators.states_per_s(seconds, histories.on_step)
    return speed, (time.process_time() - before) / (speed * (time.perf_counter() - start))
