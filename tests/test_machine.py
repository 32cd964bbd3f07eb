"""How many cores there really are."""

from __future__ import annotations

import os

import machine
from machine import usable_cores

import pytest

CGROUPS = {"v1": "5:cpu,cpuacct:/a/b\n4:cpuset:/a\n", "v2": "0::/a/b\n"}
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


@pytest.mark.parametrize("name", CORES)
def test_usable_cores(name, tmp_path, monkeypatch):
    files, cores = CORES[name]
    texts = {f"sys/fs/cgroup/{path}": text for path, text in files.items()}
    if (version := name.split()[0]) in CGROUPS:
        texts["proc/self/cgroup"] = CGROUPS[version]
    for path, text in texts.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    monkeypatch.setattr(machine, "Path", lambda path: tmp_path / path.lstrip("/"))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert usable_cores() == cores


def test_usable_cores_here():
    assert 1 <= usable_cores() <= len(os.sched_getaffinity(0))
