"""Checkpoints by their names, and what is in them. TensorFlow, which takes seconds, is loaded when one is read.

TensorFlow writes a checkpoint under temporary names and its index last: without an index there is none.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from a3c.errors import UsageError, first_line
from a3c.system.machine import packages_told, quiet_stderr

import numpy as np

NAME = "model"
# All names that TensorFlow's saver writes for a step.
_FILE = re.compile(rf"{NAME}-(\d+)\.(?:index|data-\d{{5}}-of-\d{{5}})(\.tempstate\d+)?")
# What TensorFlow's readers take for a pattern, and tensorpack for the end of a checkpoint's name.
_MISREAD = re.compile(r"[*?\[\]\\]|\.index|\.data-")


def saved_steps(directory: Path) -> list[int]:
    """The global steps of a directory's checkpoints, rising."""
    return sorted(step for path, step in checkpoint_files(directory) if path.suffix == ".index")


def checkpoint_files(directory: Path) -> Iterator[tuple[Path, int | None]]:
    """The files of a directory's checkpoints, with their steps; None for what a save that was killed has left."""
    for path in directory.glob(f"{NAME}-*"):
        match = _FILE.fullmatch(path.name)
        if match and path.is_file():
            yield path, int(match[1]) if match[2] is None else None


@contextlib.contextmanager
def plain_name(prefix: str) -> Iterator[str]:
    """A checkpoint's name that its readers take as it is, while the block runs, whatever its directory's name.

    Raises:
        UsageError: the checkpoint's own name is a pattern.
    """
    directory, name = os.path.split(os.path.abspath(prefix))
    if _MISREAD.search(name):
        raise UsageError(f"TensorFlow takes the checkpoint's name {prefix} for a pattern: rename its files")
    if not _MISREAD.search(directory):
        yield prefix
        return
    descriptor = os.open(directory, os.O_PATH)
    try:
        yield f"/proc/self/fd/{descriptor}/{name}"
    finally:
        os.close(descriptor)


def newest_whole(directory: Path) -> str | None:
    """Find the newest checkpoint that can be read to its end; None if there is none at all.

    Raises:
        UsageError: there are some, but none of them is whole.
    """
    steps = saved_steps(directory)
    if not steps:
        return None
    load_checkpoint = _reader()
    for step in reversed(steps):
        prefix = str(directory / f"{NAME}-{step}")
        try:
            with plain_name(prefix) as name:
                reader = load_checkpoint(name)
                for variable in reader.get_variable_to_shape_map():
                    reader.get_tensor(variable)  # its checksum is verified
            return prefix
        except Exception as error:  # TensorFlow's reader raises many kinds
            from tensorpack.utils import logger

            logger.warn(f"checkpoint {prefix} is not whole ({first_line(error)}): the one before is tried")
    raise UsageError(
        f"none of the {len(steps)} checkpoints in {directory} is whole: take another copy, or start anew with another "
        "--output"
    )


def read_variables(prefix: str, names: Collection[str]) -> dict[str, np.ndarray]:
    """Read those variables of a checkpoint that have one of these names.

    Raises:
        UsageError: it cannot be read, or its own name is a pattern.
    """
    load_checkpoint = _reader()
    with plain_name(prefix) as readable:
        try:
            reader = load_checkpoint(readable)
            return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map() if name in names}
        except Exception as error:  # TensorFlow's reader raises many kinds, IndexError for data that is cut
            raise UsageError(f"{prefix} is no readable checkpoint ({first_line(error)})") from None


def _reader() -> Callable:
    """TensorFlow's function that opens a checkpoint. Raises RunError if TensorFlow cannot be loaded."""
    with packages_told(), quiet_stderr():
        import tensorflow as tf
    return tf.train.load_checkpoint
