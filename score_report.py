"""Scores of evaluations, and their report: one table, as Markdown, CSV and JSON, beside the published scores."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from atari_wrapper import Protocol
from config import make_output

import numpy as np

_SCORES_FILE = Path(__file__).resolve().parent / "scores.json"


@dataclass(frozen=True)
class Scores:
    """Raw scores of whole episodes."""

    scores: tuple[float, ...]

    @property
    def mean(self) -> float:
        return float(np.mean(self.scores))

    @property
    def stderr(self) -> float:
        """Standard error of the mean; NaN for a single episode."""
        n = len(self.scores)
        return float(np.std(self.scores, ddof=1) / np.sqrt(n)) if n > 1 else float("nan")

    @property
    def median(self) -> float:
        return float(np.median(self.scores))

    @property
    def min(self) -> float:
        return float(np.min(self.scores))

    @property
    def max(self) -> float:
        return float(np.max(self.scores))


class Evaluation(NamedTuple):
    """What was evaluated, and what came of it.

    Attributes:
        model: the model's file.
        protocol: of the environment it played.
        policy: how its actions were chosen, in words.
        scores: of its episodes.
    """

    model: str
    protocol: Protocol
    policy: str
    scores: Scores

    def record(self) -> dict:
        """All there is to publish, as plain JSON."""
        scores, published = self.scores, published_score(self.protocol.env)
        return {
            "env": self.protocol.env,
            "model": self.model,
            "episodes": len(scores.scores),
            "mean": scores.mean,
            "stderr": scores.stderr if math.isfinite(scores.stderr) else None,
            "median": scores.median,
            "min": scores.min,
            "max": scores.max,
            "published": published,
            "ratio": scores.mean / published if published else None,
            "scores": scores.scores,
            "protocol": f"{self.policy}; {self.protocol}",
        }


def published_score(env_id: str) -> float | None:
    """The original's published score of a ``-v0`` game; None for others, whose protocol is another."""
    if not env_id.endswith("-v0"):
        return None
    return json.loads(_SCORES_FILE.read_text())["scores"].get(env_id.removesuffix("-v0"))


_COLUMNS = ("game", "mean", "stderr", "median", "min", "max", "published", "ratio", "episodes", "model", "protocol")


def _cells(record: dict) -> list[str]:
    def text(name: str, form: str) -> str:
        return "-" if record[name] is None else format(record[name], form)

    numbers = [text(name, ".2f") for name in ("mean", "stderr")]
    numbers += [text(name, ".10g") for name in ("median", "min", "max", "published")]
    return [record["env"], *numbers, text("ratio", ".3f"), str(record["episodes"]), record["model"], record["protocol"]]


def as_markdown(records: list[dict]) -> str:
    """A table with a row for each record; the protocols, which are long, stand below it, each once."""
    rows = [_cells(record)[:-1] for record in records]
    header = list(_COLUMNS[:-1])
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    left = {header.index("game"), header.index("model")}
    rule = ["-" * width if number in left else "-" * (width - 1) + ":" for number, width in enumerate(widths)]

    def line(cells: list[str]) -> str:
        padded = [
            cell.ljust(width) if number in left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |\n"

    protocols = "".join(f"{text}\n" for text in dict.fromkeys(record["protocol"] for record in records))
    return line(header) + line(rule) + "".join(map(line, rows)) + f"\nRaw scores of whole episodes. {protocols}"


def as_csv(records: list[dict]) -> str:
    """The same as comma-separated values; numbers in full."""
    text = io.StringIO()
    names = ["env", *_COLUMNS[1:]]
    writer = csv.DictWriter(text, names, extrasaction="ignore", lineterminator="\n")
    text.write(",".join(_COLUMNS) + "\n")
    writer.writerows(records)
    return text.getvalue()


def report(evaluations: list[Evaluation], directory: Path, tell: Callable[[str], None] = print) -> list[Path]:
    """Print the table, and write it to ``eval.md``, ``eval.csv`` and ``eval.json``; returns the files."""
    records = [evaluation.record() for evaluation in evaluations]
    make_output(directory)
    texts = {
        "md": as_markdown(records), "csv": as_csv(records), "json": json.dumps(records, indent=2) + "\n",
    }  # fmt: skip
    paths = []
    for suffix, text in texts.items():
        paths.append(directory / f"eval.{suffix}")
        paths[-1].write_text(text)
    tell(texts["md"].rstrip())
    tell(f"written to {directory}/eval.md, .csv and .json")
    return paths
