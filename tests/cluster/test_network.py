"""Round trips are measured with no more than a port that listens."""

from __future__ import annotations

import socket

from a3c.cluster import pulse as pulse_module
from a3c.cluster.network import round_trip_s
from a3c.cluster.pulse import Pulse

from processes import wait_until

HEAD = ("127.0.0.1", 1)


def test_round_trips_and_what_does_not_answer():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        assert 0 < round_trip_s(address) < 1
        pulse = Pulse(address)
        pulse.look_at("node", address)
        assert wait_until(lambda: pulse.round_trip_s("node")) < 1
        assert pulse.head_silent_s() < 5
        assert pulse.round_trip_s("another") is None
    assert round_trip_s(address) is None


def test_many_nodes_that_do_not_answer_do_not_hide_the_head(monkeypatch):
    seen = []

    def fake_round_trip_s(address: tuple[str, int], tries: int = 5) -> float | None:
        seen.append(address)
        return 0.001 if address == HEAD else None

    monkeypatch.setattr(pulse_module, "round_trip_s", fake_round_trip_s)
    monkeypatch.setattr(pulse_module, "_EVERY_S", 0.01)
    pulse = Pulse(HEAD)
    for number in range(50):
        pulse.look_at(f"node {number}", ("127.0.0.1", 2 + number))
    wait_until(lambda: seen.count(("127.0.0.1", 51)) > 1)
    # Another test's pulse, which ends with the process, looks at other ports.
    between = "".join("h" if address == HEAD else "n" for address in seen if address[1] <= 51)
    assert "nn" not in between
