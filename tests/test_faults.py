"""The faults of ``make faults``, a few trials of each."""

from __future__ import annotations

import random

import bench.faults as faults

import pytest


@pytest.mark.parametrize("name", faults.FAULTS)
def test_survives(name):
    row = faults.run(name, faults.FAULTS[name].short_trials, seed=random.SystemRandom().randrange(1000))
    assert row["lost"] == "", row
    assert row["survived"] == row["trials"] == faults.FAULTS[name].short_trials


def injected(outcomes: list[str]):
    def inject(directory, trials, rng):
        for outcome in outcomes:
            if outcome:
                raise AssertionError(outcome)
            yield

    return faults.Fault(inject, len(outcomes), 1)


@pytest.mark.parametrize(
    ("outcomes", "survived", "lost"),
    [(["", ""], 2, ""), (["", "gone", ""], 1, "AssertionError: gone"), (["gone"], 0, "AssertionError: gone")],
)
def test_what_is_lost_is_counted(monkeypatch, outcomes, survived, lost):
    monkeypatch.setitem(faults.FAULTS, "fake", injected(outcomes))
    assert faults.run("fake", len(outcomes), seed=0) == {
        "fault": "fake",
        "trials": len(outcomes),
        "survived": survived,
        "lost": lost,
    }


def test_a_loss_ends_make_faults_with_status_1(monkeypatch, capsys):
    monkeypatch.setitem(faults.FAULTS, "fake", injected(["", "gone"]))
    monkeypatch.setattr("sys.argv", ["faults", "--only", "fake"])
    with pytest.raises(SystemExit) as ended:
        faults.main()
    assert ended.value.code == 1
    assert "gone" in capsys.readouterr().out
