"""How many cores there really are."""

from __future__ import annotations

import math
import os

import machine
from machine import cgroup_room, usable_cores

import pytest

CGROUPS = {"v1": "6:memory:/a\n5:cpu,cpuacct:/a/b\n4:cpuset:/a\n3:pids:/a/b\n", "v2": "0::/a/b\n"}
CORES = {  # 8 cores of affinity; the files under /sys/fs/cgroup: the cores
    "no cgroups": ({}, 8),
    "v2 without a quota": ({"a/b/cpu.max": "max 100000\n"}, 8),
    "v2 quota": ({"a/b/cpu.max": "300000 100000\n"}, 3),
    "v2 quota of the parent": ({"a/b/cpu.max": "max 100000\n", "a/cpu.max": "200000 50000\n"}, 4),
    "v2 two quotas": ({"a/b/cpu.max": "300000 100000\n", "a/cpu.max": "200000 100000\n"}, 2),
    "v2 quota of a part of a core": ({"a/b/cpu.max": "10000 100000\n"}, 1),
    "v2 quota of two cores and a half": ({"a/b/cpu.max": "250000 100000\n"}, 3),
    "v2 quota above the affinity": ({"a/b/cpu.max": "9900000 100000\n"}, 8),
    "v2 nonsense": ({"a/b/cpu.max": "what\n"}, 8),
    "v1 quota": ({"cpu/a/b/cpu.cfs_quota_us": "150000\n", "cpu/a/b/cpu.cfs_period_us": "50000\n"}, 3),
    "v1 without a quota": ({"cpu/a/b/cpu.cfs_quota_us": "-1\n"}, 8),
    "v1 seen from within": ({"cpu/cpu.cfs_quota_us": "4000\n", "cpu/cpu.cfs_period_us": "2000\n"}, 2),
    "v1 without files": ({}, 8),
}


@pytest.fixture
def system(tmp_path, monkeypatch):
    """Give ``machine`` these files under /sys/fs/cgroup, seen from a process in the groups of a version."""

    def make(name: str, files: dict[str, str]) -> None:
        texts = {f"sys/fs/cgroup/{path}": text for path, text in files.items()}
        if (version := name.split()[0]) in CGROUPS:
            texts["proc/self/cgroup"] = CGROUPS[version]
        for path, text in texts.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text)
        monkeypatch.setattr(machine, "Path", lambda path: tmp_path / path.lstrip("/"))

    return make


@pytest.mark.parametrize("name", CORES)
def test_usable_cores(name, system, monkeypatch):
    files, cores = CORES[name]
    system(name, files)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert usable_cores() == cores


ROOM = {  # controller and the files: what is left
    "no cgroups": ("memory", {}, math.inf),
    "v2 without a limit": ("memory", {"a/b/memory.max": "max\n", "a/b/memory.current": "5\n"}, math.inf),
    "v2 limit": ("memory", {"a/b/memory.max": "50\n", "a/b/memory.current": "20\n"}, 30),
    "v2 limit of the parent": ("memory", {"a/b/memory.max": "max\n",
                                          "a/memory.max": "9\n", "a/memory.current": "2\n"}, 7),
    "v2 file cache is free": ("memory", {"a/memory.max": "50\n", "a/memory.current": "45\n",
                                         "a/memory.stat": "anon 5\ninactive_file 30\n"}, 35),
    "v2 pids": ("pids", {"a/b/pids.max": "100\n", "a/b/pids.current": "60\n", "a/b/memory.max": "1\n",
                         "a/b/memory.stat": "inactive_file 30\n"}, 40),
    "v2 nonsense": ("pids", {"a/b/pids.max": "what\n", "a/b/pids.current": "1\n"}, math.inf),
    "v1 limit": ("memory", {"memory/a/memory.limit_in_bytes": "50\n", "memory/a/memory.usage_in_bytes": "20\n",
                            "memory/a/memory.stat": "inactive_file 1\ntotal_inactive_file 7\n"}, 37),
    "v1 seen from within": ("pids", {"pids/pids.max": "10\n", "pids/pids.current": "4\n"}, 6),
    "v1 without files": ("pids", {}, math.inf),
}  # fmt: skip


@pytest.mark.parametrize("name", ROOM)
def test_cgroup_room(name, system):
    controller, files, room = ROOM[name]
    system(name, files)
    assert cgroup_room(controller) == room


def test_usable_cores_here():
    assert 1 <= usable_cores() <= len(os.sched_getaffinity(0))
