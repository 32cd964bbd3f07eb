"""What the doctor says of GPUs: with a fake driver, fake libraries and a fake list of devices. No GPU was there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from a3c.config import Config
from a3c.doctor import gpus
from a3c.doctor.checks import FAIL, OK, WARN, Check
from a3c.doctor.gpus import Libraries, capability, chosen, compared, convolution, cuda, driver, libraries_there, memory
from a3c.system.gpu import parse

import pytest
from drivers import BLACKWELL, H100
from fake_nvidia import BUILD, fake_devices, fake_libraries

ROOT = Path(__file__).resolve().parents[2]
(CARD,) = parse(H100)
(NEWEST,) = parse(BLACKWELL)
RIGHT = Libraries((12, 6), (12, 5), (9, 3, 0))
WITHOUT_CUDA = {"is_cuda_build": False, "cuda_compute_capabilities": []}
CONFIG = Config(gpu="0").resolve(12, 1, CARD.memory_bytes)


def told(check: Check, status: str, *words: str) -> None:
    """Check a check: its status, words of what it found and of its remedy; who has something to do is told what."""
    assert check.status == status, check
    assert bool(check.remedy) == (status != OK)
    for word in words:
        assert word in f"{check.found} | {check.remedy}", check


# driver and libraries

LIBRARIES = {  # the numbers that the libraries tell: versions
    "cuDNN 9": ((12060, 12050, 90300), ((12, 6), (12, 5), (9, 3, 0))),
    "cuDNN 8": ((11080, 12010, 8907), ((11, 8), (12, 1), (8, 9, 7))),
    "none": ((None, None, None), (None, None, None)),
    "no cuDNN": ((13000, 12050, None), ((13, 0), (12, 5), None)),
}


@pytest.mark.parametrize("case", LIBRARIES)
def test_versions_of_the_libraries_that_tensorflow_would_load(case, monkeypatch):
    numbers, versions = LIBRARIES[case]
    monkeypatch.setattr(gpus, "_packaged", lambda library: [f"no/such/{library}"])
    assert libraries_there(BUILD, fake_libraries(*numbers)) == versions


def test_the_packages_libraries_come_first(monkeypatch, tmp_path):
    (tmp_path / "cudnn" / "lib").mkdir(parents=True)
    library = tmp_path / "cudnn" / "lib" / "libcudnn.so.9"
    library.touch()
    (tmp_path / "nvidia.py").touch()
    spec = type("Spec", (), {"submodule_search_locations": [str(tmp_path)]})
    monkeypatch.setattr(gpus.importlib.util, "find_spec", lambda name: spec)
    assert gpus._packaged("libcudnn.so.9") == [str(library)]
    assert gpus._packaged("libcudart.so.12") == []


@pytest.mark.parametrize("status", [WARN, FAIL])
def test_driver(status):
    told(driver([CARD], (12, 5), BUILD, status), OK, "560.35.03", "CUDA up to 12.5", "built for 12.5.1")
    told(driver([CARD], (13, 0), BUILD, status), OK, "up to 13.0")
    told(driver([CARD], (11, 8), BUILD, status), status, "up to 11.8", "a newer driver, one for CUDA 12")
    told(driver([CARD], None, BUILD, status), status, "libcuda.so.1 cannot be loaded", "reinstall")
    told(driver([CARD], (12, 5), WITHOUT_CUDA, status), OK, "560.35.03")
    told(driver([], (12, 5), BUILD, status), OK, "nvidia-smi lists no GPU")


@pytest.mark.parametrize("status", [WARN, FAIL])
def test_cuda_and_cudnn(status):
    built = "built for CUDA 12.5.1 and cuDNN 9; there is"
    told(cuda(RIGHT, BUILD, status), OK, f"{built} CUDA 12.5 and cuDNN 9.3.0")
    told(cuda(RIGHT._replace(cuda=(13, 0)), BUILD, status), status, f"{built} CUDA 13.0", "tensorflow[and-cuda]>=2.21")
    told(cuda(RIGHT._replace(cudnn=(8, 9, 7)), BUILD, status), status, "and cuDNN 8.9.7", "tensorflow[and-cuda]")
    told(cuda(RIGHT._replace(cudnn=None), BUILD, status), status, "CUDA 12.5 and cuDNN none", "tensorflow[and-cuda]")
    told(cuda(RIGHT, WITHOUT_CUDA, status), status, "built without CUDA", "tensorflow[and-cuda]")


# kernels

CAPABILITIES = {  # compute capability: status when it does not work, words
    (5, 2): (FAIL, ["5.2", "none of them runs on it", "--gpu -1"]),
    (6, 0): (OK, ["6.0", "sm_60, sm_70, sm_80, sm_89, compute_90"]),
    (6, 1): (OK, []),
    (7, 5): (OK, []),
    (8, 6): (OK, []),
    (9, 0): (OK, []),
    (10, 0): (WARN, ["compiled for it at the first start", "half an hour"]),
    (12, 0): (FAIL, ["TensorFlow 2.21 is known to fail", "CUDA_ERROR_INVALID_HANDLE", "compute_120", "--gpu -1"]),
}


@pytest.mark.parametrize("version", CAPABILITIES)
def test_compute_capability(version):
    status, words = CAPABILITIES[version]
    told(capability("H100", version, BUILD["cuda_compute_capabilities"], FAIL), status, *words)
    told(capability("H100", version, BUILD["cuda_compute_capabilities"], WARN), OK if status == OK else WARN)


@pytest.mark.parametrize("version", [(8, 0), (10, 0)])
def test_kernels_of_binaries_alone_run_on_their_generation_only(version):
    told(capability("A", version, ["sm_70", "sm_90"], FAIL), FAIL, "none of them runs on it")


def test_a_build_without_kernels():
    told(capability("A", (8, 0), [], FAIL), FAIL, "built for none")


# memory

MIB = 1 << 20


@pytest.mark.parametrize(
    ("total", "used", "status"), [(80_000, 500, OK), (80_000, 79_000, WARN), (4_000, 0, WARN), (6_000, 500, OK)]
)
def test_memory(total, used, status):
    card = CARD._replace(memory_bytes=total * MIB, used_bytes=used * MIB)
    words = ["--batch-size"] if status == WARN else []
    told(memory(card, CONFIG), status, f"{total * MIB / 1e9:,.1f} GB", "2.4 GB (computed)", *words)


def test_memory_that_is_not_told():
    told(memory(CARD._replace(memory_bytes=None), CONFIG), OK, "does not tell")


@pytest.mark.parametrize(
    ("visible", "numbers"),
    [("1", [1]), ("2,0", [2, 0]), (None, [0, 1, 2]), ("GPU-abc", [0, 1, 2]), ("7", [0, 1, 2]), ("1,GPU-abc", [1])],
)
def test_memory_is_that_of_the_cards_that_the_run_takes(visible, numbers):
    cards = [CARD._replace(name=f"card {number}") for number in range(3)]
    assert [card.name for card in chosen(cards, visible)] == [f"card {number}" for number in numbers]
    told(memory(cards[1], CONFIG), OK, "card 1: ")


# convolution


@pytest.mark.parametrize(("error", "status"), [(0.0, OK), (0.01, OK), (0.011, FAIL), (float("nan"), FAIL)])
def test_a_convolution_has_the_cpus_result(error, status):
    told(compared("/GPU:0", error), status, "/GPU:0")


WRONG = """
import tensorflow as tf
from a3c.doctor import gpus
right, factors = tf.nn.conv2d, iter([1.0, 1.25])
tf.nn.conv2d = lambda *args: right(*args) * next(factors)
print(gpus._convolve("/CPU:0"))
"""


@pytest.mark.long
def test_a_result_that_is_wrong_is_seen():
    done = subprocess.run([sys.executable, "-c", WRONG], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert float(done.stdout.split()[-1]) == pytest.approx(0.25), done.stderr


@pytest.mark.long
def test_a_convolution_on_a_device():
    told(convolution("/CPU:0"), OK, "differs from the CPU's by 0")
    told(convolution("/GPU:7"), FAIL, "/GPU:7", "failed", "Could not satisfy")


def test_a_convolution_that_hangs_leaves_nobody(monkeypatch, tmp_path):
    monkeypatch.setattr(gpus, "_CONVOLUTION_TIMEOUT_S", 0.05)
    started = []
    start = gpus.start_program
    monkeypatch.setattr(gpus, "start_program", lambda *a, **o: started.append(start(*a, **o)) or started[-1])
    told(convolution("/CPU:0"), FAIL, "did not end in 0 s")
    assert started[0].poll() is not None


# all of it


@pytest.fixture
def machine_with(monkeypatch):
    """A machine by what TensorFlow sees and whether it computes; all libraries are there."""

    def setting(*seen: tuple[str, tuple[int, int]], works: bool = True, libraries: Libraries = RIGHT) -> None:
        fake_devices(monkeypatch, *seen)
        monkeypatch.setattr(gpus, "libraries_there", lambda build: libraries)
        monkeypatch.setattr(gpus, "convolution", lambda device: compared(device, 0.0 if works else 1.0))

    return setting


def statuses(*args) -> dict[str, str]:
    return {check.name: check.status for check in gpus.look(*args)}


def test_a_gpu_that_works(machine_with):
    machine_with(("H100", (9, 0)))
    names = ("driver", "CUDA", "kernels", "GPU memory", "convolution")
    assert statuses(CONFIG, [CARD], 1) == dict.fromkeys(names, OK)


def test_a_blackwell_fails_and_if_it_works_after_all_that_is_only_told(machine_with):
    machine_with(("RTX 5090", (12, 0)), works=False)
    found = statuses(CONFIG, [NEWEST], 1)
    assert (found["kernels"], found["convolution"]) == (FAIL, FAIL)
    machine_with(("RTX 5090", (12, 0)))
    found = statuses(CONFIG, [NEWEST], 1)
    assert (found["kernels"], found["convolution"]) == (WARN, OK)


def test_each_gpu_that_is_used_convolves(machine_with):
    machine_with(("H100", (9, 0)), ("T4", (7, 5)))
    found = gpus.look(CONFIG, [CARD, CARD], 2)
    assert [check.found[:6] for check in found if check.name == "convolution"] == ["/GPU:0", "/GPU:1"]
    assert sum(check.name == "kernels" for check in found) == 2


@pytest.mark.parametrize(("asked", "status"), [(None, WARN), ("0", FAIL)])
def test_why_tensorflow_sees_none_is_told_by_the_drivers_list(asked, status, machine_with):
    machine_with(works=False, libraries=RIGHT._replace(cudnn=None))
    found = statuses(Config(gpu=asked).resolve(2, 0), [NEWEST], 0)
    assert found == {"driver": OK, "CUDA": status, "kernels": status}


def test_without_gpus_there_is_nothing_to_look_at(machine_with):
    machine_with()
    assert statuses(Config().resolve(2, 0), [], 0) == {}
    assert statuses(Config(gpu="-1").resolve(2, 0), [CARD], 0) == {}
