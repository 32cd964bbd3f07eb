"""The directory of a master's sockets: private, and removed with it or by the next."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

from a3c.errors import UsageError
from a3c.simulation.master import SimulatorMaster
from a3c.simulation.nursery import Nursery

import pytest
from fake_games import COUNTING, read_fake_frame
from masters import receive, send
from processes import descendants

ROOT = Path(__file__).resolve().parents[2]


# The directory and the end.


def test_directory_is_private_and_removed(start):
    master, nursery = start((1, 1))
    receive(master)
    address = nursery.specs[0]["address"]
    assert stat.S_IMODE(os.stat(address).st_mode) == 0o700
    assert sorted(os.listdir(address)) == ["actions", "lock", "steps"]
    assert {spec["address"] for spec in nursery.specs} == {address}
    assert len(descendants()) == 3
    master.close()
    assert not os.path.exists(address)
    assert descendants() == []


@pytest.fixture
def short_directory(monkeypatch):
    """For temporary files, as ``tmp_path``, but with a name that leaves a socket's path room."""
    with tempfile.TemporaryDirectory(prefix="t") as directory:
        monkeypatch.setattr(tempfile, "tempdir", directory)
        yield Path(directory)


def test_directories_of_those_that_were_killed_are_removed_by_the_next(short_directory, start):
    left_behind = short_directory / "train-atari-sockets-killed"
    left_behind.mkdir()
    (left_behind / "lock").touch()
    (left_behind / "steps").touch()
    somebodys = short_directory / "train-atari-sockets-of-mine"
    somebodys.mkdir()
    _, nursery = start((1,))
    _, other = start((1,))
    living = {os.path.basename(n.specs[0]["address"]) for n in (nursery, other)}
    assert set(os.listdir(short_directory)) == living | {somebodys.name}


def test_the_directory_of_a_start_is_never_taken_for_one_left_behind(monkeypatch, tmp_path):
    """Processes that start and end and clean up at the same time: none finds its directory gone."""
    code = """
import os, sys, tempfile
from pathlib import Path
from a3c.simulation.master import _make_directory, _remove_directories_left_behind, _remove_directory
tempfile.tempdir = sys.argv[1]
for _ in range(500):
    _remove_directories_left_behind()
    directory, lock = _make_directory()
    assert os.path.exists(os.path.join(directory, "lock"))
    if os.getpid() % 2:
        _remove_directory(Path(directory))
    lock.close()
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    processes = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert errors == ["", "", "", ""]


def test_what_somebody_else_has_put_into_a_directory_stays(short_directory, start):
    left_behind = short_directory / "train-atari-sockets-killed"
    left_behind.mkdir()
    for name in ("lock", "steps", "notes.txt"):
        (left_behind / name).touch()
    start((1,))
    assert os.listdir(left_behind) == ["notes.txt"]


def test_where_no_sockets_can_be_made_it_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("x" * 100)))
    for make in (lambda: None, (tmp_path / ("x" * 100)).mkdir):
        make()
        with Nursery() as nursery, pytest.raises(UsageError, match="export TMPDIR=/tmp") as caught:
            SimulatorMaster(nursery, (1,), {}, COUNTING)
        assert "\n" not in str(caught.value)
        assert list(tmp_path.glob("x*/*")) == []


def test_two_masters_are_apart(start):
    (one, nursery), (other, others_nursery) = start((1,)), start((1,), seed=1)
    assert nursery.specs[0]["address"] != others_nursery.specs[0]["address"]
    for t in range(3):
        for master, action in ((one, 10 + t), (other, 20 + t)):
            send(master, receive(master), [action])
    assert read_fake_frame(receive(one).frames[0]).action == 12
    assert read_fake_frame(receive(other).frames[0]).action == 22
