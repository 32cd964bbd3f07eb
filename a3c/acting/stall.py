"""What to say when nothing moves any more."""

from __future__ import annotations

import sys
import threading
import traceback

from a3c.errors import RunError


class StallError(RunError):
    """No batch reached the learner for too long; the text says where it is stuck, with the stacks of all threads."""

    def __init__(self, stage: str, seconds: float, restarts: int):
        """
        Args:
            stage: what is blocked: simulators, predictors, queue or learner.
            seconds: how long nothing came.
            restarts: simulators that were replaced so far.
        """
        super().__init__(
            f"stalled: no batch for {seconds:g} s (--stall-timeout); blocked: {stage}; simulators replaced so far: "
            f"{restarts}\n\n{_stacks()}"
        )


def _stacks() -> str:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return "\n".join(
        f"thread {names.get(ident, ident)}:\n{''.join(traceback.format_stack(frame))}"
        for ident, frame in sys._current_frames().items()
    )
