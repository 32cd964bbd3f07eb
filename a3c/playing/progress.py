"""How far an evaluation or a recording is: a line for each episode, and on a terminal one that is kept up to date."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

_EVERY_S = 1.0


def tell(line: str) -> None:
    """Print a line, which a pipe gets at once."""
    print(line, flush=True)


class EpisodeProgress:
    """Tells of episodes as they end. A context manager; one thread uses it.

    Attributes:
        scores: of the episodes that have ended, in the order of their ends.
    """

    def __init__(self, episodes: int):
        """``episodes``: how many there will be."""
        self.scores: list[float] = []
        self._episodes, self._start_s = episodes, time.monotonic()
        self._shown_s = self._start_s
        self._bar = tqdm(total=0, bar_format="{desc}", leave=False, file=sys.stderr) if sys.stderr.isatty() else None

    def add(self, score: float, detail: str = "") -> None:
        """Print the line of an episode that has ended."""
        self.scores.append(score)
        line = f"episode {len(self.scores)} of {self._episodes}: score {score:.10g}{detail} | {self._summary()}"
        if self._bar is None:
            tell(line)
        else:
            self._bar.write(line, file=sys.stdout)
            sys.stdout.flush()
            self._show("")

    def tick(self, detail: str = "") -> None:
        """Bring a terminal's line up to date, once a second."""
        if self._bar is not None and time.monotonic() - self._shown_s >= _EVERY_S:
            self._show(detail)

    def _show(self, detail: str) -> None:
        self._shown_s = time.monotonic()
        done = f"{len(self.scores)} of {self._episodes} episodes | {self._summary()}"
        self._bar.set_description_str(" | ".join([done, *([detail] if detail else [])]))

    def _summary(self) -> str:
        """The mean so far, and the time that is likely to be left."""
        done, elapsed_s = len(self.scores), time.monotonic() - self._start_s
        if not done:
            return f"{duration(elapsed_s)} so far"
        left_s = elapsed_s / done * (self._episodes - done)
        return f"mean {sum(self.scores) / done:.2f} | {duration(left_s)} left"

    def __enter__(self) -> EpisodeProgress:
        return self

    def __exit__(self, *_):
        if self._bar is not None:
            self._bar.close()


def duration(seconds: float) -> str:
    """``0:31``, ``1:02:03``."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
