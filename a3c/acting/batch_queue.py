"""The bounded queue between the actor's master and the learner."""

from __future__ import annotations

import threading
from collections import deque

from a3c.acting.unroll import MakeBatch


class BatchQueue:
    """What makes the learner's next batches, in order."""

    def __init__(self, size: int | None):
        """``size``: how many may be left before the master goes on; None: none, and the learner asks for another."""
        self._size = size
        self._waiting: deque[MakeBatch] = deque()
        self._asked_for = False
        self._changed = threading.Condition()

    def put(self, batches: list[MakeBatch]) -> None:
        """Add a pool's batches."""
        with self._changed:
            self._asked_for = False
            self._waiting.extend(batches)
            self._changed.notify_all()

    def wait_for_room(self, timeout_s: float) -> bool:
        """Wait until no more than ``size`` are left; tell whether that came within the time."""
        with self._changed:
            return self._changed.wait_for(self._has_room, timeout_s)

    def _has_room(self) -> bool:
        return self._asked_for if self._size is None else len(self._waiting) <= self._size

    def get(self, timeout_s: float) -> MakeBatch | None:
        """Take the next one; None if there is none within the time."""
        with self._changed:
            if not self._waiting:
                self._asked_for = True
                self._changed.notify_all()
                if not self._changed.wait_for(lambda: self._waiting, timeout_s):
                    return None
            self._changed.notify_all()
            return self._waiting.popleft()
