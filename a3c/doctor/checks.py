"""What ``--task doctor`` looks at besides speed: each function finds one thing out and returns a ``Check``.

The first check is whether the packages are there, so none is needed to import this file.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import math
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from a3c.config import NO_GPU, Config
from a3c.errors import UsageError, first_line, problem
from a3c.system.machine import PIP

OK, WARN, FAIL = "ok", "warn", "FAIL"
_HERE = Path(__file__).resolve().parents[2]
REQUIREMENTS = _HERE / "requirements.txt"

# What a run needs, beside what its flags ask for; measured on two cores.
_FILES, _FILES_PER_SIMULATOR = 128, 2
_THREADS, _THREADS_PER_CORE, _THREADS_PER_SIMULATOR = 32, 4, 3
_MEMORY_BYTES, _MEMORY_PER_SIMULATOR_BYTES, _MEMORY_PER_GAME_BYTES = 1.1e9, 15e6, 1.3e6
_DISK_BYTES = 200e6  # events, logs, models
_CHECKPOINT_BYTES_PER_WEIGHT = 12  # the weight and two moments, float32
_EVALUATION_GAMES = 8  # of each of its simulators

# Its grandchild ends with its child, or else holds standard output open for some seconds.
ORPHAN = """
import os, time
from a3c.system.processes import die_with_parent
parent, (ready, tell) = os.getpid(), os.pipe()
if os.fork() == 0:
    die_with_parent(parent)
    os.write(tell, b".")
    time.sleep(6)
    os._exit(0)
os.close(tell)
os._exit(0 if os.read(ready, 1) else 1)
"""
_ORPHAN_TIMEOUT_S = 4.0


class Check(NamedTuple):
    """What was looked at.

    Attributes:
        name: one word.
        status: OK, WARN or FAIL.
        found: in words.
        remedy: what to do about it; empty if there is nothing to do.
    """

    name: str
    status: str
    found: str
    remedy: str = ""


def missing(requirements: Path = REQUIREMENTS) -> list[Check]:
    """The required packages that are not installed: nothing goes on without them."""
    wanted = _read(requirements)
    names = absent(requirements)
    if not _installed("packaging"):  # TensorFlow's, with which versions are compared
        names.append("packaging")
    return [Check("packages", FAIL, f"{name} is not installed", f"{PIP} '{wanted.get(name, name)}'") for name in names]


def packages(requirements: Path = REQUIREMENTS) -> list[Check]:
    """The versions of the installed packages, against those tested together and what the packages themselves need."""
    from packaging.requirements import Requirement

    wanted = [Requirement(text) for name, text in _read(requirements).items() if _installed(name)]
    needs = [("the suite", requirement) for requirement in wanted]
    for package in wanted:
        all_needs = map(Requirement, importlib.metadata.requires(package.name) or [])
        needs += [(package.name, need) for need in all_needs if not need.marker or need.marker.evaluate({"extra": ""})]
    wrong = []
    for who, need in needs:
        found = _installed(need.name)
        if found is None or not need.specifier.contains(found, prereleases=True):
            text = f"{who} needs {need.name}{need.specifier}, {found or 'nothing'} is installed"
            wrong.append(Check("packages", FAIL, text, f"{PIP} '{need.name}{need.specifier}'"))
    others, gone = [], absent(requirements)
    for name, requirement in _read(requirements).items():
        if not (name in gone or _installed(name)):
            text = f"{name} is not installed, another package brings its module {module_of(name)}"
            remedy = f"if something fails, uninstall that one and type {PIP} '{requirement}'"
            others.append(Check("packages", WARN, text, remedy))
    text = f"Python {sys.version.split()[0]}, TensorFlow {_installed('tensorflow')}; all {len(wanted)} as tested"
    return wrong + others or [Check("packages", OK, text)]


def load(requirements: Path = REQUIREMENTS) -> None:
    """Load the required packages. Raises RuntimeError with the name of the first that fails; others may need it."""
    for name in _read(requirements):
        try:
            importlib.import_module(module_of(name))
        except Exception as error:
            raise RuntimeError(f"{name}: {problem(error)}") from error


def absent(requirements: Path = REQUIREMENTS) -> list[str]:
    """The required packages that cannot be imported; a package of another name may have brought the module."""
    return [name for name in _read(requirements) if not importlib.util.find_spec(module_of(name))]


def module_of(package: str) -> str:
    """The module that a required package is imported by."""
    return {"opencv-python-headless": "cv2", "pyzmq": "zmq"}.get(package, package.replace("-", "_"))


def _installed(name: str) -> str | None:
    """The version of a package; None if it is not there, or what is left of it does not tell."""
    try:
        return importlib.metadata.version(name)
    except (importlib.metadata.PackageNotFoundError, KeyError, TypeError, OSError, UnicodeError):
        return None


def _read(requirements: Path) -> dict[str, str]:
    """The requirements, by the names of their packages."""
    lines = map(str.strip, requirements.read_text().splitlines())
    return {re.match(r"[\w.-]+", line)[0]: line for line in lines if line and not line.startswith("#")}


def game(env_id: str) -> Check:
    """Whether the game's ROM is there and plays. Raises UsageError: there is no such game."""
    try:
        from atari_wrapper import get_protocol, make_player

        protocol = get_protocol(env_id)
        player = make_player(env_id)
        player.reset(seed=0)
        player.step(0)
        player.close()
    except UsageError:
        raise
    except Exception as error:
        text = f"{env_id} does not play: {problem(error)}"
        return Check("game", FAIL, text, f"{PIP} --force-reinstall --no-deps ale-py gymnasium, in the versions tested")
    return Check("game", OK, f"{env_id} plays, with {len(protocol.actions)} actions")


def listed_gpus() -> list[str] | str:
    """The GPUs that NVIDIA's driver lists, or why it lists none."""
    if not shutil.which("nvidia-smi"):
        return ""
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"nvidia-smi fails: {first_line(error)}"
    if done.returncode != 0:
        return f"nvidia-smi fails: {first_line(done.stdout or done.stderr)}"
    return [line for line in done.stdout.splitlines() if line.startswith("GPU ")] or "nvidia-smi lists no GPU"


def gpu(config: Config, seen: list[str], listed: list[str] | str, visible: str | None) -> Check:
    """Whether TensorFlow sees the GPUs that it should, or why not.

    Args:
        config: ``gpu_ids`` are those asked for.
        seen: the names of the GPUs that TensorFlow sees.
        listed: as of ``listed_gpus``.
        visible: CUDA_VISIBLE_DEVICES as it was given.
    """
    from a3c.system.machine import named_gpus

    if config.gpu == NO_GPU:
        return Check("gpu", OK, f"--gpu {NO_GPU}: the CPU does it all")
    asked = len(config.gpu_ids)
    if seen and len(seen) >= asked:
        return Check("gpu", OK, f"TensorFlow sees {', '.join(seen)}")
    missing = FAIL if asked else WARN
    prefix = f"--gpu {config.gpu}, but TensorFlow sees {len(seen)}: " if asked else "none: "
    if listed == "":
        remedy = "leave --gpu out, or install NVIDIA's driver, until nvidia-smi works" if asked else ""
        return Check("gpu", FAIL if asked else OK, f"{prefix}there is no NVIDIA driver, the CPU does it all", remedy)
    if isinstance(listed, str):
        return Check("gpu", missing, prefix + listed, "reinstall NVIDIA's driver or restart, until nvidia-smi works")
    last = max(config.gpu_ids, default=0)
    if visible is not None and last >= (count := len(named_gpus(visible))):
        text = f"has {count}, from 0 to {count - 1}" if count else "hides all"
        remedy = "name others with --gpu" if count else "unset CUDA_VISIBLE_DEVICES"
        return Check("gpu", missing, f"{prefix}CUDA_VISIBLE_DEVICES={visible!r} {text}", remedy)
    if visible is None and last >= len(listed):
        text = f"{prefix}nvidia-smi lists {len(listed)}, from 0 to {len(listed) - 1}"
        return Check("gpu", FAIL, text, "name others with --gpu")
    text = f"{prefix}the driver lists {len(listed)}, but this TensorFlow cannot use them"
    return Check("gpu", missing, text, f"{PIP} 'tensorflow[and-cuda]{tensorflow_versions()}'")


def tensorflow_versions() -> str:
    """The versions of TensorFlow that the suite was tested with, as pip takes them."""
    return _read(REQUIREMENTS)["tensorflow"].removeprefix("tensorflow")


def display() -> Check:
    """Whether a window of ``--task play`` can be opened, by opening the display."""
    from a3c.system.machine import no_window

    if reason := no_window():
        remedy = "record videos with --task dump_video, or watch in a browser with --watch PORT"
        return Check("display", WARN, f"{reason}: --task play shows nothing", remedy)
    names = ("SDL_VIDEODRIVER", "DISPLAY", "WAYLAND_DISPLAY")
    given = [f"{name}={os.environ[name]}" for name in names if os.environ.get(name)]
    return Check("display", OK, " ".join(given) or "the console")


def prctl(script: str = ORPHAN) -> Check:
    """Whether a process really dies with its parent, as the simulators shall with the learner."""
    try:
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=_HERE,
                              timeout=_ORPHAN_TIMEOUT_S)  # fmt: skip
        problem = "" if done.returncode == 0 else (done.stderr.splitlines() or ["it failed"])[-1]
    except subprocess.TimeoutExpired:
        problem = "a process has outlived its parent"
    if problem:
        remedy = "allow prctl where this runs, if a sandbox forbids it; remove any package prctl but python-prctl"
        return Check("prctl", FAIL, f"{problem}: simulators could be left behind", remedy)
    by = "python-prctl" if importlib.util.find_spec("prctl") else "ctypes, which does python-prctl's work"
    return Check("prctl", OK, f"processes die with their parent, by {by}")


def simulators(config: Config, cores: int) -> int:
    """How many simulator processes a run has at the most: those that train, and those of an evaluation."""
    return config.simulator_proc + 2 * cores


def files(config: Config, cores: int) -> Check:
    """Whether as many files and sockets may be open as the learner's process needs."""
    needed = _FILES + _FILES_PER_SIMULATOR * simulators(config, cores)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft, hard = (math.inf if limit == resource.RLIM_INFINITY else limit for limit in (soft, hard))
    text = f"{soft:,} may be open, {needed:,} are needed for {config.simulator_proc} simulators"
    if soft >= needed:
        return Check("files", OK, text)
    if hard >= needed:
        return Check("files", FAIL, text, f"ulimit -n {needed}")
    return Check("files", FAIL, text, f"have the administrator raise the limit, or lower --simulator-proc ({hard:,} is "
                                      "the most that ulimit -n allows)")  # fmt: skip


def processes(config: Config, cores: int) -> Check:
    """Whether as many processes and threads may be started as a run has."""
    from a3c.system.machine import cgroup_room

    import psutil

    needed = _THREADS + _THREADS_PER_CORE * cores + _THREADS_PER_SIMULATOR * simulators(config, cores)
    room = cgroup_room("pids")
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if soft != resource.RLIM_INFINITY and os.geteuid() != 0:  # which does not bind root
        mine = psutil.process_iter(["uids", "num_threads"])
        used = sum(p.info["num_threads"] or 0 for p in mine if p.info["uids"] and p.info["uids"].real == os.getuid())
        room = min(room, soft - used)
    left = "any number" if room == math.inf else f"{max(0, room):,} more"
    text = f"{left} may be started, {needed:,} are needed, threads included"
    if room >= needed:
        return Check("processes", OK, text)
    return Check("processes", FAIL, text, "raise ulimit -u or the container's limit of pids, or lower --simulator-proc")


def memory(config: Config, cores: int) -> Check:
    """Whether there is enough memory for a run."""
    from a3c.system.machine import cgroup_room
    from atari_wrapper import STATE_SHAPE

    import psutil

    # Two pools, one filled while the other is learned from.
    states = config.num_envs * (config.local_time_max + 1) + 2 * config.pool_states
    states += config.queue_size * config.batch_size
    games = config.num_envs + 2 * cores * _EVALUATION_GAMES
    needed = _MEMORY_BYTES + states * math.prod(STATE_SHAPE) + games * _MEMORY_PER_GAME_BYTES
    needed += simulators(config, cores) * _MEMORY_PER_SIMULATOR_BYTES
    free = min(psutil.virtual_memory().available, cgroup_room("memory"))
    text = f"{free / 1e9:,.1f} GB free, a run needs about {needed / 1e9:,.1f} GB"
    if free >= needed:
        return Check("memory", OK, text)
    return Check("memory", FAIL, text, "end other programs, or lower --num-envs, --simulator-proc and --pool-states")


def cores(seconds: float) -> list[Check]:
    """How many cores this process may use, and whether others use them now."""
    from a3c.system.machine import core_seconds, usable_cores

    allowed, usable = len(os.sched_getaffinity(0)), usable_cores()
    there = os.cpu_count() or usable
    why = ""
    if usable < there:
        why = f" of the machine's {there}: " + (
            "the CPU quota of the cgroup allows no more" if usable < allowed else "the CPU affinity allows no more"
        )
    found = [Check("cores", OK, f"{usable} usable{why}")]
    (before, _), start = core_seconds(), time.perf_counter()
    time.sleep(seconds)
    taken = (core_seconds()[0] - before) / (time.perf_counter() - start)
    if taken > allowed - usable + 0.25 * usable:
        text = f"others keep {taken:.1f} of {allowed} cores busy: the speeds below are too low"
        found.append(Check("load", WARN, text, "end other programs, and call doctor again"))
    return found


def sockets() -> Check:
    """Whether sockets can be made where a run makes its own, and whether their path is short enough."""
    from a3c.simulation.master import DIRECTORY_PREFIX

    try:
        with tempfile.TemporaryDirectory(prefix=DIRECTORY_PREFIX) as directory, socket.socket(socket.AF_UNIX) as probe:
            probe.bind(os.path.join(directory, "actions"))
    except OSError as error:
        place = os.environ.get("TMPDIR", "the directory for temporary files")
        tried = tempfile.tempdir in (None, "/tmp")  # None: it was among several, of which none can be used
        remedy = f"export TMPDIR={'DIRECTORY, one that can be written' if tried else '/tmp'}"
        return Check("sockets", FAIL, f"cannot be made in {place}: {error.strerror or error}", remedy)
    return Check("sockets", OK, f"can be made in {os.path.dirname(directory)}")


def output(config: Config, weights: int) -> Check:
    """Whether the output directory can be written and has room for a run's checkpoints of so many weights."""
    directory = Path(config.directory)
    place = directory.absolute()
    try:
        while not place.exists() and place != place.parent:
            place = place.parent
        with tempfile.TemporaryFile(dir=place):
            pass
        free = shutil.disk_usage(place).free
    except OSError as error:
        return Check("output", FAIL, f"{place} cannot be written: {error.strerror}", "name another with --output")
    needed = _DISK_BYTES + (config.max_to_keep + 1) * _CHECKPOINT_BYTES_PER_WEIGHT * weights
    text = f"{directory}: {free / 1e9:,.1f} GB free, a run needs about {needed / 1e9:,.1f} GB"
    if free >= needed:
        return Check("output", OK, text)
    return Check("output", FAIL, text, "free some, lower --max-to-keep, or name a directory elsewhere with --output")
