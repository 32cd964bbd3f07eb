"""The doctor's command line: real measurements, in a moment each."""

from __future__ import annotations

import re
import signal

from bench.command_line import run, start

import pytest
from drivers import BLACKWELL, fake_driver
from processes import wait_until

pytestmark = pytest.mark.long


def test_doctor_tells_what_there_is_and_what_to_expect(tmp_path):
    out = run(
        "--task", "doctor", "--env", "Breakout-v0", "--num-envs", "6", "--output", str(tmp_path / "run"),
        script="tests/fakes/quick_doctor.py", NO_COLOR="1", COLUMNS="100",
    )  # fmt: skip
    for name in ("packages", "game", "prctl", "sockets", "cores", "gpu", "files", "processes", "memory", "output"):
        assert re.search(rf"^(ok|warn)  +{name} ", out, re.MULTILINE), name
    speeds = re.search(r"\nSpeed\n(.*)\n\nExpect\n(.*)\n\nUse\n(.*)\n\nnothing failed", out, re.DOTALL)
    for section, text in zip(speeds.groups(), ("transport", "states/s", "--num-envs 6 --simulator-proc"), strict=True):
        assert text in section
    assert "\x1b" not in out
    assert not (tmp_path / "run").exists()


def test_doctor_tells_what_a_driver_lists(tmp_path):
    out = run(
        "--task", "doctor", "--gpu", "0", "--output", str(tmp_path / "run"), script="tests/fakes/quick_doctor.py",
        status=1, COLUMNS="300", **fake_driver(BLACKWELL), CUDA_VISIBLE_DEVICES="0",
    )  # fmt: skip
    for name, words in (("driver", "version 570.00"), ("kernels", "capability 12.0"), ("gpu", "the driver lists 1")):
        assert re.search(rf"^(ok|FAIL)  +{name} .*{words}", out, re.MULTILINE), out
    # Where the interpreter's path is long, the remedy takes two lines.
    assert re.search(r"^FAIL  CUDA .*\n +try: .*(\n +)?.*tensorflow\[and-cuda\]", out, re.MULTILINE)


def test_doctor_fails_with_a_remedy(tmp_path):
    long = tmp_path / ("x" * 100)  # too long for the sockets
    long.mkdir()
    out = run("--task", "doctor", script="tests/fakes/quick_doctor.py", status=1, TMPDIR=str(long), COLUMNS="300")
    assert re.search(r"^FAIL  sockets .*\n(?: .*\n)* +try: export TMPDIR=/tmp$", out, re.MULTILINE)
    assert re.search(r"^FAIL  transport +cannot be measured", out, re.MULTILINE)
    assert out.count("train-atari.py: 2 of ") == 1
    assert "Traceback" not in out


def test_doctor_stops_at_once_and_leaves_nobody():
    started = start("--task", "doctor", script="tests/fakes/quick_doctor.py")
    started.read_until("Speed")
    wait_until(lambda: len(started.alive()) > 1 or None, timeout_s=30)
    started.process.send_signal(signal.SIGINT)
    assert "Traceback" not in started.finish(15)
    assert started.process.returncode == 130
    assert started.wait_all_gone(3)
    started = start("--task", "doctor")
    started.read_until("frames/s")
    wait_until(started.simulators, timeout_s=30)
    started.process.send_signal(signal.SIGTERM)
    assert "Traceback" not in started.finish(15)
    assert started.process.returncode == 143
    assert started.wait_all_gone(3)


@pytest.mark.parametrize(("flags", "told"), [(["--env", "Breakot-v0"], "Breakout-v0"), (["--pool-states", "7"], "256")])
def test_doctor_tells_a_users_error_in_one_line(flags, told):
    out = run("--task", "doctor", *flags, script="tests/fakes/quick_doctor.py", status=2)
    (message,) = [line for line in out.splitlines() if line.startswith("train-atari.py: ")]
    assert told in message
    assert "Speed" not in out
