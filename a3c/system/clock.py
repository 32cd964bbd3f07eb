"""A clock that stands still while the process does: while it is stopped (Ctrl-Z, a debugger), frozen or asleep.

A thread looks at the time twice a second; between two looks no more than a second counts. So time-outs measure what
the process had a chance to see, and a jump of the system's clock changes nothing.
"""

from __future__ import annotations

import threading
import time

_LOOK_EVERY_S = 0.5
_MOST_S = 2 * _LOOK_EVERY_S  # between two looks


class RunningClock:
    """Counts the seconds that the process ran since this was made. Any thread may call it."""

    def __init__(self):
        self._counted = (0.0, time.monotonic())  # seconds, and up to when: one tuple, so that readers see a pair
        threading.Thread(target=self._look, name="clock", daemon=True).start()

    def __call__(self) -> float:
        return self._at(time.monotonic())

    def _at(self, now: float) -> float:
        seconds, until = self._counted
        return seconds + min(now - until, _MOST_S)

    def _look(self) -> None:
        while True:
            time.sleep(_LOOK_EVERY_S)
            now = time.monotonic()
            self._counted = (self._at(now), now)


running_s = RunningClock()  # of this process, from its start
