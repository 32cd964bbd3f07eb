"""All that the driver wants of Ray, and the only place where Ray is imported, inside functions.

Ray places the hosts, waits for nodes that are not there yet, restarts hosts where they fit, brings them our code, and
ends them when the driver ends.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
import secrets
import socket
import sys
import time
import uuid
from pathlib import Path

from a3c.cluster.network import round_trip_s
from a3c.errors import first_line

LOCAL, AUTO = "local", "auto"
_ROOT = Path(__file__).resolve().parents[2]
_SHIPPED = ("a3c", "simulator.py", "atari_wrapper.py")  # the code that hosts run
_OBJECT_STORE_BYTES = 80_000_000  # the least that Ray takes: nothing of ours goes there
_HEAD_PORT = 6379
_HEAD_TIMEOUT_S = 5.0


class JoinError(Exception):
    """The cluster cannot be joined; the text is for the user."""


class HostLostError(Exception):
    """A host's call got no answer: it, its node or the way there is gone."""


@dataclasses.dataclass(frozen=True)
class Options:
    """What to join and what to ask of it.

    Attributes:
        address: HOST:PORT, ``auto`` for what Ray finds (RAY_ADDRESS first), ``local`` for a cluster of this machine.
        hosts: simulator hosts, None for as many as the nodes have room for.
        host_cores: cores of each, None for those of the smallest node.
        cores: usable ones of this machine.
    """

    address: str
    hosts: int | None
    host_cores: int | None
    cores: int


def join(options: Options) -> Joined:
    """Join the cluster, or start one.

    Raises:
        JoinError: there is none, or it has no room.
    """
    if options.address == AUTO:
        options = dataclasses.replace(options, address=os.environ.get("RAY_ADDRESS") or AUTO)
    _prepare(options.address)
    import ray

    settings = {
        "namespace": f"train-atari-{uuid.uuid4().hex}",
        "logging_level": "ERROR",
        "log_to_driver": True,
        "runtime_env": {"working_dir": str(_ROOT), "excludes": [f"/{name}" for name in _not_shipped()]},
    }
    if options.address == LOCAL:
        hosts = options.hosts or 1
        host_cores = options.host_cores or max(1, options.cores // hosts)
        settings |= {"num_cpus": hosts * host_cores, "include_dashboard": False, "_node_ip_address": "127.0.0.1",
                     "object_store_memory": _OBJECT_STORE_BYTES}  # fmt: skip
    else:
        hosts, host_cores = options.hosts, options.host_cores
    try:
        with _quiet():
            ray.init(options.address, **settings)
    except Exception as error:
        raise JoinError(f"--ray {options.address}: the cluster cannot be joined: {first_line(error)}") from None
    cores = [int(node["Resources"]["CPU"]) for node in _nodes()]
    if host_cores is None:
        if not cores:
            raise JoinError(
                "no node of the cluster has cores for simulators yet: start some (ray start --address=...), or say "
                "what will come with --hosts and --host-cores"
            )
        host_cores = min(cores)
    if hosts is None:
        hosts = sum(number // host_cores for number in cores)
        if hosts == 0:
            most = f"none has more than {max(cores)}" if cores else "there is none yet"
            raise JoinError(f"--host-cores {host_cores}: no node has so many ({most}); lower it, or add --hosts N")
    head, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
    return Joined(hosts, host_cores, ray.util.get_node_ip_address(), (head.strip("[]"), int(port)))


def _stay_on_the_loopback() -> None:
    """Else Ray takes the machine's own address in place of 127.0.0.1, whatever it is told."""
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"


def _not_shipped() -> list[str]:
    return [path.name for path in _ROOT.iterdir() if path.name not in _SHIPPED]


def _prepare(address: str) -> None:
    """Look before Ray does: it tells in many lines, and late, what is wrong with an address."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address == LOCAL:
        _stay_on_the_loopback()
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        # Nobody else on this machine may use the cluster, and no token is left behind in the home directory.
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        return
    if address == AUTO:
        return
    host, colon, port = address.rpartition(":")
    if "://" in address or not (colon and host and port.isdecimal() and int(port) < 1 << 16):
        raise JoinError(f"--ray {address}: it is HOST:PORT, as ray start --head prints it, or auto, or local")
    if host.startswith("127.") or host in ("localhost", "[::1]"):
        _stay_on_the_loopback()
    try:
        socket.create_connection((host.strip("[]"), int(port)), _HEAD_TIMEOUT_S).close()
    except OSError as error:
        raise JoinError(
            f"--ray {address}: nothing answers there ({error.strerror or error}); type on the learner's machine: "
            f"ray start --head --num-cpus=0 --node-ip-address=IP --port={port}"
        ) from None


@contextlib.contextmanager
def _quiet():
    """Drop what Ray and its native code say on standard output and error."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(1), os.dup(2)]
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    try:
        yield
    finally:
        for number, descriptor in enumerate(kept, 1):
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.close(null)


class Joined:
    """The cluster that this process is the driver of. One thread uses it.

    Attributes:
        hosts, host_cores: simulator hosts, and cores of each.
        ip: this node's address, as Ray knows it.
        head: address and port of Ray's head.
    """

    def __init__(self, hosts: int, host_cores: int, ip: str, head: tuple[str, int]):
        self.hosts, self.host_cores, self.ip, self.head = hosts, host_cores, ip, head

    def facts(self) -> dict:
        """What the learner is told; the round trip, in seconds, is that to the farthest node."""
        nodes = _nodes()
        trips = [trip for trip in map(round_trip_s, map(_address, nodes)) if trip is not None]
        return {
            "nodes": len(nodes),
            "hosts": self.hosts,
            "host_cores": self.host_cores,
            "ip": self.ip,
            "round_trip_s": max(trips, default=0.0),
        }

    def make_host(self, kind: type):
        """Ask for a host; it may take for ever until it is there."""
        import ray

        options = {"num_cpus": self.host_cores, "max_restarts": -1, "max_task_retries": 0}
        return ray.remote(**options, scheduling_strategy="SPREAD")(kind).remote()

    def hello(self, actor):
        """Call a host's ``hello``, however often it is restarted until then."""
        return actor.hello.options(max_task_retries=-1).remote()

    def ready(self, calls: list, timeout_s: float) -> list:
        """Those of the calls that are answered, or never will be."""
        import ray

        if not calls:
            return []
        return ray.wait(calls, num_returns=len(calls), timeout=timeout_s, fetch_local=False)[0]

    def value(self, call) -> dict:
        """The answer of a call. Raises HostLostError."""
        import ray

        try:
            return ray.get(call)
        except ray.exceptions.RayError as error:
            raise HostLostError(_last_line(error)) from None

    def port_of(self, node_id: str) -> tuple[str, int]:
        """Address and port of a node on which Ray listens."""
        import ray

        return next((_address(node) for node in ray.nodes() if node["NodeID"] == node_id), self.head)

    def on_each_node(self, function: str, args: list, timeout_s: float) -> list[dict]:
        """Call a function of ours on each node that has cores for simulators.

        Args:
            function: ``module:function``; what it returns has ``time_s``, the node's clock.
            args: its arguments.
            timeout_s: seconds to wait for a node at most.

        Returns:
            For each node its ``ip``, ``cpus``, ``round_trip_s``, ``clock_s`` (how far its clock is ahead of ours) and
            ``value``, or ``error`` in place of the last two.
        """
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        found = []
        for node in _nodes():
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            call = ray.remote(num_cpus=0, max_retries=0)(run_function).options(scheduling_strategy=there)
            report = {"ip": node["NodeManagerAddress"], "cpus": node["Resources"]["CPU"]}
            report["round_trip_s"] = round_trip_s(_address(node))
            try:
                value = ray.get(call.remote(function, args), timeout=timeout_s)
                report |= {"value": value, "clock_s": value["time_s"] - time.time()}
            except ray.exceptions.RayError as error:
                report["error"] = _last_line(error)
            found.append(report)
        return found

    def leave(self) -> None:
        """End all hosts and leave."""
        import ray

        ray.shutdown()


def run_function(name: str, args: list) -> dict:
    """Call ``module:function``."""
    module, function = name.split(":")
    return getattr(importlib.import_module(module), function)(*args)


def _nodes() -> list[dict]:
    """The nodes that are alive and have cores for simulators."""
    import ray

    return [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]


def _last_line(error: Exception) -> str:
    """What an error of Ray says last, which is its cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _address(node: dict) -> tuple[str, int]:
    return node["NodeManagerAddress"], node["NodeManagerPort"]
