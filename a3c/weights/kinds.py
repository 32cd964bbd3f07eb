"""What a file is, told by its bytes: for a user who named another file than a model."""

from __future__ import annotations

import codecs
import zipfile

_BEGINNINGS = {
    b"\x93NUMPY": "a single NumPy array (.npy)",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file, such as Keras writes",
    b"\x1f\x8b": "compressed with gzip (unpack it first)",
    b"BZh": "compressed with bzip2 (unpack it first)",
    b"\xfd7zXZ\x00": "compressed with xz (unpack it first)",
    b"\x28\xb5\x2f\xfd": "compressed with zstd (unpack it first)",
    b"\x80\x02": "a pickle, such as PyTorch and Python write",
    b"\x80\x03": "a pickle, such as PyTorch and Python write",
    b"\x80\x04": "a pickle, such as PyTorch and Python write",
    b"\x80\x05": "a pickle, such as PyTorch and Python write",
    b"version https://git-lfs": "a Git LFS pointer and not the file itself (git lfs pull fetches that)",
}
_PAGES = (b"<!doctype", b"<html", b"<head", b"<?xml")
# Of a member of a zip archive, the last part of its name.
_MEMBERS = {
    "policy.pth": "a model of Stable-Baselines3",
    "data.pkl": "a file of PyTorch",
    "model.weights.h5": "a model of Keras",
}
_BEGINNING_BYTES = 1024
_TABLE_END = bytes.fromhex("57fb808b247547db")  # of TensorFlow's tables


def kind_of_file(path: str) -> str | None:
    """Tell what a file is if it is surely no archive of NumPy arrays; None if it may be one.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        beginning = file.read(_BEGINNING_BYTES)
    if not beginning:
        return "empty"
    if beginning.startswith(b"PK"):
        return _kind_of_archive(path)
    for magic, kind in _BEGINNINGS.items():
        if beginning.startswith(magic):
            return kind
    if beginning[257:262] == b"ustar":
        return "a tar archive (unpack it first)"
    if beginning[8:9] == b"{" and int.from_bytes(beginning[:8], "little") < 1 << 30:
        return "a safetensors file"
    if beginning.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_PAGES):
        return "a web page and not the file itself (download it again)"
    return "a text" if _is_text(beginning) else None


def _is_text(beginning: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(beginning)  # its last character may be cut
    except UnicodeDecodeError:
        return False
    return all(byte >= 32 or byte in b"\t\n\r\f" for byte in beginning)


def _kind_of_archive(path: str) -> str | None:
    names = archive_members(path)
    if not names or any(name.endswith(".npy") for name in names):
        return None
    ends = {name.rpartition("/")[2] for name in names}
    if any(end.endswith(".npz") for end in ends):
        return "a zip archive with .npz files in it (unpack it first)"
    return next((kind for end, kind in _MEMBERS.items() if end in ends), "a zip archive, but not of NumPy arrays")


def archive_members(path: str) -> list[str] | None:
    """The names in a zip archive; None if it is none, or damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except Exception:  # zipfile raises many kinds for what is damaged
        return None


def is_table(path: str) -> bool:
    """Whether a file is one of TensorFlow's tables: a checkpoint's index, or a whole checkpoint as of before 2017."""
    try:
        with open(path, "rb") as file:
            file.seek(-len(_TABLE_END), 2)
            return file.read() == _TABLE_END
    except OSError:  # also of one that is shorter
        return False
