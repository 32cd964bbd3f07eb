"""A Ray cluster on the loopback: a head, which plays nothing, and nodes of one core; and what its hosts run."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil
import pytest

_NODE = {"object_store_memory": 80_000_000, "include_log_monitor": False}  # the least memory that Ray takes
_ENVIRONMENT = {
    "PYTHONPATH": str(Path(__file__).resolve().parents[1] / "fakes"),  # its nodes find the fake games
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # everything on the loopback
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_health_check_initial_delay_ms": "500",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "2",
}


@contextlib.contextmanager
def _environment():
    """That of the nodes, which is not the tests'."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in _ENVIRONMENT.items():
            patch.setenv(name, value)
        yield


class Nodes:
    """The cluster: its address, and nodes that are killed and added."""

    def __init__(self):
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "include_dashboard": False, **_NODE}
        with _environment():
            self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self.address = self._cluster.address
        self._nodes = [self.add(), self.add()]

    def add(self):
        with _environment():
            return self._cluster.add_node(num_cpus=1, wait=False, **_NODE)

    def kill_one(self) -> None:
        """Kill a node with all that it runs; another is added in its place by ``replace``."""
        self._cluster.remove_node(self._nodes.pop(0), allow_graceful=False)

    def replace(self) -> None:
        self._nodes.append(self.add())

    def close(self) -> None:
        self._cluster.shutdown()


def of_hosts() -> list[psutil.Process]:
    """The processes of this cluster's simulator hosts, and what these have forked."""
    found = []
    for process in psutil.Process().children(recursive=True):  # others may have clusters of their own
        with contextlib.suppress(psutil.NoSuchProcess):
            if _is_host(process.cmdline()):
                found += [process, *process.children(recursive=True)]
    return found


def _is_host(command: list[str]) -> bool:
    return bool(command) and command[0].startswith("ray::SimulatorHost")
