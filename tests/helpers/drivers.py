"""A machine with NVIDIA's driver, of which only the fake program is there."""

from __future__ import annotations

import os
from pathlib import Path

DRIVER = Path(__file__).resolve().parents[1] / "fakes" / "fake_driver"
H100 = "NVIDIA H100, 560.35.03, 9.0, 81559, 512, 37"
BLACKWELL = "NVIDIA RTX 5090, 570.00, 12.0, 32607, 512, 0"


def fake_driver(*gpus: str, failure: str = "") -> dict[str, str]:
    """The variables of an environment in which the fake program is found, and lists these GPUs."""
    path = os.pathsep.join([str(DRIVER), os.environ["PATH"]])
    return {"PATH": path, "FAKE_GPUS": "\n".join(gpus), "FAKE_FAILURE": failure}
