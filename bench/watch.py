"""What does --watch cost a training, while somebody watches?

    python -m bench.watch [--network small|nature|batch-a3c] [--env Pong-v0] [--rounds 5]

Subject: ``--task train --watch PORT`` without evaluation, with one client at the page all the time. Limit: the same
without. The speed is that of the epochs but the first, so that the start of the page's process does not count.
The last line is JSON: ``ratio`` (with / without), both speeds, and ``game_speed``: the game on the page, 1 is its own.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import statistics
import threading
import time
from collections.abc import Iterator

from a3c.config import Config
from a3c.flags import parse_args
from a3c.system.machine import usable_cores
from atari_wrapper import FRAMES_PER_S
from bench import harness
from bench.screenshot import free_port
from bench.train import _EPOCH_UPDATES, run_training

_RETRY_S = 0.5
_READ_TIMEOUT_S = 60.0


def events(port: int, timeout_s: float = _READ_TIMEOUT_S) -> Iterator[dict]:
    """The messages of the page on this port, as a browser gets them. Raises OSError or HTTPException if it is gone."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    with contextlib.closing(connection):
        connection.request("GET", "/events")
        response = connection.getresponse()
        if response.status != 200:
            raise http.client.HTTPException(f"status {response.status}")
        while line := response.readline():
            if line.startswith(b"data: "):
                yield json.loads(line.removeprefix(b"data: "))


class Viewer:
    """Watches a page as long as there is one, on a thread of its own, which alone touches the connection.

    A context manager.

    Attributes:
        game_speed: of the game that it saw, 1 if time passed there as it did here; 0 if it saw none.
    """

    def __init__(self, port: int):
        self._port, self._left = port, threading.Event()
        self._first: tuple[float, int] | None = None
        self.game_speed = 0.0
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._left.wait(_RETRY_S):
            with contextlib.suppress(OSError, http.client.HTTPException):
                for event in events(self._port):
                    self._see(event)
                    if self._left.is_set():
                        break

    def _see(self, event: dict) -> None:
        if "frames" not in event:
            return
        now, frames = time.monotonic(), event["frames"]
        if self._first is None:
            self._first = now, frames
        elif now > self._first[0]:
            self.game_speed = (frames - self._first[1]) / FRAMES_PER_S / (now - self._first[0])

    def __enter__(self) -> Viewer:
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._left.set()
        self._thread.join(_READ_TIMEOUT_S)


def run_watched(flags: list[str], config: Config, epoch_updates: int) -> dict[str, float]:
    """Train with somebody watching; what ``run_training`` measures, and the speed of the game on the page."""
    port = free_port()
    with Viewer(port) as viewer:
        measured = run_training([*flags, "--watch", str(port)], config, epoch_updates)
    if viewer.game_speed == 0:
        raise RuntimeError("the page showed no game: are the epochs too short?")
    return {**measured, "game_speed": viewer.game_speed}


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=sorted(_EPOCH_UPDATES), default="small")
    parser.add_argument("--env", default="Pong-v0")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epoch-updates", type=int, help="updates per epoch")
    args, flags = parser.parse_known_args()  # what is left goes to the command line as it is
    config = parse_args(["--env", args.env, "--network", args.network, *flags]).resolve(usable_cores(), 0)
    epoch_updates = args.epoch_updates or _EPOCH_UPDATES[args.network]
    results = harness.rounds(
        args.rounds,
        {
            "without --watch": lambda: run_training(flags, config, epoch_updates),
            "with --watch": lambda: run_watched(flags, config, epoch_updates),
        },
    )
    without, watched = results.values()
    speeds = [[result["states_per_s"] for result in found] for found in (watched, without)]
    harness.report(
        [
            {
                "round": number + 1,
                "states/s, watched": subject,
                "without": bound,
                "ratio": subject / bound,
                "game's speed": result["game_speed"],
            }
            for number, (subject, bound, result) in enumerate(zip(*speeds, watched, strict=True))
        ],
        {
            "benchmark": "watch",
            "network": args.network,
            "cores": usable_cores(),
            "states_per_s": statistics.median(speeds[0]),
            "limit_states_per_s": statistics.median(speeds[1]),
            "ratio": harness.median_ratio(*speeds),
            "game_speed": statistics.median(result["game_speed"] for result in watched),
        },
    )


if __name__ == "__main__":
    main()
