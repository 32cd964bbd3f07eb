"""Small networks' weights, good and bad files of them, and how a bad one is refused."""

from __future__ import annotations

import io
import zipfile

from a3c.errors import UsageError
from a3c.policy.networks import NETWORKS
from a3c.weights.model_file import read_model
from atari_wrapper import FRAME_SHAPE

import numpy as np
import pytest

ACTIONS = ("NOOP", "FIRE", "RIGHT", "LEFT")


def small_variables(num_actions=4, seed=0) -> dict[str, np.ndarray]:
    r = np.random.default_rng(seed)
    shapes = NETWORKS["small"].variable_shapes(num_actions)
    variables = {name: r.normal(0, 0.05, shape).astype(np.float32) for name, shape in shapes.items()}
    mean, scale = r.uniform(0, 255, FRAME_SHAPE).astype(np.float32), np.array(60, np.float32)
    return variables | {"input/mean": mean, "input/scale": scale}


def nature_variables() -> dict[str, np.ndarray]:
    return {name: np.full(shape, 0.05, np.float32) for name, shape in NETWORKS["nature"].variable_shapes(4).items()}


def assert_same_variables(got: dict, expected: dict) -> None:
    assert set(got) == set(expected)
    for name, value in expected.items():
        assert got[name].dtype == np.float32
        np.testing.assert_array_equal(got[name], value)


def refusal(path) -> str:
    with pytest.raises(UsageError) as raised:
        read_model(str(path))
    text = str(raised.value)
    assert "\n" not in text
    assert str(path) in text
    return text


GOOD = small_variables()


def npz_bytes() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **GOOD)
    return buffer.getvalue()


def zip_bytes(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def npy_bytes(array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


STORED = npz_bytes()
