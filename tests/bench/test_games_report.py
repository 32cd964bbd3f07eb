"""The table of all games: shares, tests against random play, and that the documents have what was measured."""

from __future__ import annotations

import json

from bench import games_report
from bench.command_line import ROOT
from bench.games import RESULTS
from bench.games_report import draw, read, sentence, table

import cv2
import numpy as np
import pytest


def policy(mean: float, spread: float = 1.0) -> dict:
    scores = mean + spread * np.linspace(-1, 1, 30)
    return {"mean": mean, "stderr": 0.25, "scores": scores.tolist()}


@pytest.fixture
def path(tmp_path):
    rows = {
        "Pong-v0": {"random": policy(-21), "sampled": policy(0), "greedy": policy(-3), "train_minutes": 12.0},
        "Alien-v0": {"random": policy(100), "sampled": policy(100), "greedy": policy(90), "train_minutes": 16.0},
    }
    path = tmp_path / "games.json"
    path.write_text(json.dumps(rows))
    return path


def test_shares_and_tests(path):
    alien, pong = read(path)
    assert (alien.name, pong.name) == ("Alien", "Pong")
    assert (alien.share, pong.share) == (0, 0.5)  # 21 is published
    assert alien.p == 1
    assert 1e-12 < pong.p < 1e-8  # 30 against 30 that are all below, 47 times


def test_a_p_is_corrected_for_all_games(path, monkeypatch):
    corrected = read(path)[1].p
    monkeypatch.setattr(games_report, "games", lambda: ["one"])
    assert corrected == pytest.approx(47 * read(path)[1].p)


def test_the_table_and_the_sentence(path):
    lines = read(path)
    assert "| Pong | -21.0 | **0.0** ± 0.2 | -3.0 ± 0.2 | 21 | 0.500 | p = 7e-10 | 12 |" in table(lines)
    assert "| Alien | 100.0 | **100.0** ± 0.2 | 90.0 ± 0.2 | 2,611 | 0.000 | no | 16 |" in table(lines)
    told = sentence(lines)
    assert told.startswith("So far 2 of the 47 games of the published table were trained")
    assert "a median of 14 minutes on two cores: 1 beat random play (p < 0.01)" in told
    assert "25% of the way" in told
    assert sentence(lines * 23 + lines[:1]).startswith("All 47 games")


def test_the_picture(path, tmp_path):
    draw(read(path), tmp_path / "games.png")
    picture = cv2.imread(str(tmp_path / "games.png"))
    blue, gray = (np.all(picture == colour, axis=-1).sum() for colour in ([180, 119, 31], [211, 211, 211]))
    assert blue > 1000  # Pong's bar; Alien's has no length
    assert gray < blue


def test_the_documents_say_what_the_results_do():
    lines = read(ROOT / RESULTS)
    results, readme = (" ".join((ROOT / name).read_text().split()) for name in games_report.DOCUMENTS)
    assert " ".join(table(lines).split()) in results
    assert " ".join(sentence(lines).split()) in results
    assert " ".join(sentence(lines).split()) in readme
