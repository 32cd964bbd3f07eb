"""Files that are whole or not there, free names, and directories that one process at a time uses."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from a3c.errors import UsageError
from a3c.system.files import alone_in, free_name, make_writable, whole_file

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("mode", "content"), [("w", "new"), ("wb", b"new")])
def test_a_file_is_there_when_it_is_whole(tmp_path, mode, content):
    path = tmp_path / "a.json"
    path.write_text("old")
    with whole_file(path, mode) as file:
        file.write(content)
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_what_was_there_stays_if_writing_fails(tmp_path, error):
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(type(error)), whole_file(path) as file:  # noqa: PT012
        file.write("ne")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_other_files_of_like_names_stay(tmp_path):
    for name in ("a.tmp", "a.json.tmp", "a.unfinished"):
        (tmp_path / name).write_text("mine")
    with whole_file(tmp_path / "a.json") as file:
        file.write("new")
    assert {path.read_text() for path in tmp_path.iterdir() if path.name != "a.json"} == {"mine"}
    assert len(list(tmp_path.iterdir())) == 4


def test_a_free_name(tmp_path):
    path = tmp_path / "eval.md"
    assert free_name(path) == path
    path.touch()
    (tmp_path / "eval-1.md").symlink_to("nowhere")
    assert free_name(path) == tmp_path / "eval-2.md"


def test_a_directory_is_made_and_tried(tmp_path):
    make_writable(tmp_path / "a" / "b")
    make_writable(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


def refused_output(directory: Path) -> str:
    with pytest.raises(UsageError) as caught:
        make_writable(directory)
    assert str(caught.value).startswith(f"the output directory {directory} cannot be written (")
    assert str(caught.value).endswith("): name another with --output")
    return str(caught.value)


def not_permitted(*_, **__):
    raise PermissionError(errno.EACCES, "Permission denied")


def test_an_output_directory_that_cannot_be_is_told(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    (tmp_path / "loop").symlink_to("loop")
    assert "(File name too long)" in refused_output(tmp_path / ("x" * 300))
    for name in ("file", "link", "loop"):
        assert "(it is no directory)" in refused_output(tmp_path / name)
    assert "(Not a directory)" in refused_output(tmp_path / "file" / "run")
    assert "symbolic links" in refused_output(tmp_path / "loop" / "run")
    assert "/proc/none" in refused_output(Path("/proc/none/run"))
    monkeypatch.setattr(tempfile, "TemporaryFile", not_permitted)
    assert "(Permission denied)" in refused_output(tmp_path)  # it is there


HOLDER = """
import sys, time
from pathlib import Path
from a3c.system.files import alone_in
with alone_in(Path(sys.argv[1]), "train"):
    print("has it", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that has a directory to itself."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "has it\n"
        yield process
        process.kill()


def test_the_second_process_is_told_the_first(tmp_path, holder):
    with pytest.raises(UsageError, match=rf"in use by process {holder.pid} on .*--output"), alone_in(tmp_path, "train"):
        pytest.fail("it had it too")
    with alone_in(tmp_path, "eval"):  # another task may
        pass


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_lock_of_a_process_that_was_killed_does_not_matter(tmp_path, holder, number):
    holder.send_signal(number)
    holder.wait()
    assert [path.name for path in tmp_path.iterdir()] == [".train.lock"]
    with alone_in(tmp_path, "train"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_lock_ends_with_its_block(tmp_path):
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), alone_in(tmp_path, "train"):
            raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_of_many_that_come_and_go_only_one_is_in(tmp_path):
    """Each process takes the lock some hundred times; while it has it, it makes a file that must not be there yet."""
    code = """
import os, sys
from pathlib import Path
from a3c.errors import UsageError
from a3c.system.files import alone_in
directory, taken = Path(sys.argv[1]), 0
while taken < 200:
    try:
        with alone_in(directory, "train"):
            os.close(os.open(directory / "alone", os.O_CREAT | os.O_EXCL))
            os.unlink(directory / "alone")
            taken += 1
    except UsageError:
        pass
"""
    processes = [subprocess.Popen([sys.executable, "-c", code, tmp_path], cwd=ROOT) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]


def test_where_nothing_can_be_locked_work_goes_on(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", flock)
    with alone_in(tmp_path, "train"):
        pass
