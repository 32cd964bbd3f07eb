"""Scores and their report: the statistics, and one table in three forms."""

from __future__ import annotations

import csv
import dataclasses
import json
import math

from atari_wrapper import Protocol
from score_report import Evaluation, Scores, published_score, report

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
PONG = Evaluation("models/Pong-v0.npz", PROTOCOL, "greedy", Scores((18.0, 21.0, 21.0)))
OTHER = Evaluation(
    "a, b.npz", dataclasses.replace(PROTOCOL, env="ALE/Pong-v5"), "greedy", Scores((-1_234_567.0,))
)  # fmt: skip


def test_a_record_has_all_there_is_to_publish():
    record = PONG.record()
    assert record.pop("stderr") == pytest.approx(1)
    assert record == {
        "env": "Pong-v0", "model": "models/Pong-v0.npz", "episodes": 3, "mean": 20, "median": 21, "min": 18, "max": 21,
        "published": 21, "ratio": 20 / 21, "scores": (18, 21, 21), "protocol": f"greedy; {PROTOCOL}",
    }  # fmt: skip


@pytest.mark.parametrize("absent", ["stderr", "published", "ratio"])
def test_what_there_is_none_of_is_none(absent):
    assert OTHER.record()[absent] is None


def test_the_table_as_json_is_plain_json(tmp_path):
    report([PONG, OTHER], tmp_path / "new" / "output", tell=lambda text: None)
    records = json.loads((tmp_path / "new" / "output" / "eval.json").read_text(), parse_constant=pytest.fail)
    assert [record["env"] for record in records] == ["Pong-v0", "ALE/Pong-v5"]
    assert records[0]["scores"] == [18, 21, 21]


def test_the_table_as_csv_reads_back(tmp_path):
    report([PONG, OTHER], tmp_path, tell=lambda text: None)
    with open(tmp_path / "eval.csv", newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["game"], first["mean"], first["published"], first["episodes"]) == ("Pong-v0", "20.0", "21", "3")
    assert (second["mean"], second["published"], second["model"]) == ("-1234567.0", "", "a, b.npz")


def test_the_table_as_markdown_is_aligned_and_told(tmp_path):
    told = []
    report([PONG, OTHER], tmp_path, told.append)
    assert (tmp_path / "eval.md").read_text().rstrip() == told[0]
    header, rule, first, second, empty, *protocols = told[0].splitlines()
    assert len({len(line) for line in (header, rule, first, second)}) == 1
    cells = [cell.strip() for cell in second.strip("|").split("|")]
    assert cells == ["ALE/Pong-v5", "-1234567.00", "-", "-1234567", "-1234567", "-1234567", "-", "-", "1", "a, b.npz"]
    assert empty == ""
    assert [str(PROTOCOL) in line for line in protocols] == [True, False]
    assert str(tmp_path) in told[1]


def test_a_protocol_that_two_share_is_told_once(tmp_path):
    told = []
    report([PONG, PONG], tmp_path, told.append)
    assert told[0].count(str(PROTOCOL)) == 1
