"""What a (fake) driver says of its GPUs."""

from __future__ import annotations

import subprocess

from a3c.system import gpu

import pytest
from drivers import BLACKWELL, H100, fake_driver

MIB = 1 << 20


@pytest.fixture
def driver(monkeypatch):
    def install(*gpus: str, failure: str = "") -> None:
        for name, value in fake_driver(*gpus, failure=failure).items():
            monkeypatch.setenv(name, value)

    return install


def test_gpus_with_all_that_the_driver_says(driver):
    driver(H100, BLACKWELL)
    h100, other = gpu.query()
    assert h100 == ("NVIDIA H100", "560.35.03", (9, 0), 81559 * MIB, 512 * MIB, 0.37)
    assert (other.name, other.capability) == ("NVIDIA RTX 5090", (12, 0))
    assert gpu.smallest_bytes([h100, other]) == 32607 * MIB


def test_what_the_driver_does_not_say_is_not_known(driver):
    driver("NVIDIA H200 MIG 1g.18gb, 560.35.03, [N/A], [N/A], [Not Supported], [N/A]")
    (found,) = gpu.query()
    assert found[2:] == (None,) * 4
    assert gpu.smallest_bytes([found]) is None
    assert gpu.smallest_bytes([]) is None


@pytest.mark.parametrize("failure", ["No devices were found", "cannot talk to the driver"])
def test_a_driver_that_fails_lists_none(failure, driver):
    driver(H100, failure=failure)
    assert gpu.query() == []


def test_without_a_driver_there_are_none(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu.query() == []


def test_a_driver_that_hangs_lists_none(monkeypatch):
    def hang(*_, timeout, **__):
        raise subprocess.TimeoutExpired("nvidia-smi", timeout)

    monkeypatch.setattr(subprocess, "run", hang)
    assert gpu.query() == []


def test_a_line_that_was_cut_is_left_out():
    assert gpu.parse(f"{H100}\nNVIDIA H100, 560.35.03, 9") == gpu.parse(H100)
