"""What this machine has, and what its libraries say."""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Iterator
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


_LIMITS = {  # of a cgroup, v2's and v1's: the file of the limit, and the one of what is in use
    "memory": (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")),
    "pids": (("pids.max", "pids.current"),),
}


def cgroup_room(controller: str) -> float:
    """What the cgroups (v2 or v1) of this process leave of ``memory``, in bytes, or of ``pids``; infinity if all."""
    try:
        return min((limit - used for limit, used in _cgroup_limits(controller)), default=math.inf)
    except (OSError, ValueError):
        return math.inf


def _cgroup_limits(controller: str) -> Iterator[tuple[int, int]]:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "" or controller in controllers.split(","):
            group = Path("/sys/fs/cgroup") / (controller if controllers else "") / path.lstrip("/")
            for folder in (group, *group.parents):
                for limit, used in _LIMITS[controller]:
                    if (folder / limit).is_file() and (text := (folder / limit).read_text().strip()) != "max":
                        cache = _file_cache(folder / "memory.stat") if controller == "memory" else 0
                        yield int(text), int((folder / used).read_text()) - cache


def _file_cache(stat: Path) -> int:
    """Bytes that a cgroup counts as used and the kernel frees when they are needed."""
    values = dict(line.split() for line in stat.read_text().splitlines()) if stat.is_file() else {}
    return int(values.get("total_inactive_file", values.get("inactive_file", 0)))


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
