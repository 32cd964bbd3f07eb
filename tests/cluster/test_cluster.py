"""The learner's end of a cluster, against a fake driver; and what is said where there is none."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

from a3c.cluster import cluster as cluster_module
from a3c.cluster.cluster import Cluster, ClusterLostError, ClusterNursery, HostState, describe
from a3c.config import Config
from a3c.errors import UsageError
from a3c.simulation.nursery import Exit
from a3c.system.stopping import StoppedError

import pytest
from processes import alive, descendants

ROOT = Path(__file__).resolve().parents[2]
EXITS = ClusterNursery.exits
UP, PENDING, SILENT = "up", "pending", "silent"


class FakeWire:
    """A fake wire that knows who was admitted."""

    received_bytes = 0
    admitted = frozenset()

    def admit(self, keys) -> None:
        self.admitted = keys


class Rig:
    """A nursery of the cluster, and the driver's end."""

    def __init__(self, simulators: int | None = 4, told: list | None = None):
        ours, self.driver = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.wire, self.lost = FakeWire(), []
        self.nursery = ClusterNursery(ours, simulators, self.wire, self.lost.append, told)

    def tell(self, *states: str, key: str = "key") -> list[Exit]:
        table = [[state, "10.0.0.1", f"{key}{number}", 0.5, 0.001] for number, state in enumerate(states)]
        self.driver.send(json.dumps({"hosts": table}).encode())
        return self.nursery.exits()

    def heard(self) -> list[dict]:
        found = []
        while True:
            try:
                found.append(json.loads(self.driver.recv(1 << 16, socket.MSG_DONTWAIT)))
            except BlockingIOError:
                return found


def test_hosts_that_are_up_are_admitted_and_no_others():
    rig = Rig()
    rig.tell(UP, PENDING)
    assert rig.wire.admitted == {"key0"}
    assert rig.heard() == [{"admitted": ["key0"]}]
    rig.tell(UP, PENDING)
    assert rig.heard() == []
    rig.tell(UP, UP)
    rig.tell(SILENT, UP, key="key")
    assert rig.wire.admitted == {"key1"}
    assert rig.heard() == [{"admitted": ["key0", "key1"]}, {"admitted": ["key1"]}]


def test_lost_hosts_are_counted_and_said(caplog):
    rig = Rig(told=[])
    for states in [(UP, UP), (UP, PENDING), (UP, PENDING), (UP, UP), (SILENT, UP)]:
        rig.tell(*states)
    assert rig.nursery.lost == 2
    lines = [record.getMessage() for record in caplog.records]
    assert "host 1 on 10.0.0.1 is lost: hosts 1 of 2, 1 pending" in lines
    assert lines[-1] == "host 0 on 10.0.0.1 is lost: hosts 1 of 2, 1 silent"
    assert len(lines) == 5  # two came, one went, one came back, one went


def test_that_no_host_is_up_is_said_again_and_again_by_one_nursery(caplog, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(cluster_module, "running_s", lambda: now[0])
    rig, beside = Rig(simulators=None, told=[]), Rig(simulators=None)
    for second, states in [(5, (PENDING,)), (31, (PENDING,)), (40, (PENDING,)), (62, (SILENT,)), (70, (UP,)),
                           (95, (SILENT,)), (98, (SILENT,)), (126, (SILENT,))]:  # fmt: skip
        now[0] = second
        rig.tell(*states)
        beside.tell(*states)
    lines = [record.getMessage() for record in caplog.records]
    waiting = "waiting for a host: hosts 0 of 1, 1 {}; ray status says what the cluster has"
    assert lines == [
        waiting.format(PENDING),
        waiting.format(SILENT),
        "host 0 is up on 10.0.0.1: hosts 1 of 1",
        "host 0 on 10.0.0.1 is lost: hosts 0 of 1, 1 silent",
        waiting.format(SILENT),
    ]


def test_the_next_nursery_tells_what_has_changed_and_whom_its_simulators_wait_for(caplog, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(cluster_module, "running_s", lambda: now[0])
    told = []
    Rig(told=told).tell(UP, PENDING)
    caplog.clear()
    rig = Rig(simulators=1, told=told)  # it has the first host, and none the second
    rig.tell(UP, PENDING)
    assert caplog.messages == []
    rig.tell(PENDING, UP)
    now[0] = 31
    rig.tell(PENDING, UP)
    assert caplog.messages == [
        "host 0 on 10.0.0.1 is lost: hosts 1 of 2, 1 pending",
        "host 1 is up on 10.0.0.1: hosts 1 of 2, 1 pending",
        "waiting for a host: hosts 1 of 2, 1 pending; ray status says what the cluster has",
    ]


def test_a_signal_ends_the_wait_for_ray(monkeypatch):
    """Ray's driver is a fake one that never answers."""

    def start_fake_driver(*_, pass_fds, **__):
        return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], pass_fds=pass_fds)

    def fake_stop() -> None:
        raise StoppedError("SIGINT asked for it")

    monkeypatch.setattr(cluster_module, "start_program", start_fake_driver)
    monkeypatch.setattr(cluster_module, "_CLOSE_TIMEOUT_S", 0.1)
    with pytest.raises(StoppedError):
        Cluster(Config(ray="local"), check_stop=fake_stop)
    assert alive(descendants()) == []


def test_a_simulator_waits_where_its_host_is_not_there():
    rig = Rig(simulators=4)
    assert [rig.nursery.waits(index) for index in range(4)] == [True] * 4
    rig.tell(UP, PENDING)
    assert [rig.nursery.waits(index) for index in range(4)] == [False, False, True, True]
    anywhere = Rig(simulators=None)
    anywhere.tell(PENDING, UP)
    assert not anywhere.nursery.waits(0)


def test_the_nurserys_protocol():
    rig = Rig()
    rig.nursery.spawn({"index": 1, "life": 2})
    rig.nursery.kill(1)
    assert rig.heard() == [{"spawn": {"index": 1, "life": 2}}, {"kill": 1}]
    rig.driver.send(b"[1, 2, 75]")
    assert rig.nursery.exits() == [Exit(1, 2, 75)]
    assert rig.nursery.exits() == []


@pytest.mark.parametrize("reason", ["Ray's head is gone", None])
@pytest.mark.parametrize("call", [EXITS, lambda nursery: nursery.spawn({})], ids=["exits", "spawn"])
def test_the_end_of_the_cluster_is_told_in_one_line(reason, call):
    rig = Rig()
    if reason:
        rig.driver.send(json.dumps({"gone": reason}).encode())
    rig.driver.close()
    with pytest.raises(ClusterLostError, match="the Ray cluster is gone") as told:
        call(rig.nursery)
    assert "\n" not in str(told.value)
    assert len(rig.lost) == 1
    assert (str(told.value).count(reason or "ended")) == (1 if call is EXITS or not reason else 0)


@pytest.mark.parametrize(
    ("states", "words"),
    [
        ((UP, UP), "hosts 2 of 2"),
        ((UP, UP, UP, PENDING), "hosts 3 of 4, 1 pending"),
        ((SILENT, PENDING, UP), "hosts 1 of 3, 1 pending, 1 silent"),
        ((), "hosts 0 of 0"),
    ],
)
def test_where_hosts_stand_in_words(states, words):
    assert describe(tuple(HostState(state, "", "", 0.0, None) for state in states)) == words


def test_missing_packages_are_told_with_what_to_type(monkeypatch):
    monkeypatch.setattr(cluster_module, "missing_packages", lambda: ["ray", "lz4"])
    with pytest.raises(UsageError) as told:
        Cluster(Config(ray="local"))
    assert str(told.value) == f"--ray needs ray and lz4: type {sys.executable} -m pip install -r requirements-ray.txt"


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("127.0.0.1", "it is HOST:PORT"),
        ("ray://127.0.0.1:10001", "it is HOST:PORT"),
        ("127.0.0.1:99999", "it is HOST:PORT"),
        ("127.0.0.1:1", "nothing answers there"),
    ],
)
def test_an_address_without_a_cluster_is_told_in_one_line(address, found):
    with pytest.raises(UsageError) as told:
        Cluster(Config(ray=address))
    assert str(told.value).startswith(f"--ray {address}: {found}")
    assert "\n" not in str(told.value)


def test_without_the_flag_nothing_of_it_is_imported():
    code = (
        "import sys, simulator, a3c.cluster.cluster, a3c.playing.evaluation, a3c.doctor.report; "
        "print({'ray', 'lz4'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "set()", done.stderr
