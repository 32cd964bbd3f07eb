"""Scores and their report: the statistics, and one table in three forms."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from pathlib import Path

from a3c.errors import RunError
from a3c.reports.scores import Evaluation, Report, Scores, published_score
from atari_wrapper import Protocol

import pytest


@pytest.mark.parametrize(
    ("scores", "mean", "stderr", "median", "low", "high"),
    [
        ((1.0, 2.0, 6.0), 3.0, math.sqrt(7 / 3), 2.0, 1.0, 6.0),
        ((-21.0, -20.0), -20.5, 0.5, -20.5, -21.0, -20.0),
        ((5.0,), 5.0, math.nan, 5.0, 5.0, 5.0),
    ],
)
def test_statistics(scores, mean, stderr, median, low, high):
    got = Scores(scores)
    assert (got.mean, got.median, got.min, got.max) == (mean, median, low, high)
    assert got.stderr == pytest.approx(stderr, nan_ok=True)


@pytest.mark.parametrize(
    ("env_id", "score"),
    [
        ("Pong-v0", 21),
        ("Breakout-v0", 667),
        ("JourneyEscape-v0", -407),
        ("Pong-v4", None),
        ("ALE/Pong-v5", None),
        ("PongNoFrameskip-v0", None),
        ("Pong", None),
    ],
)
def test_published_score(env_id, score):
    assert published_score(env_id) == score


PROTOCOL = Protocol("Pong-v0", (2, 4), 0.25, ("NOOP", "FIRE"), 60_000, 240_000)
PONG = Evaluation("models/Pong-v0.npz", PROTOCOL, "greedy", Scores((18.0, 21.0, 21.0)), 3)
OTHER = Evaluation(
    "a, b.npz", dataclasses.replace(PROTOCOL, env="ALE/Pong-v5"), "greedy", Scores((-1_234_567.0,)), 2
)  # fmt: skip


def test_a_record_has_all_there_is_to_publish():
    record = PONG.record()
    assert record.pop("stderr") == pytest.approx(1)
    assert record == {
        "env": "Pong-v0", "model": "models/Pong-v0.npz", "episodes": 3, "asked": 3,
        "mean": 20, "median": 21, "min": 18, "max": 21,
        "published": 21, "ratio": 20 / 21, "scores": (18, 21, 21), "protocol": f"greedy; {PROTOCOL}",
    }  # fmt: skip


@pytest.mark.parametrize("absent", ["stderr", "published", "ratio"])
def test_what_there_is_none_of_is_none(absent):
    assert OTHER.record()[absent] is None


def test_a_published_score_below_zero_has_no_ratio():
    record = PONG._replace(protocol=dataclasses.replace(PROTOCOL, env="JourneyEscape-v0")).record()
    assert record["published"] < 0
    assert record["ratio"] is None


def report(evaluations: list[Evaluation], directory: Path, tell=lambda text: None) -> None:
    report = Report(directory, tell)
    for evaluation in evaluations:
        report.add(evaluation)
    report.finish()


def test_the_table_as_json_is_plain_json(tmp_path):
    report([PONG, OTHER], tmp_path)
    records = json.loads((tmp_path / "eval.json").read_text(), parse_constant=pytest.fail)
    assert [record["env"] for record in records] == ["Pong-v0", "ALE/Pong-v5"]
    assert records[0]["scores"] == [18, 21, 21]


def test_the_table_as_csv_reads_back(tmp_path):
    report([PONG, OTHER], tmp_path)
    with open(tmp_path / "eval.csv", newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["game"], first["mean"], first["published"], first["episodes"]) == ("Pong-v0", "20.0", "21", "3")
    assert (second["mean"], second["published"], second["model"]) == ("-1234567.0", "", "a, b.npz")


def test_the_table_as_markdown_is_aligned_and_told(tmp_path):
    told = []
    report([PONG, OTHER], tmp_path, told.append)
    assert (tmp_path / "eval.md").read_text().rstrip() == told[2]
    header, rule, first, second, empty, *protocols = told[2].splitlines()
    assert len({len(line) for line in (header, rule, first, second)}) == 1
    cells = [cell.strip() for cell in second.strip("|").split("|")]
    assert cells == [
        "ALE/Pong-v5",
        "-1234567.00",
        "-",
        "-1234567",
        "-1234567",
        "-1234567",
        "-",
        "-",
        "1",
        "2",
        "a, b.npz",
    ]
    assert empty == ""
    assert [str(PROTOCOL) in line for line in protocols] == [True, False, False]
    assert "short ones count too much" in protocols[-1]
    assert "short ones" not in told[0]
    assert str(tmp_path) in told[3]


def test_a_protocol_that_two_share_is_told_once(tmp_path):
    told = []
    report([PONG, PONG], tmp_path, told.append)
    assert told[2].count(str(PROTOCOL)) == 1


def test_each_result_is_written_when_it_is_there(tmp_path):
    report, told = Report(tmp_path, lambda text: told.append(text)), []
    report.add(PONG)
    assert json.loads((tmp_path / "eval.json").read_text())[0]["mean"] == 20
    assert "20.00" in told[0]
    report.add(OTHER)
    assert len(json.loads((tmp_path / "eval.json").read_text())) == 2
    assert len((tmp_path / "eval.csv").read_text().splitlines()) == 3


def test_an_earlier_report_is_kept(tmp_path):
    for evaluation in (PONG, OTHER, PONG):
        report([evaluation], tmp_path)
    means = [json.loads((tmp_path / f"eval{n}.json").read_text())[0]["mean"] for n in ("-1", "-2", "")]
    assert means == [20, -1_234_567, 20]
    assert len(list(tmp_path.iterdir())) == 9


def test_what_cannot_be_written_is_printed(tmp_path):
    told = []
    with pytest.raises(RunError, match="could not be written: No such file or directory"):
        report([PONG], tmp_path / "gone", told.append)
    assert "20.00" in told[0]


def test_nothing_is_said_to_be_written_if_nothing_was(tmp_path):
    told = []
    report([], tmp_path, told.append)
    assert told == []
