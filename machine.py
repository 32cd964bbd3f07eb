"""What this machine has, and what its libraries say."""

from __future__ import annotations

import contextlib
import math
import os
import sys
from pathlib import Path


def usable_cores() -> int:
    """Count the cores this process may really use: its affinity, and the quota of its cgroup (v2 or v1)."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota = _cgroup_quota_cores()
    except (OSError, ValueError):
        quota = math.inf
    return max(1, math.ceil(min(cores, quota)))


def _cgroup_quota_cores() -> float:
    root = Path("/sys/fs/cgroup")
    quotas = [math.inf]
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            group = root / path.lstrip("/")
            for folder in (group, *group.parents):
                if (limit := folder / "cpu.max").is_file():
                    quota, period = limit.read_text().split()
                    quotas += [int(quota) / int(period)] if quota != "max" else []
        elif "cpu" in controllers.split(","):
            folder = root / "cpu" / path.lstrip("/")
            folder = folder if folder.is_dir() else root / "cpu"
            quota = int((folder / "cpu.cfs_quota_us").read_text())
            if quota > 0:
                quotas.append(quota / int((folder / "cpu.cfs_period_us").read_text()))
    return min(quotas)


@contextlib.contextmanager
def quiet_stderr():
    """Drop what native libraries say while they are loaded; TensorFlow's notes there cannot be turned off."""
    sys.stderr.flush()
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)
