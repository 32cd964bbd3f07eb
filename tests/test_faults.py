"""The faults of ``make faults``, a few trials of each, and how they are counted."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys

from a3c.simulation.messages import MessageError, StepBlock, decode
from bench.command_line import Run, start
from tests import faults
from tests.faults import __main__ as command
from tests.faults import sockets, strangers

import numpy as np
import psutil
import pytest


@pytest.mark.long
@pytest.mark.parametrize("name", faults.FAULTS)
def test_survives(name):
    fault = faults.FAULTS[name]
    if fault.missing() and not os.environ.get("CI"):
        pytest.skip(fault.missing())
    seed = random.SystemRandom().randrange(1000)
    row = faults.run(name, fault.short_trials, seed)
    assert row["lost"] == "", f"--seed {seed}: {row['lost']}"
    assert row["survived"] == row["trials"] == fault.short_trials


def injected(*outcomes: str):
    """A fault whose trials are survived in these ways, or lost where one says so."""

    def inject(directory, trials, rng):
        for outcome in outcomes:
            if "lost" in outcome:
                raise AssertionError(outcome)
            yield outcome

    return faults.Fault(inject, len(outcomes), 1)


@pytest.mark.parametrize(
    ("outcomes", "survived", "how", "lost"),
    [
        (("", ""), 2, "", ""),
        (("by day", "by night", "by day"), 3, "by day: 2, by night: 1", ""),
        (("by day", "lost", "by day"), 1, "by day: 1", "AssertionError: lost"),
        (("lost",), 0, "", "AssertionError: lost"),
    ],
)
def test_what_is_survived_and_lost_is_counted(monkeypatch, outcomes, survived, how, lost):
    monkeypatch.setitem(faults.FAULTS, "fake", injected(*outcomes))
    assert faults.run("fake", len(outcomes), seed=0) == {
        "fault": "fake",
        "trials": len(outcomes),
        "survived": survived,
        "how": how,
        "lost": lost,
    }


def test_what_a_lost_trial_left_running_is_ended(monkeypatch, tmp_path):
    started, sleeps = [], tmp_path / "sleeps.py"
    sleeps.write_text("import time; time.sleep(60)")

    def inject(directory, trials, rng):
        started.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]))
        started.append(start(script=str(sleeps)).process)
        raise AssertionError("lost")
        yield

    monkeypatch.setitem(faults.FAULTS, "fake", faults.Fault(inject, 1, 1))
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        faults.run("fake", 1, seed=0)
        assert not psutil.pid_exists(started[0].pid)
        assert started[1].wait(5) == -signal.SIGKILL
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_run_that_does_not_end_is_killed_and_tells_its_output():
    code = "import time; print('told', flush=True); time.sleep(60)"
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen([sys.executable, "-c", code], **options)
    with pytest.raises(AssertionError, match=r"no end within 1 s:\ntold"):
        Run(process, "none").finish(1)
    assert process.wait(5) == -signal.SIGKILL


def test_what_cannot_be_tried_is_told_and_counts_as_lost(monkeypatch):
    fault = injected("", "")._replace(programs=("sh", "a-program-that-nobody-has"))
    monkeypatch.setitem(faults.FAULTS, "fake", fault)
    row = faults.run("fake", 2, seed=0)
    assert (row["survived"], row["lost"]) == (0, "not tried: a-program-that-nobody-has not installed")


@pytest.mark.parametrize(("outcomes", "status"), [(("", "lost"), 1), (("", ""), 0)])
def test_a_loss_ends_make_faults_with_status_1(monkeypatch, capsys, outcomes, status):
    monkeypatch.setitem(faults.FAULTS, "fake", injected(*outcomes))
    monkeypatch.setattr("sys.argv", ["faults", "--only", "fake"])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == status
    assert ("AssertionError: lost" in capsys.readouterr().out) == (status == 1)


def test_the_full_form_sends_a_million_messages():
    assert faults.FAULTS["bad messages"].trials * sockets._MESSAGES >= 1_000_000


STEP = StepBlock(0, 2, 0, 3, np.zeros(1, np.float32), np.zeros(1, np.uint8), np.zeros((1, 84, 84, 3), np.uint8))
WELL_FORMED = {"_unknown_life", "_repeated_step", "_step_out_of_turn", "_earlier_life"}  # refused for what they say


@pytest.mark.parametrize("kind", strangers.REFUSED + strangers.DROPPED)
def test_each_kind_of_bad_message_is_bad(kind):
    known = strangers.Known(STEP, earlier_life=1)
    for seed in range(200):
        message = kind(random.Random(seed), known)
        if kind.__name__ not in WELL_FORMED:
            with pytest.raises(MessageError):
                decode(message, (1,))
            continue
        decoded = decode(message, (1,))
        assert decoded[:2] != (0, 2) or decoded[2] != 1, "it is the step that is waited for"
        assert isinstance(decoded, StepBlock) or decoded[1] not in (1, 2), "it would end the run"
