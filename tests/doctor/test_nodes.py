"""What the doctor says of a cluster's nodes, by table, and what it foretells."""

from __future__ import annotations

from a3c.cluster import cluster
from a3c.cluster.cluster import HostState, Network
from a3c.config import Config
from a3c.doctor import checks, nodes, report
from a3c.doctor.nodes import check, facts, forecast, versions
from a3c.errors import RunError

import pytest

OURS = {"python": "3.11.7", "packages": {"numpy": "2.4.0", "ray": "2.60.0"}}
NODE = {
    "ip": "10.0.0.2",
    "cpus": 8.0,
    "round_trip_s": 0.0002,
    "clock_s": 0.01,
    "value": {**OURS, "cores": 8, "step_s": 0.0005, "game": ""},
}


def with_value(**changes) -> dict:
    return {**NODE, "value": {**NODE["value"], **changes}}


CHECKS = {
    "as here": (NODE, checks.OK, "same versions, 8 cores, 2,000 states/s on one, round trip 0.20 ms"),
    "another Python": (with_value(python="3.12.1"), checks.FAIL, "Python 3.12.1 (3.11.7 here)"),
    "another version": (with_value(packages={"numpy": "2.3.0", "ray": "2.60.0"}), checks.FAIL, "numpy 2.3.0 (2.4.0"),
    "missing": (with_value(packages={"numpy": "2.4.0"}), checks.FAIL, "ray missing (2.60.0 here)"),
    "no game": (with_value(game="no ROM", step_s=0.0), checks.FAIL, "the game does not play: no ROM"),
    "late clock": ({**NODE, "clock_s": -90.0}, checks.WARN, "its clock is -90.0 s off"),
    "no answer": ({"ip": "10.0.0.2", "cpus": 8.0, "error": "No module named 'cv2'"}, checks.FAIL, "named 'cv2'"),
    "not measured": ({**NODE, "round_trip_s": None}, checks.OK, "round trip ? ms"),
}


@pytest.mark.parametrize("case", CHECKS)
def test_check(case):
    node, status, found = CHECKS[case]
    checked = check(node, OURS)
    assert checked.status == status
    assert found in checked.found
    assert checked.found.startswith("10.0.0.2, 8 CPUs")
    assert bool(checked.remedy) == (status != checks.OK)


def test_this_machine_is_as_it_is_here():
    found = facts("Pong-v0", seconds=0.05)
    node = {**NODE, "value": found}
    assert check(node, versions()).status == checks.OK
    assert 0 < found["step_s"] < 1


def test_a_game_that_does_not_play_is_told_and_not_raised():
    assert "Nowhere-v0" in facts("Nowhere-v0", seconds=0.05)["game"]


@pytest.mark.parametrize(
    ("learner", "carried", "limit", "states"),
    [(1e9, 1e9, "games", 32_000), (500, 1e9, "learner", 500), (1e9, 700, "network", 700)],
)
def test_the_slowest_stage_is_foretold(learner, carried, limit, states):
    found = forecast([NODE, NODE], host_cores=8, hosts=2, games=20, learner_per_s=learner, transport_per_s=carried)
    assert (found.limited_by, found.states_per_s) == (limit, pytest.approx(states))


def test_a_long_round_trip_leaves_cores_idle():
    far = {**NODE, "round_trip_s": 0.1}
    rates = [forecast([node], 8, 1, 20, 1e9, 1e9).rates["games"] for node in (NODE, far)]
    assert rates[1] < 0.2 * rates[0]


class FakeCluster:
    """A cluster of one node with room for one of two hosts."""

    round_trip_s, cores, host_cores, hosts = 0.001, 2, 1, 2

    def __init__(self, config):
        pass

    def on_each_node(self, function, *args, timeout_s):
        return [{**NODE, "value": {**NODE["value"], **versions()}}]

    def network(self):
        return Network(tuple(HostState(state, "", "", 0.0, None) for state in self.states), 0, 0)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.mark.parametrize(
    ("states", "words", "remedy"),
    [
        (("up", "pending"), "hosts 1 of 2, 1 pending", "free the hosts"),
        (("up", "up"), "hosts 2 of 2", "let the hosts in"),
    ],
)
def test_a_network_that_cannot_be_measured_is_told_as_a_check_that_failed(states, words, remedy, monkeypatch, capsys):
    def fail(*_):
        raise RunError("fake: no simulator made a step\nand more")

    monkeypatch.setattr(cluster, "Cluster", FakeCluster)
    monkeypatch.setattr(FakeCluster, "states", states, raising=False)
    monkeypatch.setattr(nodes, "transport", fail)
    found = report.Report(100)
    report._report_cluster(found, Config(env="Pong-v0", ray="local"), report.Speeds({}, 1.0), 2, 0, 0.1)
    out = " ".join(capsys.readouterr().out.split())
    assert f"network not measured: fake: no simulator made a step ({words}) try: {remedy}" in out
    with pytest.raises(RunError):
        found.finish()
