"""The driver, with a fake Ray: who is placed where, and what becomes of simulators whose host is lost or silent."""

from __future__ import annotations

import json
import socket
from types import SimpleNamespace

from a3c.cluster import driver as driver_module
from a3c.cluster.driver import Driver, host_of
from a3c.cluster.ray_api import HostLostError
from a3c.simulation.nursery import LOST

import pytest


class FakeActor:
    """A fake host: its calls are recorded, and answered when the test says so."""

    def __init__(self):
        self.turns: list[list] = []
        self.turn = SimpleNamespace(remote=self._turn)

    def _turn(self, commands, wait_s):
        self.turns.append(commands)
        return ("turn", id(self), len(self.turns))


class FakeJoined:
    """A fake of ``ray_api.Joined``: calls are tuples, and answers what the test has put in."""

    def __init__(self, hosts: int):
        self.hosts, self.head = hosts, ("127.0.0.1", 1)
        self.actors: list[FakeActor] = []
        self.answers: dict[tuple, object] = {}
        self._hellos = 0

    def make_host(self, kind):
        self.actors.append(FakeActor())
        return self.actors[-1]

    def hello(self, actor):
        self._hellos += 1
        return ("hello", id(actor), self._hellos)

    def value(self, call):
        if isinstance(self.answers[call], Exception):
            raise self.answers[call]
        return self.answers[call]

    def port_of(self, node):
        return self.head


class Rig:
    """A driver without its loop, and the learner's end of one nursery."""

    def __init__(self, monkeypatch, hosts: int = 2, simulators: int = 4, fixed: bool = True):
        monkeypatch.setattr(driver_module, "Pulse", lambda head: SimpleNamespace(
            look_at=lambda *_: None, round_trip_s=lambda node: None, head_silent_s=lambda: 0.0))  # fmt: skip
        self.joined = FakeJoined(hosts)
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.driver = Driver(theirs, self.joined, head_gone_s=30.0)
        self.socket, end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        request = {"nursery": 1, "simulators": simulators, "fixed": fixed}
        socket.send_fds(self.control, [json.dumps(request).encode()], [end.fileno()])
        end.close()
        assert self.driver._obey()
        (self.owner,) = self.driver._owners.values()

    def host(self, number: int):
        return self.driver._hosts[number]

    def answer(self, number: int, value) -> None:
        host = self.host(number)
        self.joined.answers[host.call] = value
        self.driver._answered(host)

    def up(self, *numbers: int, key: str = "key") -> None:
        for number in numbers:
            self.answer(number, {"key": f"{key}{number}", "ip": "10.0.0.1", "node": f"n{number}", "pid": 1})
        self.say(admitted=[host.key for host in self.driver._hosts if host.key])

    def turn(self, number: int, *exits) -> None:
        self.answer(number, {"key": self.host(number).key, "exits": list(exits), "core_seconds": (0.0, 0.0)})

    def say(self, **message) -> None:
        self.socket.send(json.dumps(message).encode())
        self.driver._hear(self.owner)

    def spawn(self, index: int, life: int) -> None:
        self.say(spawn={"index": index, "life": life})

    def told(self) -> list:
        """The exits that the learner was told."""
        self.driver._flush(self.owner)
        found = []
        while True:
            try:
                packet = json.loads(self.socket.recv(1 << 16, socket.MSG_DONTWAIT))
            except BlockingIOError:
                return found
            if isinstance(packet, list):
                found.append(packet)
            self.hosts = packet.get("hosts") if isinstance(packet, dict) else self.hosts

    def commands(self, number: int) -> list:
        """What the host is told in its next turn."""
        return [(kind, *(a["life"] if isinstance(a, dict) else a for a in rest))
                for kind, _, *rest in self.host(number).commands]  # fmt: skip


@pytest.fixture
def rig(monkeypatch):
    return lambda **options: Rig(monkeypatch, **options)


@pytest.mark.parametrize(
    ("simulators", "hosts", "expected"),
    [(4, 2, [0, 0, 1, 1]), (3, 2, [0, 0, 1]), (2, 3, [0, 1]), (5, 3, [0, 0, 1, 1, 2]), (1, 4, [0])],
)
def test_each_host_has_about_as_many_simulators(simulators, hosts, expected):
    assert [host_of(index, simulators, hosts) for index in range(simulators)] == expected


def test_simulators_wait_for_their_host_and_for_its_key(rig):
    one = rig()
    for index in range(4):
        one.spawn(index, life=index + 1)
    one.answer(0, {"key": "key0", "ip": "10.0.0.1", "node": "n0", "pid": 1})
    assert one.commands(0) == []  # its key is not admitted yet: it would be refused
    one.say(admitted=["key0"])
    assert one.commands(0) == [("spawn", 1), ("spawn", 2)]
    assert one.commands(1) == []
    one.up(1)
    assert one.commands(1) == [("spawn", 3), ("spawn", 4)]
    one.turn(0)
    assert [command[0] for command in one.joined.actors[0].turns[-1]] == ["spawn", "spawn"]
    assert one.told() == []


def test_ends_are_told_once_and_of_present_lives_only(rig):
    one = rig()
    one.spawn(0, life=5)
    one.up(0)
    one.turn(0)
    one.turn(0, [1, 0, 4, -9], [1, 0, 5, 1], [1, 0, 5, 1], [7, 0, 1, 0])
    assert one.told() == [[0, 5, 1]]


@pytest.mark.parametrize("back", ["key", "other"])
def test_a_lost_hosts_simulators_are_lost_and_it_is_waited_for(rig, back):
    one = rig()
    one.spawn(0, life=1)
    one.spawn(1, life=2)
    one.spawn(2, life=3)
    one.up(0, 1)
    one.turn(0)
    one.answer(0, HostLostError("gone"))
    assert sorted(one.told()) == [[0, 1, LOST], [1, 2, LOST]]
    assert [host[0] for host in one.hosts] == ["pending", "up"]
    one.spawn(0, life=4)
    assert one.commands(0) == []
    one.up(0, key=back)
    assert one.commands(0) == [("spawn", 4)]
    assert one.told() == []


def test_a_silent_host_is_given_up_and_greeted_when_it_answers(rig, monkeypatch):
    one = rig()
    one.spawn(0, life=1)
    one.up(0)
    one.turn(0)
    now = driver_module.running_s()
    monkeypatch.setattr(driver_module, "running_s", lambda: now + driver_module._SILENT_S + 1)
    one.driver._look()
    assert one.told() == [[0, 1, LOST]]
    assert one.hosts[0][0] == "silent"
    one.spawn(0, life=2)
    one.turn(0, [1, 0, 1, LOST])  # the answer that was missed
    assert one.host(0).is_hello  # which ends what it still plays
    assert one.told() == []
    one.up(0)
    assert one.commands(0) == [("spawn", 2)]


def test_a_host_that_was_started_anew_while_nobody_called_it_is_greeted(rig):
    one = rig()
    one.spawn(0, life=1)
    one.up(0)
    one.turn(0)
    one.answer(0, {"key": "another", "exits": [], "core_seconds": (0.0, 0.0)})
    assert one.told() == [[0, 1, LOST]]
    assert one.hosts[0][0] == "pending"
    assert one.host(0).is_hello
    one.spawn(0, life=2)
    one.up(0, key="another")
    assert one.commands(0) == [("spawn", 2)]


def test_who_has_no_host_of_his_own_takes_the_one_with_the_fewest(rig, monkeypatch):
    one = rig(hosts=2, simulators=4, fixed=False)
    for index in range(4):
        one.spawn(index, life=index + 1)
    one.up(0)
    assert len(one.commands(0)) == 2  # the other is about to come
    one.up(1)
    assert len(one.commands(1)) == 2
    one.turn(1)
    one.answer(1, HostLostError("gone"))
    now = driver_module.running_s()
    monkeypatch.setattr(driver_module, "running_s", lambda: now + driver_module._BEGIN_S + 1)
    for index, life, _ in one.told():
        one.spawn(index, life + 10)
    assert len(one.commands(0)) == 4  # and plays on where there is one


def test_kill_reaches_who_plays_and_who_waits(rig):
    one = rig()
    one.spawn(0, life=1)
    one.say(kill=0)
    assert one.told() == [[0, 1, LOST]]
    one.up(0)
    one.spawn(0, life=2)
    one.say(kill=0)
    assert one.commands(0) == [("spawn", 2), ("kill", 0)]


def test_what_a_closed_nursery_had_is_ended(rig):
    one = rig()
    one.spawn(0, life=1)
    one.up(0)
    one.turn(0)
    one.socket.close()
    one.driver._hear(one.owner)
    assert one.commands(0) == [("close",)]
    assert one.driver._owners == {}


def test_a_learner_that_is_paused_holds_nobody_up(rig):
    one = rig()
    one.spawn(0, life=1)
    one.up(0)
    for life in range(5_000):
        one.host(0).lives[1, 0] = life
        one.turn(0, [1, 0, life, 1])
        one.driver._flush(one.owner)
    assert len(one.owner.outbox) > 1_000
    exits = []
    while one.owner.outbox:
        exits += one.told()
    assert [life for _, life, _ in exits + one.told()] == list(range(5_000))


def test_the_learners_end_ends_it(rig):
    one = rig()
    one.control.close()
    assert not one.driver._obey()


def test_hosts_that_can_never_start_end_the_run(rig, monkeypatch):
    one = rig(hosts=1)
    ended = []
    monkeypatch.setattr(driver_module.os, "_exit", ended.append)
    for _ in range(driver_module._FAILED_STARTS):
        one.answer(0, HostLostError("ModuleNotFoundError: No module named 'cv2'"))
        assert one.host(0).call is None
        one.driver._make(one.host(0))
    assert ended == [1]
    packets = []
    while not packets or "gone" not in packets[-1]:
        packets.append(json.loads(one.socket.recv(1 << 16)))
    assert "No module named 'cv2'" in packets[-1]["gone"]
