"""What this machine has, and what its libraries say. Only the standard library is imported: the doctor comes early."""

from __future__ import annotations

import contextlib
import ctypes.util
import importlib.util
import itertools
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from a3c.errors import RunError, problem

PIP = f"{sys.executable} -m pip install"  # into the environment that runs this

# Asks the SDL library that is its first argument for the driver it would show a window with.
_SDL_DRIVER = """
import ctypes, sys
sdl = ctypes.CDLL(sys.argv[1])
sdl.SDL_GetCurrentVideoDriver.restype = ctypes.c_char_p
if sdl.SDL_InitSubSystem(0x20) == 0:
    print(sdl.SDL_GetCurrentVideoDriver().decode())
    sdl.SDL_Quit()
"""
_SDL_TIMEOUT_S = 15.0  # a display of another machine may not answer
_INVISIBLE = ("", "offscreen", "dummy", "evdev")  # SDL falls back on these


def usable_cores() -> int:
    """Count the cores this process may really use: its affinity, and the quota of its cgroup (v2 or v1)."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota = _cgroup_quota_cores()
    except (OSError, ValueError):
        quota = math.inf
    return max(1, math.ceil(min(cores, quota)))


def core_seconds() -> tuple[float, float]:
    """Seconds that the usable cores have worked since the machine started, for whomever, and all there were.

    Both are 0 if the kernel does not tell. A container may list fewer cores than the affinity has, numbered from 0:
    those listed are then the container's.
    """
    try:
        listed = _core_ticks()
    except (OSError, ValueError):
        listed = {}
    allowed = os.sched_getaffinity(0)
    cores = [listed[core] for core in (allowed if allowed <= listed.keys() else listed)]
    if not cores:
        return 0.0, 0.0
    ticks_per_s = os.sysconf("SC_CLK_TCK")
    everything = sum(map(sum, cores)) / ticks_per_s
    idle = sum(sum(core[3:5]) for core in cores) / ticks_per_s  # idle, waiting for a disk
    return everything - idle, everything * min(1.0, usable_cores() / len(cores))


def _core_ticks() -> dict[int, list[int]]:
    """What each core did, by its number; the guests' ticks are left out, as they are in their hosts' already."""
    lines = map(str.split, Path("/proc/stat").read_text().splitlines())
    return {
        int(line[0][3:]): [int(ticks) for ticks in line[1:9]]
        for line in lines
        if line and line[0].startswith("cpu") and line[0] != "cpu"
    }


def named_gpus(visible: str | None) -> tuple[str, ...] | None:
    """The GPUs that CUDA_VISIBLE_DEVICES names, as CUDA reads it: what follows -1 or nonsense is hidden.

    Returns:
        Their numbers and UUIDs, which a scheduler may have set for this job; None if the variable is not set.
    """
    if visible is None:
        return None
    names = map(str.strip, visible.split(","))
    return tuple(itertools.takewhile(lambda name: name.isdecimal() or name.startswith(("GPU-", "MIG-")), names))


def no_window() -> str:
    """Why nobody would see a game's window, in words; empty if it is seen, or if SDL_VIDEODRIVER wishes it unseen.

    SDL, which shows it, plays on invisibly where it cannot open a display.
    """
    wished, display, wayland = map(os.environ.get, ("SDL_VIDEODRIVER", "DISPLAY", "WAYLAND_DISPLAY"))
    driver = _sdl_driver()
    if driver is None:  # what it would do cannot be known
        return "" if display or wayland else "there is no display to play on"
    if driver and (driver not in _INVISIBLE or driver in (wished or "").lower().split(",")):
        return ""
    if wished:
        return f"SDL cannot show a window with SDL_VIDEODRIVER={wished}"
    if display:
        return f"no window can be opened on DISPLAY={display}"
    if wayland:
        return f"there is no X display to play on: WAYLAND_DISPLAY={wayland} needs Xwayland, and its DISPLAY"
    return "there is no display to play on"


def _sdl_driver() -> str | None:
    """The video driver that ale-py's SDL takes, "" if it finds none; None if SDL is not found."""
    package = importlib.util.find_spec("ale_py")
    folders = package.submodule_search_locations if package else []
    own = [str(path) for folder in folders for path in sorted(Path(folder).glob("libSDL2*"))]
    library = own[0] if own else ctypes.util.find_library("SDL2")
    if library is None:
        return None
    try:
        done = subprocess.run([sys.executable, "-c", _SDL_DRIVER, library], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=_SDL_TIMEOUT_S)  # fmt: skip
    except OSError:
        return None
    except subprocess.TimeoutExpired:
        return ""
    return done.stdout.strip()


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
def packages_told():
    """Tell in one line of packages that are there and cannot be loaded, errors of many kinds. Raises RunError."""
    try:
        yield
    except Exception as error:
        text = f"a package cannot be loaded: {problem(error)}; ./train-atari.py --task doctor tells which"
        raise RunError(text) from error


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
