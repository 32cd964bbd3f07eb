"""What the benchmarks share: rounds, one process per core, and the report.

Speeds on a shared machine differ from minute to minute, so each benchmark measures its limit and its subject in turn,
several times in one run, and reports the median of the rounds' ratios.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import statistics
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from a3c.system.files import whole_file


def progress(text: str) -> None:
    """Say what is being measured, on standard error: one line, overwritten, if that is a terminal."""
    terminal = sys.stderr.isatty()
    print(f"\r\x1b[K{text}" if terminal else text, end="" if terminal else "\n", file=sys.stderr, flush=True)


def rounds(count: int, measures: dict[str, Callable[[], dict | float]]) -> dict[str, list]:
    """Run all measures in turn, ``count`` times; each name's results in order."""
    results: dict[str, list] = {name: [] for name in measures}
    for number in range(count):
        for name, measure in measures.items():
            progress(f"round {number + 1} of {count}: {name}")
            results[name].append(measure())
    progress("")
    return results


def median_ratio(subject: list[float], limit: list[float]) -> float:
    """Median of the rounds' ratios."""
    return statistics.median(s / b for s, b in zip(subject, limit, strict=True))


def save(record: dict, path: Path) -> None:
    """Write results as JSON, whole or not at all."""
    path.parent.mkdir(exist_ok=True)
    with whole_file(path) as file:
        file.write(json.dumps(record, indent=1) + "\n")


def put(text: str, path: Path, mark: str) -> None:
    """Replace what a document has between ``<!-- MARK -->`` and ``<!-- /MARK -->``. Raises ValueError: it has none."""
    marked = re.compile(rf"(<!-- {mark} -->\n).*?(\n<!-- /{mark} -->)", re.DOTALL)
    document = path.read_text()
    if not marked.search(document):
        raise ValueError(f"{path} has no marks <!-- {mark} --> and <!-- /{mark} -->")
    with whole_file(path) as file:
        file.write(marked.sub(lambda found: found[1] + text + found[2], document))


def report(rows: list[dict], result: dict) -> None:
    """Print ``rows`` as a table, then ``result`` as one JSON line; floats rounded to what is of interest."""

    def text(value) -> str:
        return f"{value:,.3g}" if isinstance(value, float) and abs(value) < 1000 else (
            f"{value:,.0f}" if isinstance(value, float) else str(value)
        )  # fmt: skip

    table = [list(rows[0]), *([text(value) for value in row.values()] for row in rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for row in table:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
    print(json.dumps({name: round(value, 4) if isinstance(value, float) else value for name, value in result.items()}))


class Cores:
    """One process per core, each pinned to its own, that run a function at the same time. A context manager."""

    def __init__(self, number: int | None = None):
        """``number`` of cores; all usable ones by default."""
        spawn = multiprocessing.get_context("spawn")
        self._pools = [
            ProcessPoolExecutor(1, spawn, initializer=os.sched_setaffinity, initargs=(0, {core}))
            for core in sorted(os.sched_getaffinity(0))[:number]
        ]

    def run(self, function: Callable, *args) -> list:
        """Call a module's ``function(*args)`` on each core; the results. Raises what the function raised."""
        futures = [pool.submit(function, *args) for pool in self._pools]
        return [future.result() for future in futures]

    def __enter__(self) -> Cores:
        return self

    def __exit__(self, *_):
        for pool in self._pools:
            pool.shutdown(cancel_futures=True)
