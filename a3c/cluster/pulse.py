"""Round trips to the hosts and to Ray's head, measured again and again by a thread of the driver's own."""

from __future__ import annotations

import threading
import time

from a3c.cluster.network import round_trip_s
from a3c.system.clock import running_s

_EVERY_S = 2.0


class Pulse:
    """Measures on a thread of its own, which ends with the process; any thread may read."""

    def __init__(self, head: tuple[str, int]):
        """``head``: address and port of Ray's head."""
        self._head = head
        self._head_seen_s = running_s()
        self._addresses: dict[str, tuple[str, int]] = {}
        self._round_trips: dict[str, float] = {}
        threading.Thread(target=self._run, name="pulse", daemon=True).start()

    def look_at(self, node: str, address: tuple[str, int]) -> None:
        """Measure the round trip to this node from now on; ``address`` is where something of it listens."""
        self._addresses = {**self._addresses, node: address}

    def round_trip_s(self, node: str) -> float | None:
        """The newest one; None if none was measured yet."""
        return self._round_trips.get(node)

    def head_silent_s(self) -> float:
        """Seconds since the head was last seen."""
        return running_s() - self._head_seen_s

    def _run(self) -> None:
        while True:
            self._look_at_head()
            for node, address in self._addresses.items():
                if (seconds := round_trip_s(address)) is not None:
                    self._round_trips = {**self._round_trips, node: seconds}
                self._look_at_head()  # each node that is away takes a second: their number must not hide the head
            time.sleep(_EVERY_S)

    def _look_at_head(self) -> None:
        if round_trip_s(self._head, tries=1) is not None:
            self._head_seen_s = running_s()
