"""The learner's end of a Ray cluster: nurseries whose simulators are on other machines.

Nothing of Ray is imported here: a ``Cluster`` starts the driver (``driver.py``), a process apart, and speaks the
nursery's protocol with it over a socket pair for each nursery. Training and evaluation have one each; both are served
by the same hosts.
"""

from __future__ import annotations

import contextlib
import json
import logging
import select
import socket
import subprocess
from collections.abc import Callable
from typing import NamedTuple

from a3c.cluster.driver import PENDING, SILENT, UP, host_of
from a3c.config import Config
from a3c.errors import RunError, UsageError
from a3c.simulation.master import SimulatorMaster
from a3c.simulation.nursery import Exit, receive_packet
from a3c.simulation.remote import RemoteWire, missing_packages
from a3c.system.clock import running_s
from a3c.system.machine import PIP, usable_cores
from a3c.system.processes import start_program, wait_or_kill

REQUIREMENTS = "requirements-ray.txt"
_JOIN_TIMEOUT_S = 60.0
_CLOSE_TIMEOUT_S = 10.0
_LOOK_EVERY_S = 0.5
_WAITING_EVERY_S = 30.0
_HEAD_GONE_S = 30.0  # Ray starts a head again in less, where it is set up to
_log = logging.getLogger(__name__)


class ClusterLostError(RunError):
    """The cluster cannot be used any more. What was done until then is saved before this ends a task."""


class HostState(NamedTuple):
    """Where a host stands.

    Attributes:
        state: up, pending (Ray is to place it) or silent (it is placed, and does not answer).
        ip: its node's address, empty if it was never there.
        key: its public key.
        busy: share of its node's cores that worked lately, 0 to 1.
        round_trip_s: of the network; None if it was not measured yet.
    """

    state: str
    ip: str
    key: str
    busy: float
    round_trip_s: float | None


class Network(NamedTuple):
    """Where the hosts stand; bytes of frames that came from them so far, packed; how often a host was lost."""

    hosts: tuple[HostState, ...]
    received_bytes: int
    lost: int


class Cluster:
    """A Ray cluster that was joined. The thread that makes it must outlive it, and closes it.

    Attributes:
        hosts, host_cores: simulator hosts that were asked for, and cores of each.
        round_trip_s: to the farthest node, when the cluster was joined.
    """

    def __init__(
        self,
        config: Config,
        on_lost: Callable[[str], None] = lambda reason: None,
        check_stop: Callable[[], None] = lambda: None,
    ):
        """Join the cluster.

        Args:
            config: ``ray``, ``hosts``, ``host_cores``, ``listen`` and ``frame_codec`` are read.
            on_lost: called, by whichever thread finds out, when the cluster is gone; it is told why.
            check_stop: called while Ray is waited for; what it raises ends that.

        Raises:
            UsageError: packages are missing, or the cluster cannot be joined.
        """
        if missing := missing_packages():
            raise UsageError(f"--ray needs {' and '.join(missing)}: type {PIP} -r {REQUIREMENTS}")
        self._on_lost, self._check_stop, self._codec = on_lost, check_stop, config.frame_codec
        self._nurseries = 0
        self._training: ClusterNursery | None = None
        self._told: list[HostState] = []
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        options = {
            "address": config.ray,
            "hosts": config.hosts,
            "host_cores": config.host_cores,
            "cores": usable_cores(),
            "head_gone_s": _HEAD_GONE_S,
        }
        with theirs:
            self._process = start_program(  # to its stdout Ray writes, for each try to call a host, that it is away
                "a3c.cluster.driver",
                theirs.fileno(),
                json.dumps(options),
                pass_fds=[theirs.fileno()],
                stdout=subprocess.DEVNULL,
            )
        try:
            joined = self._ask(None, _JOIN_TIMEOUT_S)
        except BaseException:
            self.close()
            raise
        if "error" in joined:
            self.close()
            raise UsageError(joined["error"])
        facts = joined["joined"]
        self.hosts, self.host_cores, self.round_trip_s = facts["hosts"], facts["host_cores"], facts["round_trip_s"]
        self._nodes, self._listen = facts["nodes"], config.listen or facts["ip"]

    @property
    def cores(self) -> int:
        """Cores that play, of all hosts."""
        return self.hosts * self.host_cores

    def master(self, envs_per_simulator: tuple[int, ...], player_args: dict, *args, fixed: bool = False, **options):
        """Start simulators on the hosts; the arguments are those of ``SimulatorMaster``, without the nursery.

        Args:
            fixed: each simulator has a host of its own, and waits for it when that is away; else any host that is
                there takes it.
        """
        simulators = len(envs_per_simulator)
        wire = RemoteWire(self._listen, self._codec)
        told = None if self._training else self._told
        sock = self._open(simulators, fixed)
        nursery = ClusterNursery(sock, simulators if fixed else None, wire, self._on_lost, told)
        if fixed:
            self._training = nursery
        return SimulatorMaster(nursery, envs_per_simulator, player_args, *args, wire=wire, **options)

    def fixed_master(self, *args, **options) -> SimulatorMaster:
        """As ``master``, with fixed hosts."""
        return self.master(*args, fixed=True, **options)

    def on_each_node(self, function: str, *args, timeout_s: float) -> list[dict]:
        """Call ``module:function`` of ours on each node; what ``ray_api.Joined.on_each_node`` returns."""
        most_s = timeout_s * self._nodes + _JOIN_TIMEOUT_S  # one after the other
        return self._ask({"run": function, "args": args, "timeout_s": timeout_s}, most_s)

    def network(self) -> Network:
        """Where the hosts of the simulators with fixed hosts stand, and what came from them; any thread may ask."""
        training = self._training
        return (
            Network((), 0, 0) if training is None else Network(training.hosts, training.received_bytes, training.lost)
        )

    def _open(self, simulators: int, fixed: bool) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._nurseries += 1
        request = {"nursery": self._nurseries, "simulators": simulators, "fixed": fixed}
        with theirs, self._lost_told():
            socket.send_fds(self._control, [json.dumps(request).encode()], [theirs.fileno()])
        return ours

    def _ask(self, request: dict | None, timeout_s: float) -> dict:
        """The driver's next answer on the control socket. Raises RunError if it does not come."""
        with self._lost_told():
            if request is not None:
                self._control.send(json.dumps(request).encode())
            deadline = running_s() + timeout_s
            while not select.select([self._control], [], [], _LOOK_EVERY_S)[0]:
                self._check_stop()
                if running_s() > deadline:
                    raise RunError(
                        f"--ray: Ray has not answered within {timeout_s:g} s: does ray status work on this machine?"
                    )
            packet = receive_packet(self._control)
        if not packet:
            raise RunError(f"--ray: the driver of the cluster ended with status {self._process.wait()}")
        return json.loads(packet)

    @contextlib.contextmanager
    def _lost_told(self):
        try:
            yield
        except (BrokenPipeError, ConnectionResetError):
            raise ClusterLostError("the Ray cluster is gone") from None

    def close(self) -> None:
        """End what is left on the hosts, leave the cluster, and wait for the driver's end."""
        self._control.close()
        wait_or_kill(self._process, _CLOSE_TIMEOUT_S)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_):
        self.close()


class ClusterNursery:
    """A nursery of the cluster, as a ``SimulatorMaster`` uses one. One thread at a time calls its methods.

    Attributes:
        hosts: where they stand; any thread may read it.
        lost: hosts that were lost so far.
        simulators: how many have fixed hosts; None if any host takes them.
    """

    def __init__(
        self,
        sock: socket.socket,
        simulators: int | None,
        wire: RemoteWire,
        on_lost: Callable[[str], None],
        told: list[HostState] | None,
    ):
        """
        Args:
            told: the hosts as they were told last, for this nursery to tell what changes, and to keep up to date; None
                if another one tells it meanwhile: the training's, beside that of an evaluation.
        """
        self._socket, self._wire, self._on_lost, self._told = sock, wire, on_lost, told
        self._waiting_s = running_s()  # since when no host is up, or since that was told
        self._reason = "the process that speaks Ray has ended"
        self.hosts: tuple[HostState, ...] = ()
        self.lost = 0
        self.simulators = simulators

    @property
    def received_bytes(self) -> int:
        """Bytes of frames that came so far, packed."""
        return self._wire.received_bytes

    def fileno(self) -> int:
        """A descriptor that is readable when ``exits`` has something to tell."""
        return self._socket.fileno()

    def spawn(self, spec: dict) -> None:
        """Have a host fork a simulator, as soon as there is one; ``spec`` as a nursery's."""
        self._send({"spawn": spec})

    def kill(self, index: int) -> None:
        """Kill the simulator of this index, if it lives; its end is reported like any other."""
        self._send({"kill": index})

    def waits(self, index: int) -> bool:
        """Whether this simulator's host is not there."""
        if self.simulators is not None and self.hosts:
            return self.hosts[host_of(index, self.simulators, len(self.hosts))].state != UP
        return not any(host.state == UP for host in self.hosts)

    def exits(self) -> list[Exit]:
        """The simulators that ended since the last call; does not wait.

        Raises:
            ClusterLostError: the cluster is gone.
        """
        found = []
        while select.select([self._socket], [], [], 0)[0]:
            packet = receive_packet(self._socket)
            if not packet:
                self._lose()
            news = json.loads(packet)
            if isinstance(news, list):
                found.append(Exit(*news))
            elif "gone" in news:
                self._reason = news["gone"]
            else:
                self._learn(tuple(HostState(*fields) for fields in news["hosts"]))
        return found

    def _learn(self, hosts: tuple[HostState, ...]) -> None:
        before, self.hosts = self.hosts, hosts
        self._tell()
        keys = frozenset(host.key for host in hosts if host.state == UP)
        if keys != frozenset(host.key for host in before if host.state == UP):
            self._wire.admit(keys)
            self._send({"admitted": sorted(keys)})

    def _tell(self) -> None:
        hosts, now = self.hosts, running_s()
        if self._told is None:
            return
        if not all(map(self.waits, range(self.simulators or 1))):
            self._waiting_s = now
        elif now - self._waiting_s > _WAITING_EVERY_S:
            self._waiting_s = now
            _log.warning("waiting for a host: %s; ray status says what the cluster has", describe(hosts))
        for number, (host, was) in enumerate(zip(hosts, self._told or len(hosts) * [None], strict=True)):
            if host.state == UP and (was is None or was.state != UP or was.key != host.key):
                _log.warning("host %d is up on %s: %s", number, host.ip, describe(hosts))
            elif was is not None and was.state == UP and host.state != UP:
                self.lost += 1
                _log.warning("host %d on %s is lost: %s", number, was.ip, describe(hosts))
        self._told[:] = hosts

    def _send(self, message: dict) -> None:
        try:
            self._socket.send(json.dumps(message).encode())
        except (BrokenPipeError, ConnectionResetError):
            self._lose()

    def _lose(self) -> None:
        reason = f"the Ray cluster is gone ({self._reason})"
        self._on_lost(reason)
        raise ClusterLostError(reason)

    def close(self) -> None:
        """Kill all its simulators."""
        self._socket.close()


def describe(hosts: tuple[HostState, ...]) -> str:
    """Where the hosts stand, in words: ``hosts 3 of 4, 1 pending``."""
    counts = {state: sum(host.state == state for host in hosts) for state in (UP, PENDING, SILENT)}
    rest = [f"{counts[state]} {state}" for state in (PENDING, SILENT) if counts[state]]
    return ", ".join([f"hosts {counts[UP]} of {len(hosts)}", *rest])
