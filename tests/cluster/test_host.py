"""A host of simulators without Ray: what it does when a nursery of its is gone."""

from __future__ import annotations

import dataclasses
import os

from a3c.cluster.host import SimulatorHost
from a3c.simulation.messages import SimulatorSpec
from a3c.simulation.nursery import LOST

import pytest
from fake_games import COUNTING
from processes import alive, wait_for_descendants, wait_until


@pytest.fixture
def host(monkeypatch):
    monkeypatch.setattr(SimulatorHost, "_watch", lambda self: None)  # else it would end the tests
    host = SimulatorHost()
    yield host
    host._close(*host._nurseries)


def spawn(index: int) -> tuple:
    address = {"steps": "tcp://127.0.0.1:1", "actions": "tcp://127.0.0.1:1", "codec": "none", "server_key": ""}
    return ("spawn", 1, dataclasses.asdict(SimulatorSpec(index, index + 1, 0, 1, address, COUNTING, {})))


class ExitError(Exception):
    """In place of a process that ends."""


@pytest.mark.parametrize("commands", [[], [spawn(1)]], ids=["it looks", "it is to fork"])
def test_a_host_whose_nursery_is_gone_says_so_and_ends(host, commands, monkeypatch, capfd):
    def fake_exit(status: int) -> None:
        raise ExitError(status)

    host.turn([spawn(0)], 0.0)
    (nursery,) = wait_for_descendants(1)[:1]
    nursery.kill()
    wait_until(lambda: not alive([nursery]))
    monkeypatch.setattr(os, "_exit", fake_exit)
    with pytest.raises(ExitError, match="1"):
        host.turn(commands, 0.1)
    assert capfd.readouterr().err == "the nursery of the simulators ended with status -9\n"


def test_a_turn_says_whose_it_is_and_who_ended(host):
    found = []

    def ended() -> bool:
        turn = host.turn([], 0.1)
        assert turn["key"] == host._public_key
        found.extend(turn["exits"])
        return bool(found)

    host.turn([spawn(0)], 0.0)
    wait_until(ended)
    assert found == [[1, 0, 1, LOST]]  # nobody listens at its address
