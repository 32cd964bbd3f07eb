"""The driver: the process that speaks Ray, apart from the learner.

    learner --socket pairs--> driver --Ray--> SimulatorHost actors --> nurseries --> simulators

A process of its own, because Ray takes over signal handlers, and ends the process that loses its head. The learner
starts it (``cluster.py``) and gives it one end of a socket pair for each nursery of the cluster; on that they speak the
nursery's own protocol, and ``hosts`` tells where the hosts stand. It dies with the learner, and the actors with it.

As a program: ``driver DESCRIPTOR OPTIONS``, the control socket and what to do, in JSON.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import socket
import sys
from collections import deque

from a3c.cluster import ray_api
from a3c.cluster.host import SimulatorHost
from a3c.cluster.pulse import Pulse
from a3c.simulation.nursery import LOST, receive_packet
from a3c.system.clock import running_s

UP, PENDING, SILENT = "up", "pending", "silent"
_TURN_S = 0.2  # that a host waits for news of its simulators before it answers
_WAIT_S = 0.05
_SILENT_S = 8.0  # above what simulators take to notice that their connection is lost
_TELL_EVERY_S = 2.0
_BEGIN_S = 10.0
_AGAIN_S = 5.0  # between two tries to make a host
_FAILED_STARTS = 3
_PACKET_BYTES = 1 << 16


@dataclasses.dataclass
class _Host:
    """A host's place. ``lives`` are the simulators that it was told to fork: (owner, index) -> life."""

    actor: object = None
    call: object = None
    is_hello: bool = True
    called_s: float = 0.0
    again_s: float = 0.0
    failed_starts: int = 0
    state: str = PENDING
    ip: str = ""
    key: str = ""
    node: str = ""
    commands: list = dataclasses.field(default_factory=list)
    lives: dict[tuple[int, int], int] = dataclasses.field(default_factory=dict)
    core_seconds: tuple[float, float] = (0.0, 0.0)
    told_core_seconds: tuple[float, float] = (0.0, 0.0)
    busy: float = 0.0

    def plays_for(self, owner: int) -> int:
        """How many simulators of an owner it has."""
        return sum(number == owner for number, _ in self.lives)


@dataclasses.dataclass
class _Owner:
    """A nursery's other end. Its ``simulators`` are ``fixed`` to hosts of their own, or any host is good for them."""

    number: int
    socket: socket.socket
    simulators: int
    fixed: bool
    admitted: frozenset[str] = frozenset()
    waiting: dict[int, dict] = dataclasses.field(default_factory=dict)
    outbox: deque[bytes] = dataclasses.field(default_factory=deque)


class Driver:
    """Runs in one thread, of a process of its own.

    ``head_gone_s``: Ray's head is given up when it has not answered for so long, in seconds.
    """

    def __init__(self, control: socket.socket, cluster: ray_api.Joined, head_gone_s: float):
        self._control, self._cluster, self._head_gone_s = control, cluster, head_gone_s
        self._hosts = [_Host() for _ in range(cluster.hosts)]
        self._owners: dict[int, _Owner] = {}
        self._pulse = Pulse(cluster.head)
        self._told_s, self._begun_s = 0.0, running_s()
        for host in self._hosts:
            self._make(host)

    def run(self) -> None:
        """Work until the learner closes the control socket."""
        while True:
            calls = [host.call for host in self._hosts if host.call is not None]
            ready = self._cluster.ready(calls, 0.0)
            sockets = {owner.socket: owner for owner in self._owners.values()}
            readable, _, _ = select.select([self._control, *sockets], [], [], 0 if ready else _WAIT_S)
            for host in self._hosts:
                if host.call in ready:
                    self._answered(host)
            for found in readable:
                if found is not self._control:
                    self._hear(sockets[found])
                elif not self._obey():
                    return
            self._look()
            for owner in self._owners.values():
                self._flush(owner)

    # The hosts.

    def _make(self, host: _Host) -> None:
        host.actor = self._cluster.make_host(SimulatorHost)
        self._call_hello(host)

    def _call_hello(self, host: _Host) -> None:
        """It is answered when Ray has placed the host, however long that takes."""
        host.call, host.is_hello = self._cluster.hello(host.actor), True

    def _call_turn(self, host: _Host) -> None:
        host.call, host.is_hello, host.called_s = host.actor.turn.remote(host.commands, _TURN_S), False, running_s()
        host.commands = []

    def _answered(self, host: _Host) -> None:
        try:
            answer = self._cluster.value(host.call)
        except ray_api.HostLostError as error:
            host.call = None
            self._lose(host, PENDING)
            if not host.is_hello:
                self._call_hello(host)
                return
            host.failed_starts, host.again_s = host.failed_starts + 1, running_s() + _AGAIN_S
            if host.failed_starts >= _FAILED_STARTS and not any(other.key for other in self._hosts):
                self._end(f"no simulator host can be started: {error}")
            return
        if host.is_hello:
            host.failed_starts, host.lives, host.commands = 0, {}, []
            host.state, host.key, host.ip, host.node = UP, answer["key"], answer["ip"], answer["node"]
            self._pulse.look_at(host.node, self._cluster.port_of(host.node))
            self._tell_hosts()
            self._place()
        elif answer["key"] != host.key:  # it was started anew, while nobody called it for long
            self._lose(host, PENDING)
            self._call_hello(host)
            return
        elif host.state == SILENT:  # its simulators were given up: what still plays there is ended first
            self._call_hello(host)
            return
        else:
            host.core_seconds = tuple(answer["core_seconds"])
            for number, index, life, status in answer["exits"]:
                if host.lives.get((number, index)) == life:
                    del host.lives[number, index]
                    self._tell_exit(number, index, life, status)
        self._call_turn(host)

    def _lose(self, host: _Host, state: str) -> None:
        """Its simulators are gone, or as good as gone."""
        for (number, index), life in host.lives.items():
            self._tell_exit(number, index, life, LOST)
        host.lives, host.commands = {}, []
        for owner in self._owners.values():  # the learner admits it no more, until it is up again
            owner.admitted -= {host.key}
        if host.state != state:
            host.state = state
            self._tell_hosts()

    def _look(self) -> None:
        now = running_s()
        for host in self._hosts:
            if host.state == UP and not host.is_hello and now - host.called_s > _SILENT_S:
                self._lose(host, SILENT)
            if host.call is None and now > host.again_s:
                self._make(host)
        if now - self._told_s > _TELL_EVERY_S:
            for host in self._hosts:
                busy, there = (a - b for a, b in zip(host.core_seconds, host.told_core_seconds, strict=True))
                host.busy = busy / there if there > 0 else host.busy
                host.told_core_seconds = host.core_seconds
            self._tell_hosts()
            self._place()
        if self._pulse.head_silent_s() > self._head_gone_s:
            self._end("Ray's head is gone")

    # The owners of simulators.

    def _obey(self) -> bool:
        """Do what the control socket says; false when the learner has closed it."""
        packet, descriptors, _, _ = socket.recv_fds(self._control, _PACKET_BYTES, 1)
        if not packet:
            return False
        message = json.loads(packet)
        if "run" in message:
            found = self._cluster.on_each_node(message["run"], message["args"], message["timeout_s"])
            self._control.send(json.dumps(found).encode())
            return True
        (descriptor,) = descriptors
        owner = _Owner(message["nursery"], socket.socket(fileno=descriptor), message["simulators"], message["fixed"])
        self._owners[owner.number] = owner
        self._tell_hosts()
        return True

    def _hear(self, owner: _Owner) -> None:
        packet = receive_packet(owner.socket)
        if not packet:
            self._forget(owner)
            return
        message = json.loads(packet)
        if "admitted" in message:
            owner.admitted = frozenset(message["admitted"])
        elif "spawn" in message:
            owner.waiting[message["spawn"]["index"]] = message["spawn"]
        else:
            self._kill(owner, message["kill"])
        self._place()

    def _forget(self, owner: _Owner) -> None:
        owner.socket.close()
        del self._owners[owner.number]
        for host in self._hosts:
            if host.state == UP:
                host.lives = {key: life for key, life in host.lives.items() if key[0] != owner.number}
                host.commands = [command for command in host.commands if command[1] != owner.number]
                host.commands.append(("close", owner.number))

    def _kill(self, owner: _Owner, index: int) -> None:
        if (spec := owner.waiting.pop(index, None)) is not None:
            self._tell_exit(owner.number, index, spec["life"], LOST)
        for host in self._hosts:
            if (owner.number, index) in host.lives:
                host.commands.append(("kill", owner.number, index))

    def _place(self) -> None:
        """Send the simulators that wait to their hosts, as far as these are there and let in."""
        for owner in self._owners.values():
            for index in list(owner.waiting):
                host = self._host_of(owner, index)
                if host is not None and host.state == UP and host.key in owner.admitted:
                    spec = owner.waiting.pop(index)
                    host.lives[owner.number, index] = spec["life"]
                    host.commands.append(("spawn", owner.number, spec))

    def _host_of(self, owner: _Owner, index: int) -> _Host | None:
        if owner.fixed:
            return self._hosts[host_of(index, owner.simulators, len(self._hosts))]
        there = [host for host in self._hosts if host.state == UP and host.key in owner.admitted]
        fewest = min(there, key=lambda host: host.plays_for(owner.number), default=None)
        # In the beginning those that are not up yet are about to be: they get their part.
        if fewest is not None and running_s() < self._begun_s + _BEGIN_S:
            return fewest if fewest.plays_for(owner.number) * len(self._hosts) < owner.simulators else None
        return fewest

    def _tell_exit(self, number: int, index: int, life: int, status: int) -> None:
        if (owner := self._owners.get(number)) is not None:
            owner.outbox.append(json.dumps([index, life, status]).encode())

    def _tell_hosts(self) -> None:
        self._told_s = running_s()
        table = [[h.state, h.ip, h.key, h.busy, self._pulse.round_trip_s(h.node)] for h in self._hosts]
        packet = json.dumps({"hosts": table}).encode()
        for owner in self._owners.values():
            owner.outbox.append(packet)

    def _flush(self, owner: _Owner) -> None:
        """Send what there is room for; a learner that is paused reads nothing."""
        with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            while owner.outbox:
                owner.socket.send(owner.outbox[0], socket.MSG_DONTWAIT)
                owner.outbox.popleft()

    def _end(self, reason: str) -> None:
        """Tell why, and end this process: the learner cannot go on."""
        for owner in self._owners.values():
            owner.outbox.append(json.dumps({"gone": reason}).encode())
            self._flush(owner)
        os._exit(1)


def host_of(index: int, simulators: int, hosts: int) -> int:
    """Which host a simulator has: each has about as many, neighbours share one."""
    return index * hosts // simulators


def main(control: socket.socket, options: dict) -> None:
    """Join the cluster, say so or why not, and work until the learner closes the control socket."""
    head_gone_s = options.pop("head_gone_s")
    try:
        joined = ray_api.join(ray_api.Options(**options))
    except ray_api.JoinError as error:
        control.send(json.dumps({"error": str(error)}).encode())
        return
    control.send(json.dumps({"joined": joined.facts()}).encode())
    try:
        Driver(control, joined, head_gone_s).run()
    finally:
        joined.leave()


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])), json.loads(sys.argv[2]))
