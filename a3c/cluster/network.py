"""How far away a machine is, by what it costs nobody to ask: to be let into a port on which it listens."""

from __future__ import annotations

import socket
import statistics
import time

_TRIES = 5
_TIMEOUT_S = 1.0


def round_trip_s(address: tuple[str, int], tries: int = _TRIES) -> float | None:
    """The median time that a TCP connection takes, which is one round trip; None if none is made.

    Args:
        address: IP address and port of something that listens.
        tries: connections, one after the other.
    """
    times = []
    for _ in range(tries):
        start = time.perf_counter()
        try:
            socket.create_connection(address, _TIMEOUT_S).close()
        except OSError:
            return None
        times.append(time.perf_counter() - start)
    return statistics.median(times)
