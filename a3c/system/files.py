"""Files that are whole or not there, names that nothing has yet, and directories that one process at a time may use."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from a3c.errors import UsageError


@contextlib.contextmanager
def whole_file(path: Path, mode: str = "w") -> Iterator[IO]:
    """Open a file that takes the place of ``path`` when the block ends; if it fails, what was there stays.

    Raises:
        OSError: it cannot be written.
    """
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        with open(unfinished, mode, newline="" if "b" not in mode else None) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise


def free_name(path: Path) -> Path:
    """A path that nothing has: this one, or the same with ``-1``, ``-2`` ... before its suffix."""
    number, free = 0, path
    while os.path.lexists(free):
        number += 1
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return free


@contextlib.contextmanager
def output_errors_told(directory: Path) -> Iterator[None]:
    """Tell in one line that an output directory cannot be looked into, made or written to. Raises UsageError."""
    try:
        yield
    except OSError as error:
        reason = "it is no directory" if isinstance(error, FileExistsError) else error.strerror or error
        raise UsageError(
            f"the output directory {directory} cannot be written ({reason}): name another with --output"
        ) from None


def make_writable(directory: Path) -> None:
    """Make a directory, and find out whether files can be written there. Raises UsageError: they cannot."""
    with output_errors_told(directory):
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory) as probe:
            probe.write(bytes(1 << 12))
            probe.flush()
            os.fsync(probe.fileno())


@contextlib.contextmanager
def output_directory(directory: Path, task: str) -> Iterator[None]:
    """Make a directory that can be written, and have this task in it to ourselves. Raises UsageError."""
    make_writable(directory)
    with alone_in(directory, task):
        yield


@contextlib.contextmanager
def alone_in(directory: Path, task: str) -> Iterator[None]:
    """Be the only process that does this task in a directory, which exists.

    The kernel frees the lock when we end, however that happens: one that a killed process left behind does not matter.

    Raises:
        UsageError: another process does it; the text has its id.
    """
    path = directory / f".{task}.lock"
    try:
        lock = _locked(path)
    except BlockingIOError:
        raise UsageError(
            f"{directory} is in use by process {_owner(path)}: wait until it ends, or name another directory with "
            "--output"
        ) from None
    except OSError:  # a file system without locks, or one that is not writable
        lock = None
    if lock is None:
        yield
        return
    with lock:
        lock.truncate(0)
        lock.write(f"{os.getpid()} on {socket.gethostname()}\n")
        lock.flush()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                path.unlink()


def _locked(path: Path) -> IO:
    """The file, opened and locked. Raises BlockingIOError if another process has the lock."""
    while True:
        lock = open(path, "a+")  # noqa: SIM115  it is held
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise
        # The one before may have removed it between the two calls: then the lock is of a file that nobody else sees.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock.fileno()), path.stat()):
                return lock
        lock.close()


def _owner(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text().strip() or "that has just started"
    return "that has just ended"
