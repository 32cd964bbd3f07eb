"""The policy and the value, drawn beside a game's frames: ``--task dump_video --overlay``."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from a3c.playing.episode import Step

SCALE = 3  # of the game; a width and height that H.264 can have, for any game
_PANEL_WIDTH = 480
_SHOWN_STEPS = 300  # of the value, about 15 s
_MARGIN, _ROW, _LABEL_WIDTH, _NUMBER_WIDTH = 18, 26, 180, 60
_FONT, _FONT_SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.55
# Okabe and Ito's colours, which the colour-blind can tell apart; what is chosen has a mark besides.
_GROUND, _TEXT, _LINE, _BAR, _CHOSEN = (22, 22, 22), (238, 238, 238), (90, 90, 90), (86, 180, 233), (230, 159, 0)


class Overlay:
    """Draws one episode: the game three times as large, and a panel to its right. One thread uses it.

    Attributes:
        size: width and height of its pictures, both even.
    """

    def __init__(self, frame_size: tuple[int, int], actions: list[str]):
        """
        Args:
            frame_size: height and width of the game's frames.
            actions: their names, in the order of the policy's outputs.
        """
        height, width = (SCALE * length + SCALE * length % 2 for length in frame_size)
        self.size = width + _PANEL_WIDTH, height
        self._left, self._actions = width, actions
        self._values: deque[float] = deque(maxlen=_SHOWN_STEPS)

    def draw(self, frame: np.ndarray, step: Step, score: float) -> np.ndarray:
        """Draw a step of the episode.

        Args:
            frame: the game's, uint8 ``[H, W, 3]``.
            step: its value joins the curve.
            score: of the episode so far.

        Returns:
            The picture, uint8, of ``size``.
        """
        width, height = self.size
        picture = np.full((height, width, 3), _GROUND, np.uint8)
        large = frame.repeat(SCALE, axis=0).repeat(SCALE, axis=1)
        picture[: large.shape[0], : large.shape[1]] = large
        self._values.append(step.value)
        left, right, y = self._left + _MARGIN, width - _MARGIN, 2 * _MARGIN
        _write(picture, f"score {score:.10g}", left, y)
        for action, name in enumerate(self._actions):
            y += _ROW
            self._draw_action(picture, left, right, y, name, float(step.policy[action]), action == step.action)
        y += _ROW + _MARGIN
        _write(picture, f"value {step.value:.2f}", left, y)
        self._draw_curve(picture, left, right, y + _MARGIN, height - _MARGIN)
        return picture

    @staticmethod
    def _draw_action(
        picture: np.ndarray, left: int, right: int, y: int, name: str, probability: float, chosen: bool
    ) -> None:
        colour = _CHOSEN if chosen else _TEXT
        _write(picture, f"{'> ' if chosen else ''}{name}", left, y, colour)
        _write(picture, f"{probability:.0%}", right - _NUMBER_WIDTH + 8, y, colour)
        start, end = left + _LABEL_WIDTH, right - _NUMBER_WIDTH
        length = max(1, round(probability * (end - start)))
        cv2.rectangle(picture, (start, y - 13), (start + length, y), _CHOSEN if chosen else _BAR, cv2.FILLED)

    def _draw_curve(self, picture: np.ndarray, left: int, right: int, top: int, bottom: int) -> None:
        low = min(0.0, *self._values)
        high = max(0.0, low + 0.1, *self._values)

        def y(value: float) -> int:
            return round(top + (bottom - top) * (high - value) / (high - low))

        start = left + _NUMBER_WIDTH
        for value in {low, high}:
            _write(picture, f"{value:.1f}", left, y(value) + 5)
        cv2.line(picture, (start, y(0)), (right, y(0)), _LINE, 1)
        x = np.linspace(right - (right - start) * len(self._values) / _SHOWN_STEPS, right, len(self._values))
        points = np.stack([x.round(), [y(value) for value in self._values]], axis=1).astype(np.int32)
        cv2.polylines(picture, [points], isClosed=False, color=_BAR, thickness=2, lineType=cv2.LINE_AA)


def _write(picture: np.ndarray, text: str, x: int, y: int, colour: tuple[int, int, int] = _TEXT) -> None:
    cv2.putText(picture, text, (x, y), _FONT, _FONT_SCALE, colour, 1, cv2.LINE_AA)
