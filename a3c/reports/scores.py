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

from a3c.errors import RunError
from a3c.system.files import free_name, whole_file
from atari_wrapper import Protocol

import numpy as np

_SCORES_FILE = Path(__file__).resolve().parent / "published_scores.json"


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
        asked: how many episodes there were to be; if fewer have ended, the evaluation was stopped.
    """

    model: str
    protocol: Protocol
    policy: str
    scores: Scores
    asked: int

    def record(self) -> dict:
        """All there is to publish, as plain JSON."""
        scores, published = self.scores, published_score(self.protocol.env)
        return {
            "env": self.protocol.env,
            "model": self.model,
            "episodes": len(scores.scores),
            "asked": self.asked,
            "mean": scores.mean,
            "stderr": scores.stderr if math.isfinite(scores.stderr) else None,
            "median": scores.median,
            "min": scores.min,
            "max": scores.max,
            "published": published,
            "ratio": scores.mean / published if published and published > 0 else None,  # below 0 it would tell nothing
            "scores": scores.scores,
            "protocol": f"{self.policy}; {self.protocol}",
        }


def published_score(env_id: str) -> float | None:
    """The original's published score of a ``-v0`` game; None for others, whose protocol is another."""
    if not env_id.endswith("-v0"):
        return None
    return json.loads(_SCORES_FILE.read_text())["scores"].get(env_id.removesuffix("-v0"))


_COLUMNS = ("game", "mean", "stderr", "median", "min", "max", "published", "ratio", "episodes", "asked", "model",
            "protocol")  # fmt: skip


def _cells(record: dict) -> list[str]:
    def text(name: str, form: str) -> str:
        return "-" if record[name] is None else format(record[name], form)

    numbers = [text(name, ".2f") for name in ("mean", "stderr")]
    numbers += [text(name, ".10g") for name in ("median", "min", "max", "published")]
    return [
        record["env"],
        *numbers,
        *(text("ratio", ".3f"), text("episodes", "d"), text("asked", "d")),
        record["model"],
    ]


def as_markdown(records: list[dict]) -> str:
    """A table with a row for each record; the protocols, which are long, stand below it, each once."""
    rows = [_cells(record) for record in records]
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
    stopped = any(record["episodes"] < record["asked"] for record in records)
    note = "Fewer episodes than asked for: it was stopped, and short ones count too much.\n" if stopped else ""
    return line(header) + line(rule) + "".join(map(line, rows)) + f"\nRaw scores of whole episodes. {protocols}{note}"


def as_csv(records: list[dict]) -> str:
    """The same as comma-separated values; numbers in full."""
    text = io.StringIO()
    names = ["env", *_COLUMNS[1:]]
    writer = csv.DictWriter(text, names, extrasaction="ignore", lineterminator="\n")
    text.write(",".join(_COLUMNS) + "\n")
    writer.writerows(records)
    return text.getvalue()


class Report:
    """The table of evaluations, printed and written as each of them is there: ``eval.md``, ``eval.csv``, ``eval.json``.

    Files of an earlier evaluation get other names: ``eval-1.md``. What cannot be written is printed all the same.
    """

    def __init__(self, directory: Path, tell: Callable[[str], None] = print):
        self._directory, self._tell = directory, tell
        self._records: list[dict] = []
        self._problem = ""

    def add(self, evaluation: Evaluation) -> None:
        """Print an evaluation, and write it with those before."""
        self._records.append(evaluation.record())
        self._tell(as_markdown(self._records[-1:]).rstrip())
        texts = {
            "md": as_markdown(self._records),
            "csv": as_csv(self._records),
            "json": json.dumps(self._records, indent=2) + "\n",
        }
        try:
            for suffix, text in texts.items():
                path = self._directory / f"eval.{suffix}"
                if len(self._records) == 1 and path.exists():
                    path.rename(free_name(path))
                with whole_file(path) as file:
                    file.write(text)
            self._problem = ""
        except OSError as error:
            self._problem = f"the report in {self._directory} could not be written: {error.strerror}"

    def finish(self) -> None:
        """Print the whole table if it has several rows, and where it is. Raises RunError if it was not written."""
        if not self._records:
            return
        if len(self._records) > 1:
            self._tell(as_markdown(self._records).rstrip())
        if self._problem:
            raise RunError(f"{self._problem}; copy it from above")
        self._tell(f"written to {self._directory}/eval.md, .csv and .json")
