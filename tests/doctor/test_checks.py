"""What the doctor looks at: each check as it should be, at its boundary, and as it fails."""

from __future__ import annotations

import collections
import importlib.metadata
import os
import resource
import subprocess
import tempfile
import types

from a3c.config import Config
from a3c.doctor import checks
from a3c.doctor.checks import FAIL, OK, WARN
from a3c.errors import UsageError
from a3c.system import machine

import psutil
import pytest

CONFIG = Config().resolve(2, 0)  # 40 games in 4 simulators, and 4 more of an evaluation


def told(check: checks.Check, status: str, *words: str) -> None:
    """Check a check: its status, words of what it found and of its remedy; who has something to do is told what."""
    assert check.status == status, check
    assert bool(check.remedy) or status == OK
    for word in words:
        assert word in f"{check.found} | {check.remedy}", check


# packages


@pytest.fixture
def requirements(tmp_path):
    def write(text: str):
        path = tmp_path / "requirements.txt"
        path.write_text(text)
        return path

    return write


def test_the_packages_here_are_as_tested():
    assert checks.missing() == []
    (check,) = checks.packages()
    told(check, OK, "Python 3.", "TensorFlow 2.")


def test_a_missing_package_is_named(requirements):
    (check,) = checks.missing(requirements("# a comment\n\nnumpy>=1\nno-such-package>=2,<3\n"))
    told(check, FAIL, "no-such-package is not installed", "pip install 'no-such-package>=2,<3'")


def test_a_package_of_another_name_that_brings_the_module_is_told(requirements):
    text = requirements("numpy>=1\nmultiprocessing>=2\n")  # a module here, and no package
    assert checks.missing(text) == []
    (check,) = checks.packages(text)
    told(check, WARN, "multiprocessing is not installed, another package brings its module")


def test_a_version_out_of_range_is_told_with_the_range(requirements):
    version = importlib.metadata.version("numpy")
    (check,) = checks.packages(requirements("psutil>=1\nnumpy>=1,<1.5\nno-such-package\n"))
    told(check, FAIL, "the suite needs numpy<1.5,>=1", f"{version} is installed", "pip install 'numpy<1.5,>=1'")


def test_what_packages_need_of_others_is_looked_at(requirements, monkeypatch):
    needs = ["psutil>=1", "psutil>999", "no-such-package", 'other; extra == "all"', 'other; python_version < "3"']
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: needs)
    old, absent = checks.packages(requirements("numpy>=1\n"))
    told(old, FAIL, "numpy needs psutil>999", importlib.metadata.version("psutil"), "pip install 'psutil>999'")
    told(absent, FAIL, "numpy needs no-such-package", "nothing is installed")


@pytest.mark.parametrize("text", ["numpy", "numpy>=1", "numpy >= 1", "numpy[x]>=1", "numpy; python_version > '3'"])
def test_a_requirement_is_known_by_its_name(requirements, text):
    assert checks.missing(requirements(text)) == []
    assert checks.absent(requirements(text)) == []


def test_each_required_package_has_its_module(requirements):
    checks.load()
    assert checks.absent() == []
    assert checks.absent(requirements("numpy>=1\nno-such-package\n")) == ["no-such-package"]


@pytest.mark.parametrize("text", ["raise ImportError('libx.so: no such file\\nmore')", "raise OSError", "def", "1 / 0"])
def test_a_package_that_cannot_be_loaded_is_named(requirements, text, tmp_path, monkeypatch):
    (tmp_path / "broken_package.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RuntimeError, match=r"^broken-package: .+$"):
        checks.load(requirements("numpy\nbroken-package>=1\n"))


# the game


def test_a_game_plays():
    told(checks.game("Pong-v0"), OK, "Pong-v0 plays", "6 actions")


def test_a_game_whose_rom_is_gone(monkeypatch):
    def fail(*_):
        raise OSError("no ROM\nin many lines")

    monkeypatch.setattr("atari_wrapper.make_player", fail)
    told(checks.game("Pong-v0"), FAIL, "Pong-v0 does not play: no ROM", "--force-reinstall")


def test_an_unknown_game_is_the_users_error():
    with pytest.raises(UsageError, match="Breakout-v0"):
        checks.game("Breakot-v0")


# GPUs

GPUS = {  # --gpu, seen by TensorFlow, listed by the driver, CUDA_VISIBLE_DEVICES: what is told
    "one": (None, ["H100"], ["GPU 0"], None, OK, ["H100"]),
    "those asked for": ("0,1", ["A", "B"], ["GPU 0", "GPU 1"], None, OK, ["A, B"]),
    "none": (None, [], "", None, OK, ["no NVIDIA driver"]),
    "none, hidden": (None, [], "", "", OK, ["no NVIDIA driver"]),
    "none, asked for": ("0", [], "", None, FAIL, ["--gpu 0, but TensorFlow sees 0", "leave --gpu out"]),
    "driver fails": (None, [], "nvidia-smi fails: mismatch", None, WARN, ["mismatch", "restart"]),
    "driver fails, asked for": ("0", [], "nvidia-smi fails: mismatch", None, FAIL, ["mismatch", "restart"]),
    "hidden": (None, [], ["GPU 0"], "", WARN, ["CUDA_VISIBLE_DEVICES='' hides", "unset CUDA_VISIBLE_DEVICES"]),
    "hidden, asked for": ("0", [], ["GPU 0"], "", FAIL, ["CUDA_VISIBLE_DEVICES='' hides", "unset"]),
    "hidden by -1": (None, [], ["GPU 0"], "-1,0", WARN, ["CUDA_VISIBLE_DEVICES='-1,0' hides", "unset"]),
    "hidden by a scheduler": ("0", [], ["GPU 0"], "NoDevFiles", FAIL, ["'NoDevFiles' hides", "unset"]),
    "no CUDA": (None, [], ["GPU 0"], None, WARN, ["cannot use", "tensorflow[and-cuda]>=2.21,<2.22"]),
    "no CUDA, in a job": (None, [], ["GPU 0"], "0", WARN, ["cannot use", "tensorflow[and-cuda]"]),
    "no CUDA, a job's second": ("1", [], 8 * ["GPU"], "5,GPU-ab", FAIL, ["cannot use", "tensorflow[and-cuda]"]),
    "more than the job has": ("0,2", ["A"], 8 * ["GPU"], "5,6", FAIL, ["='5,6' has 2, from 0 to 1", "others"]),
    "given up": ("-1", [], ["GPU 0"], None, OK, ["--gpu -1: the CPU"]),
    "given up, none": ("-1", [], "", "", OK, ["--gpu -1: the CPU"]),
    "fewer than asked for": ("0,1", ["A"], ["GPU 0"], None, FAIL, ["sees 1", "lists 1, from 0 to 0", "--gpu"]),
    "the last one": ("1", [], ["GPU 0", "GPU 1"], None, FAIL, ["cannot use"]),
}


@pytest.mark.parametrize("case", GPUS)
def test_gpu(case):
    asked, seen, listed, visible, status, words = GPUS[case]
    told(checks.gpu(Config(gpu=asked), seen, listed, visible), status, *words)


@pytest.mark.parametrize(
    ("program", "listed"),
    [
        (None, ""),
        ("echo 'GPU 0: H100 (UUID: x)'; echo '  MIG 1g'", ["GPU 0: H100 (UUID: x)"]),
        ("echo nothing", "nvidia-smi lists no GPU"),
        ("echo 'cannot talk to the driver'; exit 9", "nvidia-smi fails: cannot talk to the driver"),
    ],
)
def test_what_the_driver_lists(program, listed, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    if program is not None:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{program}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
    elif checks.shutil.which("nvidia-smi"):
        pytest.skip("there is an NVIDIA driver")
    assert checks.listed_gpus() == listed


def test_a_driver_that_hangs(monkeypatch):
    def hang(*_, timeout, **__):
        raise subprocess.TimeoutExpired("nvidia-smi", timeout)

    monkeypatch.setattr(checks.shutil, "which", lambda _: "nvidia-smi")
    monkeypatch.setattr(subprocess, "run", hang)
    assert "timed out" in checks.listed_gpus()


# display, prctl


def test_a_display_that_opens(monkeypatch):
    monkeypatch.setattr(machine, "no_window", lambda: "")
    monkeypatch.setenv("DISPLAY", ":7")
    told(checks.display(), OK, "DISPLAY=:7")


def test_a_display_that_does_not(monkeypatch):
    monkeypatch.setattr(machine, "no_window", lambda: "no window can be opened on DISPLAY=:7")
    told(checks.display(), WARN, "no window can be opened on DISPLAY=:7", "--task dump_video", "--watch PORT")


def test_processes_die_with_their_parent_here():
    told(checks.prctl(), OK, "prctl")


def test_prctl_that_does_nothing(monkeypatch):
    monkeypatch.setattr(checks, "_ORPHAN_TIMEOUT_S", 1.0)
    script = checks.ORPHAN.replace("die_with_parent(parent)", "pass").replace("sleep(6)", "sleep(3)")
    assert script.count("pass") == script.count("sleep(3)") == 1
    told(checks.prctl(script), FAIL, "a process has outlived its parent", "allow prctl")


def test_prctl_that_fails():
    script = checks.ORPHAN.replace("die_with_parent(parent)", "raise OSError('prctl is forbidden')")
    told(checks.prctl(script), FAIL, "prctl is forbidden", "allow prctl")


# limits


@pytest.mark.parametrize(
    ("soft", "hard", "status", "remedy"),
    [
        (144, 144, OK, ""),
        (143, 144, FAIL, "ulimit -n 144"),
        (143, 143, FAIL, "lower --simulator-proc"),
        (143, resource.RLIM_INFINITY, FAIL, "ulimit -n 144"),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, OK, ""),
    ],
)
def test_open_files(soft, hard, status, remedy, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", {resource.RLIMIT_NOFILE: (soft, hard)}.get)
    told(checks.files(CONFIG, 2), status, "144 are needed for 4 simulators", remedy)


@pytest.mark.parametrize(
    ("room", "soft", "user", "status"),
    [
        (float("inf"), resource.RLIM_INFINITY, 1, OK),
        (64, resource.RLIM_INFINITY, 1, OK),
        (63, resource.RLIM_INFINITY, 1, FAIL),
        (float("inf"), 64 + 5, 1, OK),
        (float("inf"), 64 + 4, 1, FAIL),
        (float("inf"), 3, 0, OK),  # root is not bound by it
    ],
)
def test_processes(room, soft, user, status, monkeypatch):
    def process(owner, threads):
        uids = None if owner is None else types.SimpleNamespace(real=owner)
        return types.SimpleNamespace(info={"uids": uids, "num_threads": threads})

    me = os.getuid()
    others = [process(me + 1, 1000), process(None, None)]
    monkeypatch.setattr(psutil, "process_iter", lambda _: [process(me, 2), *others, process(me, 3)])
    monkeypatch.setattr(machine, "cgroup_room", {"pids": room}.get)
    monkeypatch.setattr(resource, "getrlimit", {resource.RLIMIT_NPROC: (soft, soft)}.get)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    told(checks.processes(CONFIG, 2), status, "64 are needed", "" if status == OK else "ulimit -u")


@pytest.mark.parametrize(
    ("available", "room", "status"), [(3e9, float("inf"), OK), (1e9, 3e9, FAIL), (3e9, 1e9, FAIL), (3e9, 3e9, OK)]
)
def test_memory(available, room, status, monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: types.SimpleNamespace(available=available))
    monkeypatch.setattr(machine, "cgroup_room", {"memory": room}.get)
    told(checks.memory(CONFIG, 2), status, f"{min(available, room) / 1e9:.1f} GB free", "2.0 GB")


def test_memory_grows_with_the_games_and_the_pool(monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: types.SimpleNamespace(available=3e9))
    told(checks.memory(Config(num_envs=400).resolve(2, 0), 2), FAIL, "--num-envs")
    told(checks.memory(Config(pool_states=25_600).resolve(2, 0), 2), FAIL, "--pool-states")


# cores


@pytest.mark.parametrize(
    ("there", "allowed", "usable", "words"),
    [
        (2, 2, 2, ["2 usable"]),
        (None, 2, 2, ["2 usable"]),
        (8, 2, 2, ["2 usable of the machine's 8", "affinity"]),
        (8, 8, 3, ["3 usable of the machine's 8", "quota"]),
    ],
)
def test_cores(there, allowed, usable, words, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: there)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(allowed)))
    monkeypatch.setattr(machine, "usable_cores", lambda: usable)
    monkeypatch.setattr(machine, "core_seconds", lambda: (5.0, 9.0))
    (check,) = checks.cores(0)
    told(check, OK, *words)
    assert ("machine" in check.found) == (usable < (there or usable))


@pytest.mark.parametrize(
    ("usable", "worked", "loaded"),
    [
        (2, 0.0, False),  # also where the kernel does not tell
        (2, 0.5, False),
        (2, 0.51, True),
        (1, 1.25, False),  # a quota of one of two cores: the other one is free
        (1, 1.26, True),
    ],
)
def test_load(usable, worked, loaded, monkeypatch):
    clock, seconds = iter([10.0, 12.0]), iter([(7.0, 20.0), (7.0 + 2 * worked, 24.0)])
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(machine, "usable_cores", lambda: usable)
    monkeypatch.setattr(machine, "core_seconds", lambda: next(seconds))
    monkeypatch.setattr(checks, "time", types.SimpleNamespace(perf_counter=lambda: next(clock), sleep=lambda _: None))
    _, *load = checks.cores(0)
    assert len(load) == loaded
    for check in load:
        told(check, WARN, f"{worked:.1f} of 2 cores", "end other programs")


# directories


def test_sockets(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    told(checks.sockets(), OK, str(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("length", "status"), [(70, OK), (71, FAIL)])
def test_the_sockets_path_may_have_107_bytes(length, status, monkeypatch):
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        place = os.path.join(directory, "x" * (length - len(directory) - 1))
        os.mkdir(place)
        monkeypatch.setattr(tempfile, "tempdir", place)
        monkeypatch.setenv("TMPDIR", place)
        assert len(f"{place}/train-atari-sockets-12345678/actions") == 107 + (status == FAIL)
        told(checks.sockets(), status, place, "" if status == OK else "export TMPDIR=/tmp")


def test_sockets_where_nothing_can_be_written(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    told(checks.sockets(), FAIL, "No such file", "TMPDIR")


def test_where_no_directory_can_be_used_none_of_them_is_the_remedy(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/missing/tmp"])
    told(checks.sockets(), FAIL, "No usable temporary directory found in ['/missing/tmp']", "export TMPDIR=DIRECTORY")


@pytest.fixture
def free(monkeypatch):
    """Set the bytes that disks have free."""
    usage = collections.namedtuple("Usage", "free")
    return lambda size: monkeypatch.setattr(checks.shutil, "disk_usage", lambda _: usage(size))


def test_output_and_the_room_for_its_checkpoints(tmp_path, free):
    weights = 1_000_000
    config = Config(output=(str(tmp_path / "new" / "run"),), max_to_keep=9)
    needed = 200e6 + 10 * 12 * weights
    for size, status in ((needed, OK), (needed - 1, FAIL)):
        free(size)
        told(checks.output(config, weights), status, "0.3 GB", "" if status == OK else "--max-to-keep")
    assert list(tmp_path.iterdir()) == []


def test_output_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    told(checks.output(Config(output=(str(tmp_path / "file" / "run"),)), 1), FAIL, "file cannot be written", "--output")
    told(checks.output(Config(output=("/proc/none/run",)), 1), FAIL, "/proc cannot be written", "--output")
    told(checks.output(Config(output=("x" * 300,)), 1), FAIL, "File name too long", "--output")
