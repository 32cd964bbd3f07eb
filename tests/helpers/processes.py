"""Waiting for processes and conditions, with a deadline."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Iterable

import psutil

_POLL_S = 0.01


def wait_until(condition: Callable[[], object], timeout_s: float = 15.0):
    """Wait for a condition to hold; return what it says."""
    deadline = time.monotonic() + timeout_s
    while not (result := condition()):
        assert time.monotonic() < deadline, f"not within {timeout_s} s"
        select.select([], [], [], _POLL_S)
    return result


def descendants(pid: int | None = None) -> list[psutil.Process]:
    """The processes under this one, or under another."""
    return psutil.Process(pid or os.getpid()).children(recursive=True)


def wait_for_descendants(count: int, pid: int | None = None) -> list[psutil.Process]:
    """Wait until there are so many."""
    return wait_until(lambda: len(found := descendants(pid)) == count and found)


def alive(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Those that have not ended; a zombie has."""

    def lives(process: psutil.Process) -> bool:
        try:
            return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    return [process for process in processes if lives(process)]
