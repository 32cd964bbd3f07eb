"""Other files than models: each is told by what it is."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import pickle
import tarfile
from pathlib import Path

from a3c.weights.model_file import read_model

import numpy as np
import pytest
from model_files import GOOD, STORED, assert_same_variables, npy_bytes, refusal, zip_bytes


def tar_bytes() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("Pong-v0.npz"))
    return buffer.getvalue()


OTHER_FILES = {
    "empty": (b"", "is empty"),
    "one array": (npy_bytes(np.zeros(3)), "a single NumPy array"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
    "gzip": (gzip.compress(STORED), "unpack"),
    "bzip2": (bz2.compress(STORED), "unpack"),
    "xz": (lzma.compress(STORED), "unpack"),
    "tar": (tar_bytes(), "unpack"),
    "pickle": (pickle.dumps(GOOD), "a pickle"),
    "old pickle": (pickle.dumps(GOOD, protocol=2), "a pickle"),
    "safetensors": ((40).to_bytes(8, "little") + b'{"a": {}}', "safetensors"),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "git lfs pull"),
    "page": (b"\n<!DOCTYPE html>\n<html><body>404</body></html>", "a web page"),
    "page with a mark": (b"\xef\xbb\xbf<html>", "a web page"),
    "storage's error": (b'<?xml version="1.0"?><Error><Code>NoSuchKey</Code></Error>', "a web page"),
    "JSON": (b'{"message": "not found"}', "a text"),
    "text in UTF-8": ("Modell für Pong\n".encode(), "a text"),
    "Stable-Baselines3": (zip_bytes({"data": b"{}", "policy.pth": b"PK"}), "Stable-Baselines3"),
    "PyTorch": (zip_bytes({"archive/data.pkl": b"", "archive/data/0": b""}), "PyTorch"),
    "Keras": (zip_bytes({"config.json": b"{}", "model.weights.h5": b""}), "Keras"),
    "models packed": (zip_bytes({"models/Pong-v0.npz": STORED}), "unpack"),
    "office": (zip_bytes({"word/document.xml": b""}), "not of NumPy arrays"),
}


@pytest.mark.parametrize("name", ["Pong-v0.npz", "model.pt", "download"])
@pytest.mark.parametrize(("content", "kind"), OTHER_FILES.values(), ids=OTHER_FILES)
def test_another_kind_of_file_is_told(tmp_path, name, content, kind):
    (tmp_path / name).write_bytes(content)
    assert kind in refusal(tmp_path / name)


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "Pong-v0.npz"


@pytest.mark.parametrize("content", [b"\x00\x01\x02" * 100, b"\x89", bytes(range(256))])
def test_an_unknown_kind_of_file_is_refused(file, content):
    file.write_bytes(content)
    assert "no readable .npz" in refusal(file)


def test_a_model_may_have_any_name(tmp_path):
    path = tmp_path / "Pong-v0.npz.1"
    path.write_bytes(STORED)
    assert_same_variables(read_model(str(path)).variables, GOOD)


def test_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        assert "a directory, a pipe or a device" in refusal(path)


@pytest.mark.skipif(os.getuid() == 0, reason="root may read all")
def test_a_file_that_may_not_be_read_is_refused(file):
    file.write_bytes(STORED)
    file.chmod(0)
    assert "Permission denied" in refusal(file)
