"""Fakes of what NVIDIA's software and TensorFlow say of GPUs, for machines without any."""

from __future__ import annotations

import types

BUILD = {  # as TensorFlow 2.21 tells it
    "is_cuda_build": True,
    "cuda_version": "12.5.1",
    "cudnn_version": "9",
    "cuda_compute_capabilities": ["sm_60", "sm_70", "sm_80", "sm_89", "compute_90"],
}


def fake_libraries(driver_cuda: int | None, cuda: int | None, cudnn: int | None):
    """A fake of ``ctypes.CDLL`` on a machine that has these libraries, by the numbers that they tell; None: not."""

    def tell(number: int):
        def function(pointer) -> int:
            pointer._obj.value = number
            return 0

        return function

    there = {
        "libcuda.so.1": driver_cuda and types.SimpleNamespace(cuDriverGetVersion=tell(driver_cuda)),
        "libcudart.so.12": cuda and types.SimpleNamespace(cudaRuntimeGetVersion=tell(cuda)),
        "libcudnn.so.9": cudnn and types.SimpleNamespace(cudnnGetVersion=lambda: cudnn),
    }

    def load(name: str):
        if not there.get(name):
            raise OSError(f"{name}: cannot open shared object file")
        return there[name]

    return load


def fake_devices(monkeypatch, *gpus: tuple[str, tuple[int, int]], build: dict | None = None) -> None:
    """Have TensorFlow list these GPUs, by names and compute capabilities."""
    import tensorflow as tf

    details = [{"device_name": name, "compute_capability": version} for name, version in gpus]
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: list(range(len(gpus))))
    monkeypatch.setattr(tf.config.experimental, "get_device_details", details.__getitem__)
    monkeypatch.setattr(tf.sysconfig, "get_build_info", lambda: BUILD if build is None else build)
