"""What NVIDIA's driver says of the GPUs, by its program nvidia-smi. Only the standard library is imported."""

from __future__ import annotations

import subprocess
from typing import NamedTuple

_FIELDS = ("name", "driver_version", "compute_cap", "memory.total", "memory.used", "utilization.gpu")
QUERY = ("nvidia-smi", f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits")
_TIMEOUT_S = 20.0
_MIB = 1 << 20


class Gpu(NamedTuple):
    """A GPU at one moment; None stands for what the driver does not tell.

    Attributes:
        name: of the card.
        driver: the driver's version.
        capability: CUDA's compute capability, major and minor.
        memory_bytes, used_bytes: of its memory.
        busy: share of the last moments in which it worked on anything, from 0 to 1.
    """

    name: str
    driver: str
    capability: tuple[int, int] | None
    memory_bytes: int | None
    used_bytes: int | None
    busy: float | None


def query() -> list[Gpu]:
    """The GPUs that the driver lists; none if there is no driver, or it fails."""
    try:
        done = subprocess.run(QUERY, capture_output=True, text=True, timeout=_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return parse(done.stdout) if done.returncode == 0 else []


def parse(text: str) -> list[Gpu]:
    """The GPUs that the lines of ``QUERY`` are of; a line that was cut is left out."""
    rows = ([part.strip() for part in line.split(",")] for line in text.splitlines())
    return [_gpu(*row) for row in rows if len(row) == len(_FIELDS)]


def _gpu(name: str, driver: str, capability: str, memory: str, used: str, busy: str) -> Gpu:
    major, _, minor = capability.partition(".")
    known = major.isdecimal() and minor.isdecimal()
    percent = _number(busy)
    return Gpu(
        name,
        driver,
        (int(major), int(minor)) if known else None,
        _bytes(memory),
        _bytes(used),
        None if percent is None else percent / 100,
    )


def _bytes(mib: str) -> int | None:
    number = _number(mib)
    return None if number is None else number * _MIB


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() else None  # else it is "[N/A]", in brackets


def smallest_bytes(gpus: list[Gpu]) -> int | None:
    """The memory of the smallest GPU, as CUDA may number them otherwise than the driver; None if it is not known."""
    return min((gpu.memory_bytes for gpu in gpus if gpu.memory_bytes), default=None)
