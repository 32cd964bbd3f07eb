"""How many cores there really are."""

from __future__ import annotations

import math
import os
import shutil
import struct
import subprocess
import sys

from a3c.system import machine
from a3c.system.machine import cgroup_room, core_seconds, named_gpus, no_window, usable_cores
from tests.faults.window import display

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


TICKS = {  # of a core: user nice system idle iowait irq softirq steal guest guest_nice; hundredths of a second
    "all": "100 10 30 400 50 2 3 5 60 6",
    "old kernel": "100 10 30 400 50 2 8",
}
BUSY, ALL = 1.5, 6.0  # seconds of each such core
STATS = {  # the cores that are listed, the affinity, the usable ones: seconds worked, and all
    "as many": ((0, 1), {0, 1}, 2, (2 * BUSY, 2 * ALL)),
    "one of two": ((0, 1), {1}, 1, (BUSY, ALL)),
    "an offline one between": ((0, 2, 3), {2, 3}, 2, (2 * BUSY, 2 * ALL)),
    "a quota of one of two": ((0, 1), {0, 1}, 1, (2 * BUSY, ALL)),
    "a container's own numbers": ((0, 1), {5, 6}, 2, (2 * BUSY, 2 * ALL)),
    "a container's, some alike": ((0, 1), {1, 5}, 2, (2 * BUSY, 2 * ALL)),
    "fewer than the affinity": ((0,), {0, 1, 2, 3}, 4, (BUSY, ALL)),
    "none": ((), {0, 1}, 2, (0, 0)),
}


@pytest.mark.parametrize("ticks", TICKS)
@pytest.mark.parametrize("name", STATS)
def test_core_seconds(name, ticks, system, monkeypatch):
    listed, allowed, usable, seconds = STATS[name]
    system("stat", {})
    proc = machine.Path("/proc/stat")
    proc.parent.mkdir()
    proc.write_text(
        "".join(["cpu  9 9 9 9 9 9 9\n", *(f"cpu{i} {TICKS[ticks]}\n" for i in listed), "intr 5 0\n\nctxt 1\n"])
    )
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: allowed)
    monkeypatch.setattr(os, "sysconf", {"SC_CLK_TCK": 100}.get)
    monkeypatch.setattr(machine, "usable_cores", lambda: usable)
    assert core_seconds() == pytest.approx(seconds)


@pytest.mark.parametrize("text", [None, "", "what\n", "cpu0 1 x 3\n", "cpux 1 2\n", "cpu0\n"])
def test_core_seconds_where_the_kernel_does_not_tell(text, system):
    system("stat", {})
    if text is not None:
        machine.Path("/proc/stat").parent.mkdir()
        machine.Path("/proc/stat").write_text(text)
    assert core_seconds() == (0, 0)


@pytest.mark.parametrize(
    ("visible", "names"),
    [
        (None, None),
        ("", ()),
        ("0", ("0",)),
        ("2,3", ("2", "3")),
        (" 2 , 3 ", ("2", "3")),
        ("-1", ()),
        ("2,-1,3", ("2",)),
        ("NoDevFiles", ()),
        ("void", ()),
        ("GPU-8932f937-d72c,MIG-GPU-1/2/3,MIG-4f", ("GPU-8932f937-d72c", "MIG-GPU-1/2/3", "MIG-4f")),
        ("1,what,2", ("1",)),
        ("1,,2", ("1",)),
    ],
)
def test_named_gpus(visible, names):
    assert named_gpus(visible) == names


# displays

VARIABLES = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER", "XAUTHORITY")
NO_SERVER = {  # nobody serves these: what is told
    "nothing set": ({}, "there is no display"),
    "empty": ({"DISPLAY": "", "WAYLAND_DISPLAY": ""}, "there is no display"),
    "no server": ({"DISPLAY": ":4093"}, "on DISPLAY=:4093"),
    "another machine's": ({"DISPLAY": "127.0.0.1:4093"}, "on DISPLAY=127.0.0.1:4093"),
    "no number": ({"DISPLAY": "nonsense"}, "on DISPLAY=nonsense"),
    "no such machine": ({"DISPLAY": "nobody.invalid:0"}, "on DISPLAY=nobody.invalid:0"),
    "colon": ({"DISPLAY": ":"}, "on DISPLAY=:"),
    "Wayland alone": ({"WAYLAND_DISPLAY": "wayland-0"}, "WAYLAND_DISPLAY=wayland-0 needs Xwayland"),
    "neither": ({"DISPLAY": ":4093", "WAYLAND_DISPLAY": "wayland-0"}, "on DISPLAY=:4093"),
    "X by name": ({"DISPLAY": ":4093", "SDL_VIDEODRIVER": "x11"}, "with SDL_VIDEODRIVER=x11"),
    "unknown driver": ({"DISPLAY": ":4093", "SDL_VIDEODRIVER": "nonsense"}, "with SDL_VIDEODRIVER=nonsense"),
    "unseen by wish": ({"SDL_VIDEODRIVER": "dummy"}, ""),
    "unseen by wish, in large letters": ({"DISPLAY": ":4093", "SDL_VIDEODRIVER": "OFFSCREEN"}, ""),
}


@pytest.fixture
def variables(monkeypatch):
    def setting(**values: str) -> None:
        for name in VARIABLES:
            monkeypatch.delenv(name, raising=False)
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return setting


@pytest.mark.parametrize("case", NO_SERVER)
def test_a_window_that_nobody_would_see(case, variables):
    values, told = NO_SERVER[case]
    variables(**values)
    assert told in no_window()
    assert bool(told) == bool(no_window())
    assert "\n" not in no_window()


needs_xvfb = pytest.mark.skipif(not shutil.which("Xvfb") and "CI" not in os.environ, reason="Xvfb is not installed")


@needs_xvfb
def test_a_window_that_is_seen(tmp_path, variables):
    with display(tmp_path) as name:
        for values in ({}, {"WAYLAND_DISPLAY": "wayland-0"}, {"SDL_VIDEODRIVER": "x11"}, {"SDL_VIDEODRIVER": "dummy"}):
            variables(DISPLAY=name, **values)
            assert no_window() == ""
        variables(DISPLAY=f"{name}.0")
        assert no_window() == ""
        variables(DISPLAY=name, SDL_VIDEODRIVER="nonsense")
        assert "SDL_VIDEODRIVER=nonsense" in no_window()
    variables(DISPLAY=name)
    assert f"DISPLAY={name}" in no_window()


@needs_xvfb
def test_a_server_that_refuses_us(tmp_path, variables):
    cookie = b"0123456789abcdef"
    for file, key in (("server", cookie), ("ours", cookie), ("others", cookie[::-1])):
        fields = (b"", b"", b"MIT-MAGIC-COOKIE-1", key)
        record = b"\xff\xff" + b"".join(struct.pack(">H", len(field)) + field for field in fields)
        (tmp_path / file).write_bytes(record)
    with display(tmp_path, "-auth", str(tmp_path / "server")) as name:
        variables(DISPLAY=name, XAUTHORITY=str(tmp_path / "ours"))
        assert no_window() == ""
        variables(DISPLAY=name, XAUTHORITY=str(tmp_path / "others"))
        assert f"DISPLAY={name}" in no_window()


def test_a_server_that_does_not_answer(variables, monkeypatch):
    def hang(*_, timeout, **__):
        raise subprocess.TimeoutExpired(sys.executable, timeout)

    monkeypatch.setattr(subprocess, "run", hang)
    variables(DISPLAY="far:0")
    assert "DISPLAY=far:0" in no_window()


@pytest.mark.parametrize(("values", "told"), [({"DISPLAY": ":0"}, ""), ({}, "there is no display to play on")])
def test_without_sdl_the_variables_are_believed(values, told, variables, monkeypatch, tmp_path):
    package = machine.importlib.util.spec_from_file_location("ale_py", "", submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda name: package)
    monkeypatch.setattr(machine.ctypes.util, "find_library", lambda name: None)
    variables(**values)
    assert no_window() == told
