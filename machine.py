"""What this machine has."""

from __future__ import annotations

import math
import os
from pathlib import Path

import psutil


def usable_cores() -> int:
    """Count the cores this process may really use: its affinity, and the quota of its cgroup (v2 or v1)."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota = _cgroup_quota_cores()
    except (OSError, ValueError):
        quota = math.inf
    return max(1, math.ceil(min(cores, quota)))


def core_seconds() -> tuple[float, float]:
    """Seconds that the usable cores have worked since the machine started, for whomever, and all there were."""
    per_core = psutil.cpu_times(percpu=True)
    cores = [per_core[core] for core in os.sched_getaffinity(0) if core < len(per_core)]
    everything = sum(sum(core) - core.guest - core.guest_nice for core in cores)  # user has the guests' in it
    idle = sum(core.idle + core.iowait for core in cores)
    return everything - idle, everything * usable_cores() / len(cores)


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
