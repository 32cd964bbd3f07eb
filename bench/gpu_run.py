"""A training of the command line for so many seconds, and what the GPU did meanwhile."""

from __future__ import annotations

import json
import os
import re
import signal
import statistics
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path

from a3c.system import gpu
from a3c.system.processes import die_with_parent
from bench.command_line import Run, start

_POLL_S = 0.1
_SAMPLE_MS = 500
_STOP_S = 15.0  # a training may take to save and end
WAITS = ("wait/master_for_simulators", "wait/master_for_queue", "wait/predictors", "wait/learner", "cores_busy")


class Watch:
    """Samples the GPUs while it is open. A context manager.

    Attributes:
        busy: mean share of the time in which the busiest GPU worked; None if there is none, or no driver tells.
        used_bytes: the most of its memory that was in use, by whomever.
    """

    busy: float | None = None
    used_bytes: int | None = None

    def __enter__(self) -> Watch:
        self._file = tempfile.TemporaryFile("w+")
        parent = os.getpid()
        try:
            self._process = subprocess.Popen(
                [*gpu.QUERY, f"--loop-ms={_SAMPLE_MS}"], stdout=self._file, stderr=subprocess.DEVNULL,
                preexec_fn=lambda: die_with_parent(parent), start_new_session=True,
            )  # fmt: skip
        except OSError:
            self._process = None
        return self

    def __exit__(self, *_):
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._file.seek(0)
        self._sum_up(gpu.parse(self._file.read()))
        self._file.close()

    def _sum_up(self, samples: list[gpu.Gpu]) -> None:
        cards = len(gpu.query())
        of_each = [samples[card::cards] for card in range(cards)]
        for of_card in of_each:
            shares = [sample.busy for sample in of_card if sample.busy is not None]
            if shares and (self.busy is None or statistics.mean(shares) >= self.busy):
                self.busy = statistics.mean(shares)
                self.used_bytes = max((s.used_bytes for s in of_card if s.used_bytes is not None), default=None)


def train(flags: list[str], seconds: float, within_s: float, after_episodes: int) -> dict:
    """Train; the medians of the epochs but the first, what the GPU did in them, and the online scores.

    Args:
        flags: of the command line; how long an epoch is among them.
        seconds: to train for after the first epoch, and on until a second one has ended.
        within_s: the training is stopped by then in any case.
        after_episodes: online scores count from then on: the episodes that end first are the short ones.

    Raises:
        RuntimeError: it failed, or no epoch ended within the time.
    """
    deadline = time.monotonic() + within_s - _STOP_S
    with tempfile.TemporaryDirectory() as directory:
        output, log = Path(directory, "run"), Path(directory, "output.txt")
        with log.open("w") as file:
            run = start("--output", str(output), "--eval-every", "0", *flags, stdout=file, start_new_session=False)
        try:
            _wait(run, output, 1, deadline)
            with Watch() as watch:
                since = time.monotonic()
                _wait(run, output, 2, deadline, since + seconds)
        finally:
            run.process.send_signal(signal.SIGINT)
            try:
                run.process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                run.process.kill()
        epochs, text = _epochs(output), log.read_text()
    if not epochs:
        raise RuntimeError(f"{' '.join(flags)}: no epoch ended within {within_s:.0f} s:\n{text[-2000:]}")
    steady = epochs[1:] or epochs
    stages = re.findall(r"\| ([a-z]+-bound)", text)
    return {
        **{name: statistics.median(epoch[name] for epoch in steady) for name in ("states_per_s", *WAITS)},
        "saturates": Counter(stages[1:] or stages).most_common(1)[0][0] if stages else None,
        "gpu_busy": watch.busy,
        "gpu_bytes": watch.used_bytes,
        "epochs": len(epochs),
        "scores": online_scores(epochs, after_episodes),
    }


def online_scores(epochs: list[dict], after_episodes: int) -> list[float]:
    """The online scores of the epochs by whose ends so many episodes had ended."""
    return [epoch["online_score"] for epoch in epochs if epoch["episodes"] and epoch["episodes"] >= after_episodes]


def _wait(run: Run, output: Path, epochs: int, deadline: float, until: float = 0.0) -> None:
    """Wait for so many epochs and until then, no longer than to the deadline or the training's end."""
    while run.process.poll() is None and time.monotonic() < deadline:
        if time.monotonic() >= until and len(_epochs(output)) >= epochs:
            return
        time.sleep(_POLL_S)


def _epochs(output: Path) -> list[dict]:
    try:
        records = json.loads((output / "stats.json").read_text())
    except FileNotFoundError:
        return []
    return [record for record in records if "states_per_s" in record]
