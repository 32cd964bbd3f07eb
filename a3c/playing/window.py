"""Play in a window on this machine's display."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable

from a3c.errors import UsageError
from a3c.playing.episode import ChooseActions, Policy, greedy_actions
from a3c.playing.evaluation import evaluate
from a3c.playing.progress import tell
from a3c.seeds import Purpose, Seeds
from a3c.simulation.master import SimulatorClosedError
from a3c.system.machine import no_window


def play(
    policy: Policy,
    env_id: str,
    episodes: int,
    seed: int,
    choose: ChooseActions = greedy_actions,
    report: Callable[[str], None] = tell,
    check_stop: Callable[[], None] = lambda: None,
) -> None:
    """Show the agent play in a window, at the game's own speed, until the window is closed or ``check_stop`` raises.

    Raises:
        UsageError: there is no display that opens.
    """
    if reason := no_window():
        raise UsageError(f"{reason}; watch in a browser with --watch PORT, or record with --task dump_video")
    done = itertools.count(1)
    # The game runs in a process of its own, also because its OpenGL and TensorFlow can clash in one.
    with contextlib.suppress(SimulatorClosedError):
        evaluate(
            policy,
            {"env_id": env_id, "render_mode": "human"},
            episodes,
            processes=1,
            seeds=Seeds(seed, Purpose.PLAY),
            max_games=1,
            choose=choose,
            on_episode=lambda score: report(f"episode {next(done)}/{episodes}: score {score:.10g}"),
            check_stop=check_stop,
        )
