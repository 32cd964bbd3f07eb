"""Signals, in a process of their own."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import ctypes, signal, sys, time
sys.path.insert(0, sys.argv[1])
from a3c.system.stopping import StoppedError, StopRequest
stop = StopRequest()
stop.listen()
if sys.argv[2] == "deferred":
    stop.defer()
print("ready", flush=True)
if sys.argv[3:] == ["native"]:  # it locks a mutex twice, which no signal interrupts
    libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
    while True:
        libc.pthread_mutex_lock(mutex)
try:
    while True:
        stop.check()
        time.sleep(0.01)
except StoppedError as stopped:
    print(stopped, flush=True)
    if sys.argv[3:] == ["slow"]:
        time.sleep(60)
sys.exit(stop.exit_status)
"""

WHILE_A_POLICY_RUNS = """
import signal, sys
sys.path.insert(0, sys.argv[1])
from a3c.weights.file_policy import FilePolicy
from a3c.weights.model_file import read_model
from a3c.weights.model_file import read_model
from a3c.weights.file_policy import FilePolicy
from a3c.system.stopping import StopRequest
import numpy as np
policy = FilePolicy(read_model(sys.argv[1] + "/models/Pong-v0.npz"), 1)
StopRequest().defer()
heard = []
signal.signal(signal.SIGALRM, lambda *_: heard.append(1))
states = np.zeros((8, 84, 84, 12), np.uint8)
calls = 0
signal.setitimer(signal.ITIMER_REAL, 2e-4, 2e-4)
while len(heard) < 500 or calls < 500:
    policy(states)
    calls += 1
signal.setitimer(signal.ITIMER_REAL, 0)
"""


def start(*args: str, ignored: tuple[int, ...] = ()) -> subprocess.Popen:
    def prepare() -> None:
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)

    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(ROOT), *args], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, preexec_fn=prepare)  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("when", ["deferred", "at once"])
def test_a_signal_ends_with_its_status_and_a_word(number, when):
    process = start(when)
    process.send_signal(number)
    out, error = process.communicate(timeout=10)
    assert process.returncode == 128 + number
    assert (number.name in out) == (when == "deferred")
    assert (number.name in error) == (when == "deferred")
    assert "Traceback" not in error


def test_a_second_one_ends_at_once():
    process = start("deferred", "slow")
    process.send_signal(signal.SIGINT)
    assert "SIGINT" in process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=10)
    assert process.returncode == 143


def test_both_are_heard_while_the_main_thread_is_in_native_code():
    process = start("deferred", "native")
    try:
        process.send_signal(signal.SIGINT)
        assert select.select([process.stderr], [], [], 10)[0]
        assert os.read(process.stderr.fileno(), 1000).startswith(b"\nSIGINT: stopping")
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 143
    finally:
        process.kill()
        process.communicate()


def test_what_was_ignored_stays_ignored():
    process = start("deferred", ignored=(signal.SIGHUP,))
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    assert process.returncode == 130


def test_a_crash_tells_the_place_in_the_python_code():
    process = start("deferred")
    process.send_signal(signal.SIGABRT)
    error = process.communicate(timeout=10)[1]
    assert process.returncode == -signal.SIGABRT
    assert "Fatal Python error: Aborted" in error
    assert "line" in error


def test_a_terminal_that_is_gone_is_written_to_without_an_error():
    process = start("deferred")
    os.close(process.stderr.fileno())  # nobody reads it any more
    process.send_signal(signal.SIGHUP)
    assert process.wait(10) == 129
    process.stderr = None
    process.communicate()


@pytest.mark.long
def test_signals_do_not_damage_the_memory_that_a_policy_runs_in():
    """Without a stack for signals it lasts about 100 calls."""
    process = subprocess.Popen(
        [sys.executable, "-c", WHILE_A_POLICY_RUNS, str(ROOT)], stderr=subprocess.PIPE, text=True
    )
    try:
        error = process.communicate(timeout=60)[1]
    finally:
        process.kill()  # TensorFlow's own end of a crash can hang
    assert process.returncode == 0, error
