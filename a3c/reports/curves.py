"""Learning curves: score against steps and hours, policy lag, entropy, value loss and speed, of one run or of several.

Drawn from the ``stats.json`` of the runs' output directories. Runs whose settings differ in nothing but the seed are
one curve, their mean, in a band from the least to the most. A training has its own drawn by a process of its own:

    python -m a3c.reports.curves RUN
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import math
import sys
from pathlib import Path
from typing import NamedTuple

from a3c.config import Config
from a3c.errors import UsageError, first_line
from a3c.run_files import CONFIG_FILE, CURVE_FILE, STATS_FILE
from a3c.system.files import whole_file
from a3c.system.processes import give_way

import numpy as np

_MARGINS = {"left": 0.065, "right": 0.99, "top": 0.93, "bottom": 0.085, "wspace": 0.25, "hspace": 0.25}
# What does not change how a run learns.
_NO_SETTING = {
    "task", "seed", "gpu", "output", "resume", "watch", "overlay", "episode", "max_epoch", "max_to_keep",
    "eval_every", "eval_episode", "steps_per_epoch", "simulator_timeout", "stall_timeout",
}  # fmt: skip
_MAX_NAMED = 2  # settings that a label names; of more differences the directory's name tells
# Okabe and Ito's colours, which differ for colour-blind eyes; the line styles differ in print.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
STYLES = tuple(
    {"color": colour, "linestyle": line} for line, colour in zip(itertools.cycle(("-", "--", "-.", ":")), _COLOURS)
)
_THIN = {"linewidth": 0.8, "alpha": 0.5}
_POINTS = 300  # of a curve that several runs share


class Run(NamedTuple):
    """One run's directory, its settings by flag, and the records of its epochs."""

    directory: Path
    settings: dict[str, object]
    records: list[dict[str, float]]

    @classmethod
    def read(cls, directory: Path) -> Run:
        """Read a run. Raises UsageError if there is none, or its files are not what a training writes."""
        settings, records = _read(directory / CONFIG_FILE, dict), _read(directory / STATS_FILE, list)
        known = [_known(record, f"{directory / STATS_FILE}: record {number}")
                 for number, record in enumerate(records, start=1)]  # fmt: skip
        known = [record for record in known if "steps" in record]
        if not known:
            raise UsageError(f"{directory} holds a run that has ended no epoch yet: there is nothing to draw")
        return cls(directory, settings, known)

    def column(self, scalar: str, against: str) -> tuple[np.ndarray, np.ndarray]:
        """A scalar against another, in the units of the picture, where both are known."""
        unit = _UNITS[against][0]
        known = [(record[against] / unit, record[scalar]) for record in self.records if {scalar, against} <= {*record}]
        return tuple(np.array(known, float).reshape(-1, 2).T)


_KINDS = {dict: "settings", list: "list of epochs"}
_REMEDY = "mend it, or leave the run out"


def _read(path: Path, kind: type):
    """What a run's file holds, which is to be of this kind. Raises UsageError."""
    try:
        content = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"{path.parent} holds no run that has ended an epoch: name output directories") from None
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else first_line(error)
        raise UsageError(f"{path} cannot be read ({reason}): {_REMEDY}") from None
    if not isinstance(content, kind):
        raise UsageError(f"{path} is not what a training writes: it holds no {_KINDS[kind]}; {_REMEDY}")
    return content


def _known(record: object, place: str) -> dict[str, float]:
    """The scalars of an epoch that are drawn, as far as they are known: null and what is not finite is not.

    Raises:
        UsageError: it is not what a training writes.
    """
    if not isinstance(record, dict):
        raise UsageError(f"{place} is not what a training writes: it holds no scalars; {_REMEDY}")
    known = {}
    for name in _DRAWN & {*record}:
        value = record[name]
        if not isinstance(value, (int, float, type(None))):
            raise UsageError(f'{place} is not what a training writes: "{name}" is no number; {_REMEDY}')
        with contextlib.suppress(TypeError, OverflowError):  # null; too large for a float
            if math.isfinite(value):
                known[name] = float(value)
    return known


class Group(NamedTuple):
    """Runs of one setting, with different seeds."""

    label: str
    runs: list[Run]


class Panel(NamedTuple):
    """One of the picture's diagrams: which scalar, against which."""

    scalar: str
    text: str
    against: str = "steps"


_PANELS = (
    Panel("online_score", "score"),
    Panel("online_score", "score", "train_minutes"),
    Panel("entropy", "entropy"),
    Panel("value_loss", "value loss"),
    Panel("policy_lag_mean", "policy lag (updates)"),
    Panel("states_per_s", "states/s"),
)
_DRAWN = {name for panel in _PANELS for name in (panel.scalar, panel.against)} | {"mean_score", "stderr_score"}
_UNITS = {"steps": (1e6, "million steps"), "train_minutes": (60.0, "hours")}


def group(runs: list[Run]) -> list[Group]:
    """Put runs together whose settings differ in the seed only; a label says what tells a group from the others."""
    defaults = {f.name: f.default for f in dataclasses.fields(Config) if f.name not in _NO_SETTING}
    groups: dict[str, list[Run]] = {}
    for run in runs:
        settings = {name: run.settings.get(name, default) for name, default in defaults.items()}
        groups.setdefault(json.dumps(settings), []).append(run)
    every = [json.loads(key) for key in groups]
    differing = [name for name in defaults if len({str(settings[name]) for settings in every}) > 1]
    return [Group(_label(settings, differing, members), members)
            for settings, members in zip(every, groups.values(), strict=True)]  # fmt: skip


def _label(settings: dict, differing: list[str], runs: list[Run]) -> str:
    if len(differing) > _MAX_NAMED:
        label = runs[0].directory.name
    else:
        named = []
        for name in differing:
            value = settings[name]
            text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
            if text and name != "env":
                named.append(f"--{name.replace('_', '-')} {text}")
        label = ", ".join([str(settings["env"]), *named])
    label = label.replace("$", r"\$")  # between two of them would be a formula
    seeds = {run.settings.get("seed") for run in runs}
    return f"{label}, {len(runs)} {'seeds' if len(seeds) == len(runs) else 'runs'}" if len(runs) > 1 else label


def draw(groups: list[Group], path: Path) -> None:
    """Draw all panels into a PNG, which is replaced as a whole."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 6.5))
    # Fixed margins: to find the best ones takes as long as the drawing, beside the training.
    axes = figure.subplots(2, 3, gridspec_kw=_MARGINS)
    for axis, panel in zip(axes.flat, _PANELS, strict=True):
        for number, (label, runs) in enumerate(groups):
            style = STYLES[number % len(STYLES)]
            draw_band(axis, [run.column(panel.scalar, panel.against) for run in runs], label, style)
            if panel.scalar == "online_score":
                for run in runs:
                    _draw_evaluations(axis, run, panel.against, style["color"])
        axis.set_xlabel(_UNITS[panel.against][1])
        axis.set_ylabel(panel.text)
        axis.set_xlim(left=0)
        axis.locator_params(axis="x", nbins=6)
        axis.grid(alpha=0.3)
        if panel.scalar not in ("online_score", "entropy"):
            axis.set_ylim(bottom=0)
    if labelled := [axis for axis in axes.flat if axis.get_legend_handles_labels()[1]]:
        labelled[0].legend(loc="best", fontsize="small")
    text = "scores: lines of training episodes, actions sampled; points of evaluations, with their standard error"
    figure.suptitle(text, fontsize="small")
    with whole_file(path, "wb") as file:
        figure.savefig(file, format="png", dpi=100)


def draw_band(axis, curves: list[tuple[np.ndarray, np.ndarray]], label: str, style: dict) -> None:
    """Draw curves, thin; and where all of them are known their mean, and a band from the least to the most."""
    curves = [(xs, ys) for xs, ys in curves if len(xs)]
    for xs, ys in curves:
        look = style | _THIN if len(curves) > 1 else style | {"label": label}
        axis.plot(xs, ys, marker="." if len(xs) == 1 else "", **look)
    if len(curves) < 2:
        return
    low, high = max(xs[0] for xs, _ in curves), min(xs[-1] for xs, _ in curves)
    if low < high:
        grid = np.linspace(low, high, _POINTS)
        level = np.array([np.interp(grid, xs, ys) for xs, ys in curves])
        axis.fill_between(grid, level.min(axis=0), level.max(axis=0), color=style["color"], alpha=0.2, linewidth=0)
        axis.plot(grid, level.mean(axis=0), label=label, **style)
    else:
        axis.plot([], [], label=label, **style)


def _draw_evaluations(axis, run: Run, against: str, colour: str) -> None:
    xs, means = run.column("mean_score", against)
    errors = [
        max(0.0, record.get("stderr_score", 0.0)) for record in run.records if {"mean_score", against} <= {*record}
    ]
    if len(xs):
        axis.errorbar(xs, means, errors, fmt="o", markersize=3, capsize=2, linewidth=1, color=colour,
                      markerfacecolor="white")  # fmt: skip


def plot_runs(directories: list[Path]) -> Path:
    """Draw runs over each other into the first one's directory; returns the file. Raises UsageError."""
    path = directories[0] / CURVE_FILE
    runs = [Run.read(directory) for directory in directories]
    try:
        draw(group(runs), path)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or first_line(error)}") from None
    return path


if __name__ == "__main__":
    give_way()  # the training comes first
    try:
        plot_runs([Path(sys.argv[1])])
    except UsageError as told:
        sys.exit(str(told))
