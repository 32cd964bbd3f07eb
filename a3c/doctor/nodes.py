"""``--task doctor --ray``: what each node has, how far away it is, and how fast a training on the cluster will be.

``facts`` runs on the nodes; all else here.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

from a3c.config import Config
from a3c.doctor.checks import FAIL, OK, REQUIREMENTS, WARN, Check
from a3c.errors import problem

if TYPE_CHECKING:
    from a3c.cluster.cluster import Cluster

_PLAYING = ("ale-py", "gymnasium", "lz4", "msgpack", "numpy", "opencv-python-headless", "pyzmq", "ray")
_CLOCKS_APART_S = 1.0  # logs of several machines cannot be put in order then


def facts(env_id: str, seconds: float) -> dict:
    """What this node has: versions, cores, and seconds that a step of the game takes, or why it does not play."""
    from a3c.system.machine import usable_cores

    found = {"python": versions()["python"], "packages": versions()["packages"], "cores": usable_cores()}
    try:
        from a3c.doctor.speed import step_seconds, whole_step
        from atari_wrapper import get_protocol

        found |= {"step_s": whole_step(step_seconds(env_id, seconds), get_protocol(env_id)), "game": ""}
    except Exception as error:  # of many kinds: what is not installed, what does not fit
        found |= {"step_s": 0.0, "game": problem(error)}
    return found | {"time_s": time.time()}


def versions() -> dict:
    """Of Python, and of the packages that a host plays with."""
    found = {}
    for name in _PLAYING:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return {"python": sys.version.split()[0], "packages": found}


def check(node: dict, ours: dict) -> Check:
    """Whether a node can have simulators, and what it has.

    Args:
        node: of ``Cluster.on_each_node``, with what ``facts`` found there, or why it found nothing.
        ours: this machine's ``versions``.
    """
    where = f"{node['ip']}, {node['cpus']:g} CPUs for Ray"
    if "error" in node:
        return Check("node", FAIL, f"{where}: {node['error']}", f"pip install -r {REQUIREMENTS.name} -r "
                     "requirements-ray.txt there, and start Ray in that environment")  # fmt: skip
    found = node["value"]
    pairs = {name: (found["packages"].get(name), version) for name, version in ours["packages"].items()}
    pairs["Python"] = (found["python"], ours["python"])
    other = [f"{name} {there or 'missing'} ({here} here)" for name, (there, here) in pairs.items() if there != here]
    if other:
        return Check("node", FAIL, f"{where}: {', '.join(other)}", "install the same versions on all machines")
    if found["game"]:
        return Check("node", FAIL, f"{where}: the game does not play: {found['game']}", "put that right there")
    trip = "?" if node["round_trip_s"] is None else f"{1e3 * node['round_trip_s']:.2f}"
    text = (
        f"{where}: same versions, {found['cores']} cores, {1 / found['step_s']:,.0f} states/s on one, "
        f"round trip {trip} ms"
    )
    apart = node["clock_s"]
    if abs(apart) > _CLOCKS_APART_S:
        return Check("node", WARN, f"{text}, its clock is {apart:+.1f} s off", "set the clocks by NTP")
    return Check("node", OK, text)


class Forecast(NamedTuple):
    """States/s at most, of each stage: they work at the same time, and the slowest is the limit."""

    rates: dict[str, float]

    @property
    def limited_by(self) -> str:
        return min(self.rates, key=self.rates.get)

    @property
    def states_per_s(self) -> float:
        return self.rates[self.limited_by]


def forecast(
    nodes: list[dict], host_cores: int, hosts: int, games: int, learner_per_s: float, transport_per_s: float
) -> Forecast:
    """Work out the limit of a training.

    Args:
        nodes: those that play, as ``check`` takes them.
        host_cores, hosts: of the cluster.
        games: on each core.
        learner_per_s: states per second that inference and training take.
        transport_per_s: that the network and the learner's end carry.
    """
    from a3c.cluster.latency import use_of_core

    speeds = [
        use_of_core(games, node["round_trip_s"] or 0.0, node["value"]["step_s"]) / node["value"]["step_s"]
        for node in nodes
    ]
    playing = hosts * host_cores * sum(speeds) / len(speeds)
    return Forecast({"games": playing, "learner": learner_per_s, "network": transport_per_s})


def transport(cluster: Cluster, config: Config, actions: int, seconds: float) -> tuple[float, float]:
    """States/s of real frames from games that cost nothing, from all hosts; and packed bytes that one takes."""
    from a3c.doctor.speed import RECORDED_GAME, Histories, Simulators

    sizes = config.envs_per_simulator
    simulators = Simulators({"env_id": config.env}, sizes, actions, RECORDED_GAME, cluster.fixed_master)
    try:
        on_step = Histories(sizes).on_step
        simulators.states_per_s(0.2 * seconds, on_step)
        before = cluster.network().received_bytes
        speed = simulators.states_per_s(seconds, on_step)
        return speed, (cluster.network().received_bytes - before) / max(1.0, speed * seconds)
    finally:
        simulators.close()
