"""Which GPUs a run sees: those of ``--gpu``, within the ones that a scheduler has given it."""

from __future__ import annotations

import os

from a3c.config import Config
from a3c.flags import parse_args
from a3c.learning import devices
from a3c.learning.devices import Devices, usable_gpus, visible_gpus

import pytest
import tensorflow as tf

CHOICES = {  # --gpu, CUDA_VISIBLE_DEVICES: what TensorFlow is shown
    "the first": (None, None, "0"),
    "one": ("1", None, "1"),
    "several": ("2,0", None, "2,0"),
    "none": ("-1", None, ""),
    "the first of a job": (None, "2,3", "2"),
    "one of a job": ("0", "2,3", "2"),
    "another of a job": ("1", "2,3", "3"),
    "all of a job, turned": ("1,0", "2,3", "3,2"),
    "more than a job has": ("0,1,2", "2,3", "2,3"),
    "none that a job has": ("2", "2,3", ""),
    "by name": ("1", "GPU-ab,MIG-cd", "MIG-cd"),
    "hidden": (None, "", ""),
    "hidden, asked for": ("0", "", ""),
    "hidden by -1": ("0", "-1", ""),
    "behind -1": ("0,1", "3,-1,4", "3"),
    "a job without": ("0", "NoDevFiles", ""),
    "none of a job": ("-1", "2,3", ""),
}


@pytest.fixture
def machine_of(monkeypatch):
    """Set a machine's number of GPUs and how CUDA_VISIBLE_DEVICES was given."""

    def setting(gpus: int, visible: str | None) -> None:
        def seen(kind: str) -> list[str]:
            shown = os.environ["CUDA_VISIBLE_DEVICES"]
            return shown.split(",")[:gpus] if shown else []

        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # is put back at the end
        monkeypatch.setattr(devices, "_CUDA_VISIBLE_DEVICES", visible)
        monkeypatch.setattr(tf.config, "list_physical_devices", seen)

    return setting


@pytest.mark.parametrize("case", CHOICES)
def test_visible_gpus(case, machine_of):
    gpu, visible, shown = CHOICES[case]
    machine_of(8, visible)
    for _ in range(2):  # each model of an evaluation asks
        assert visible_gpus(gpu) == len(list(filter(None, shown.split(","))))
        assert os.environ["CUDA_VISIBLE_DEVICES"] == shown


@pytest.mark.parametrize(
    ("gpu", "gpus", "visible", "words"),
    [
        (None, 0, None, []),
        ("-1", 0, None, []),
        ("-1", 2, "4,5", []),
        ("0,1", 2, None, []),
        ("0,1", 1, None, ["--gpu 0,1: TensorFlow sees 1 GPU(s). It goes on"]),
        ("0,1", 8, "5", ["--gpu 0,1: TensorFlow sees 1 GPU(s) within CUDA_VISIBLE_DEVICES=5. It goes on"]),
        ("0", 8, "", ["TensorFlow sees 0 GPU(s) within CUDA_VISIBLE_DEVICES=."]),
    ],
)
def test_gpus_that_are_not_there_are_told(gpu, gpus, visible, words, machine_of, monkeypatch):
    machine_of(gpus, visible)
    lines = []
    monkeypatch.setattr(devices.logger, "warn", lines.append)
    usable_gpus(Config(gpu=gpu))
    assert len(lines) == len(words)
    assert all(word in line for word, line in zip(words, lines, strict=True))


def test_without_gpus_the_cpu_infers_and_trains(machine_of, tmp_path):
    machine_of(2, None)
    config = Config(gpu="-1", output=(str(tmp_path),))
    assert Devices.split(max(usable_gpus(config), len(config.gpu_ids))) == Devices((0,), (-1,))
    assert config.resolve(2, usable_gpus(config)).network == "small"
    (tmp_path / "config.json").write_text(config.as_json())
    assert parse_args(["--resume", "--output", str(tmp_path)]).gpu == "-1"
    assert parse_args(["--resume", "--output", str(tmp_path), "--gpu", "0"]).gpu_ids == (0,)
