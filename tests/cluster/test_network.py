"""Round trips are measured with no more than a port that listens."""

from __future__ import annotations

import socket

from a3c.cluster.network import round_trip_s
from a3c.cluster.pulse import Pulse

from processes import wait_until


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
