"""What ``--task doctor`` looks at where there is a GPU: driver, libraries, kernels, memory, and whether it computes.

Tested with a fake driver and a fake list of devices only. As a program it is the process that convolves: what goes
wrong on a GPU may end the process, or hang.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from a3c.acting_defaults import STATE_BYTES
from a3c.config import NO_GPU, Config
from a3c.doctor.checks import FAIL, OK, WARN, Check, tensorflow_versions
from a3c.errors import first_line, problem
from a3c.system.gpu import Gpu
from a3c.system.machine import PIP, named_gpus
from a3c.system.processes import start_program

Version = tuple[int, ...]
_CONVOLUTION_TIMEOUT_S = 120.0  # kernels may have to be compiled first
_MOST_ERROR = 0.01  # of the largest number: TensorFloat-32, which newer GPUs compute with, has 10 bits
_BLACKWELL = (12, 0)  # and newer: what TensorFlow 2.21 was seen to fail on
_CONTEXT_BYTES = 500e6
_LEARNED_STATES = 3  # as much memory as this many inferred states: the gradients need what the layers gave


class Libraries(NamedTuple):
    """Versions of what is there; None stands for what is not, or cannot be loaded.

    Attributes:
        driver_cuda: the newest CUDA that the driver runs.
        cuda: the CUDA runtime.
        cudnn: cuDNN.
    """

    driver_cuda: Version | None
    cuda: Version | None
    cudnn: Version | None


def look(config: Config, cards: list[Gpu], num_gpus: int) -> list[Check]:
    """Check the GPUs that a run would use, or why TensorFlow uses none of those that there are.

    Args:
        config: the resolved configuration.
        cards: what the driver lists.
        num_gpus: what TensorFlow sees of those asked for.
    """
    import tensorflow as tf

    if config.gpu == NO_GPU or not (cards or num_gpus):
        return []
    build = dict(tf.sysconfig.get_build_info())
    found = [] if num_gpus == 0 else [convolution(f"/GPU:{number}") for number in range(num_gpus)]
    works = bool(found) and all(check.status == OK for check in found)
    # What should not work and does is only told; nor must a GPU work that nobody asked for and the CPU stands in for.
    bad = WARN if works or (num_gpus == 0 and not config.gpu_ids) else FAIL
    libraries = libraries_there(build)
    details = [tf.config.experimental.get_device_details(gpu) for gpu in tf.config.list_physical_devices("GPU")]
    seen = {(gpu["device_name"], gpu["compute_capability"]) for gpu in details if "compute_capability" in gpu}
    seen = seen or {(card.name, card.capability) for card in cards if card.capability}
    built = build.get("cuda_compute_capabilities", [])
    return [
        driver(cards, libraries.driver_cuda, build, bad),
        cuda(libraries, build, bad),
        *(capability(name, tuple(version), built, bad) for name, version in sorted(seen)),
        *(memory(card, config) for card in chosen(cards, os.environ.get("CUDA_VISIBLE_DEVICES")) if num_gpus),
        *found,
    ]


def chosen(cards: list[Gpu], visible: str | None) -> list[Gpu]:
    """The cards of CUDA_VISIBLE_DEVICES, by their numbers; all of them where it does not tell."""
    names = named_gpus(visible) or ()
    numbers = [int(name) for name in names if name.isdecimal() and int(name) < len(cards)]
    return [cards[number] for number in numbers] if numbers else cards


def driver(cards: list[Gpu], runs: Version | None, build: dict, bad: str) -> Check:
    """Whether the driver runs the CUDA that TensorFlow was built for.

    Args:
        cards: what the driver lists.
        runs: the newest CUDA that it runs; older ones run too.
        build: of ``tf.sysconfig.get_build_info``.
        bad: the status of a check that fails.
    """
    wanted = _version(build.get("cuda_version", ""))
    name = f"version {cards[0].driver}" if cards else "nvidia-smi lists no GPU"
    if not wanted:
        return Check("driver", OK, name)
    text = f"{name}, runs CUDA up to {_text(runs)}; TensorFlow was built for {_text(wanted)}"
    if runs is None:
        return Check("driver", bad, f"{name}; its library libcuda.so.1 cannot be loaded", "reinstall NVIDIA's driver")
    if runs[0] < wanted[0]:
        return Check("driver", bad, text, f"install a newer driver, one for CUDA {wanted[0]}")
    return Check("driver", OK, text)


def cuda(there: Libraries, build: dict, bad: str) -> Check:
    """Whether CUDA and cuDNN are those that TensorFlow was built for, by their first number."""
    remedy = f"{PIP} 'tensorflow[and-cuda]{tensorflow_versions()}'"
    if not build.get("is_cuda_build"):
        return Check("CUDA", bad, "this TensorFlow was built without CUDA", remedy)
    pairs = {"CUDA": ("cuda_version", there.cuda), "cuDNN": ("cudnn_version", there.cudnn)}
    wanted = {name: _version(build.get(key, "")) for name, (key, _) in pairs.items()}
    found = {name: version for name, (_, version) in pairs.items()}
    text = (
        f"TensorFlow was built for {' and '.join(f'{name} {_text(wanted[name])}' for name in pairs)}; "
        f"there is {' and '.join(f'{name} {_text(found[name])}' for name in pairs)}"
    )
    fits = all(found[name] and found[name][:1] == wanted[name][:1] for name in pairs)
    return Check("CUDA", OK, text) if fits else Check("CUDA", bad, text, remedy)


def capability(name: str, version: Version, built: list[str], bad: str) -> Check:
    """Whether TensorFlow has kernels for a GPU.

    Args:
        name: of the GPU.
        version: its compute capability.
        built: what the kernels were built for: ``sm_XY`` runs on X.Y and later ones of the same X; ``compute_XY``
            does too, and can be compiled for all that is newer.
        bad: the status of a check that fails.
    """
    text = f"{name} has compute capability {_text(version)}; kernels were built for {', '.join(built) or 'none'}"
    kinds = [(kind, (int(number[:-1]), int(number[-1]))) for kind, _, number in (item.partition("_") for item in built)]
    if any(kernel[0] == version[0] and kernel <= version for _, kernel in kinds):
        return Check("kernels", OK, text)
    others = "name another GPU with --gpu, or train on the CPU with --gpu -1"
    if version >= _BLACKWELL:
        known = "TensorFlow 2.21 is known to fail on it with CUDA_ERROR_INVALID_HANDLE (tensorflow #97387)"
        remedy = f"{others}; a TensorFlow built from source for compute_{version[0]}{version[1]} would have kernels"
        return Check("kernels", bad, f"{text}: {known}", remedy)
    if any(kind == "compute" and kernel <= version for kind, kernel in kinds):
        remedy = f"wait half an hour at the first start; if it fails then, {others}"
        return Check("kernels", WARN, f"{text}: they are compiled for it at the first start", remedy)
    return Check("kernels", bad, f"{text}: none of them runs on it", others)


def memory(card: Gpu, config: Config) -> Check:
    """Whether a GPU has enough memory for a run; what that needs is computed, not measured."""
    if card.memory_bytes is None or card.used_bytes is None:
        return Check("GPU memory", OK, "the driver does not tell")
    inferred = config.predictor_thread_per_gpu * config.predict_batch_size
    needed = _CONTEXT_BYTES + STATE_BYTES * (_LEARNED_STATES * config.batch_size + inferred)
    free = min(card.memory_bytes - card.used_bytes, card.memory_bytes // 2)
    text = (
        f"{card.name}: {card.memory_bytes / 1e9:,.1f} GB, {card.used_bytes / 1e9:,.1f} GB in use; a run may take half, "
        f"and needs about {needed / 1e9:,.1f} GB (computed)"
    )
    if free >= needed:
        return Check("GPU memory", OK, text)
    return Check("GPU memory", WARN, text, "end other programs on it, or lower --batch-size and --predict-batch-size")


def convolution(device: str) -> Check:
    """Whether a convolution's result on a device is the CPU's, in a process of its own."""
    process = start_program("a3c.doctor.gpus", device, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        out, errors = process.communicate(timeout=_CONVOLUTION_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return _broken(device, f"did not end in {_CONVOLUTION_TIMEOUT_S:.0f} s")
    finally:
        process.kill()
        process.communicate()
    if process.returncode != 0:  # native libraries end a process where they cannot go on
        lines = [line for line in errors.splitlines() if line.strip()]
        return _broken(device, f"ended with status {process.returncode}: {lines[-1] if lines else 'it says nothing'}")
    found = json.loads(out.splitlines()[-1])
    return compared(device, found["error"]) if "error" in found else _broken(device, f"failed: {found['failure']}")


def compared(device: str, error: float) -> Check:
    """What a convolution's error on a device means, as a share of the largest number in the CPU's result."""
    text = f"{device}: a convolution differs from the CPU's by {error:.1g} of its largest number"
    if not error <= _MOST_ERROR:  # nor is it a number
        return Check("convolution", FAIL, text, _REMEDY)
    return Check("convolution", OK, text)


_REMEDY = "put right what is said of driver, CUDA and kernels, or train on the CPU with --gpu -1"


def _broken(device: str, why: str) -> Check:
    return Check("convolution", FAIL, f"{device}: a convolution {first_line(why)}", _REMEDY)


def libraries_there(build: dict, load: Callable[[str], ctypes.CDLL] = ctypes.CDLL) -> Libraries:
    """The versions of the libraries that TensorFlow would load.

    Args:
        build: of ``tf.sysconfig.get_build_info``: the libraries' names have the numbers that it was built for.
        load: opens a library by its name or path. Raises OSError.
    """

    def opened(library: str) -> ctypes.CDLL | None:
        for path in [*_packaged(library), library]:
            with contextlib.suppress(OSError):
                return load(path)
        return None

    def cuda_version(library: str, function: str) -> Version | None:
        opened_library, number = opened(library), ctypes.c_int()
        if opened_library is None or getattr(opened_library, function)(ctypes.byref(number)) != 0:
            return None
        return (number.value // 1000, number.value % 1000 // 10)

    def cudnn_version(library: str) -> Version | None:
        if (opened_library := opened(library)) is None:
            return None
        number = opened_library.cudnnGetVersion()
        unit = 10_000 if number >= 90_000 else 1000  # since cuDNN 9
        return (number // unit, number % unit // 100, number % 100)

    first = {key: build.get(f"{key}_version", "").partition(".")[0] for key in ("cuda", "cudnn")}
    return Libraries(
        cuda_version("libcuda.so.1", "cuDriverGetVersion"),
        cuda_version(f"libcudart.so.{first['cuda']}", "cudaRuntimeGetVersion"),
        cudnn_version(f"libcudnn.so.{first['cudnn']}"),
    )


def _packaged(library: str) -> list[str]:
    """Where the packages of ``tensorflow[and-cuda]`` have a library; the linker does not look there."""
    spec = importlib.util.find_spec("nvidia")
    folders = (spec.submodule_search_locations or []) if spec else []
    return [str(path) for folder in folders for path in Path(folder).glob(f"*/lib/{library}")]


def _version(text: str) -> Version:
    return tuple(map(int, re.findall(r"\d+", text)))


def _text(version: Version | None) -> str:
    return ".".join(map(str, version)) if version else "none"


def _convolve(device: str) -> float:
    """The largest difference between a convolution's result on a device and on the CPU, by the largest number."""
    import numpy as np
    import tensorflow as tf

    tf.config.set_soft_device_placement(False)  # else the CPU stands in for what is not there
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)  # others may use it
    rng = np.random.default_rng(0)
    images, weights = rng.random((16, 84, 84, 12), np.float32), rng.standard_normal((5, 5, 12, 32), np.float32)

    def result(where: str) -> np.ndarray:
        with tf.device(where):
            return tf.nn.conv2d(tf.constant(images), tf.constant(weights), 1, "SAME").numpy()

    expected = result("/CPU:0")
    return float(np.abs(result(device) - expected).max() / np.abs(expected).max())


if __name__ == "__main__":
    try:
        told = {"error": _convolve(sys.argv[1])}
    except Exception as exception:
        told = {"failure": problem(exception)}
    print(json.dumps(told), flush=True)
