"""Faults, injected into runs of the real command line: what is promised holds, or the trial counts as lost.

    make faults                              # all of it, somewhat over an hour on two idle cores
    make faults ARGS="--only stall --trials 3"

Each trial is a training, or a part of one, that something is done to; a trial that does not end as promised tells why.
The moments are drawn at random from ``--seed``.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from bench import harness
from bench.command_line import kill_started
from tests.faults import evaluations, hosts, learner, not_finite, resuming, saving, simulators, sockets, stalls, window
from tests.faults.namespaces import PROGRAMS as NAMESPACES
from tests.faults.trial import Trials

import psutil


class Fault(NamedTuple):
    """A fault.

    Attributes:
        inject: draws its moments from the generator and works in an empty directory.
        trials: how often ``make faults`` injects it.
        short_trials: how often the tests do.
        programs: what it needs besides Python.
    """

    inject: Callable[[Path, int, random.Random], Trials]
    trials: int
    short_trials: int
    programs: tuple[str, ...] = ()

    def missing(self) -> str:
        """The programs that are not installed, in words; empty if all are."""
        names = [name for name in self.programs if shutil.which(name) is None]
        return f"not tried: {', '.join(names)} not installed" if names else ""


FAULTS = {  # the one that takes longest is first: the tests then end at the same time on all workers
    "host of a cluster lost": Fault(hosts.lost_hosts, 20, 1, NAMESPACES),
    "simulator killed": Fault(simulators.killed, 50, 4),
    "simulator killed, each transition checked": Fault(simulators.lives_of_transitions, 50, 4),
    "simulator killed, each unroll checked": Fault(simulators.lives_of_unrolls, 50, 4),
    "simulator dies at each start": Fault(simulators.dying_at_each_start, 20, 1),
    "simulator hangs": Fault(simulators.hanging, 20, 1),
    "learner ended": Fault(learner.ended, 100, 5),
    "all processes of a run are told to end": Fault(learner.ended_jobs, 20, 2),
    "second signal": Fault(learner.second_signals, 20, 1),
    "evaluation or recording stopped": Fault(learner.stopped_tasks, 20, 2),
    "evaluation that cannot go on or write": Fault(evaluations.evaluations, 20, 4),
    "window of play closed, or stopped": Fault(window.closed_windows, 20, 2, window.PROGRAMS),
    "killed while saving": Fault(saving.kills_while_saving, 50, 2),
    "damaged checkpoint and statistics": Fault(saving.damaged_files, 20, 2),
    "full disk or read-only directory": Fault(saving.refused_writes, 40, 2),
    "full disk at the end": Fault(saving.full_at_the_end, 20, 2),
    "stopped and resumed": Fault(resuming.resumed, 20, 1),
    "begun with --load, killed before it saved": Fault(resuming.begun_with_load, 20, 1),
    "two in one directory": Fault(resuming.two_in_one_directory, 20, 2),
    "deterministic": Fault(resuming.repeated, 20, 1),
    "loss not finite": Fault(not_finite.losses, 20, 1),
    "policy not finite": Fault(not_finite.policies, 20, 2),
    "reward not finite": Fault(not_finite.rewards, 20, 1),
    "stall": Fault(stalls.stalls, 20, 3),
    "paused": Fault(stalls.pauses, 20, 2),
    "bad messages": Fault(sockets.bad_messages, 20, 1),
    "bad messages to a run": Fault(sockets.bad_messages_to_a_run, 20, 1),
    "bad messages to a cluster's sockets": Fault(hosts.bad_messages, 20, 2),
}


def run(name: str, trials: int, seed: int) -> dict:
    """Inject a fault; return its row of the table.

    Returns:
        The fault, its trials, how many were survived, how they were tried, and what was lost first ("" for nothing).
    """
    fault, survived, tried, lost = FAULTS[name], 0, Counter(), FAULTS[name].missing()
    before = {child.pid for child in psutil.Process().children()}
    with tempfile.TemporaryDirectory(prefix="faults-") as directory:
        try:
            if not lost:
                for how in fault.inject(Path(directory), trials, random.Random(seed)):
                    survived, tried = survived + 1, tried + Counter([how])
                    harness.progress(f"{name}: {survived} of {trials} survived")
        except Exception as error:
            lost = f"{type(error).__name__}: {error}"
            survived = min(survived, trials - 1)  # the end of the run that had them all can be what is lost
        finally:
            _kill_others(before)
    ways = ", ".join(f"{how}: {count}" for how, count in tried.items() if how)
    return {"fault": name, "trials": trials, "survived": survived, "how": ways, "lost": lost}


def _kill_others(pids: set[int]) -> None:
    """Kill what a trial that was lost has left running."""
    kill_started()
    for child in psutil.Process().children():
        if child.pid not in pids:
            child.kill()
            child.wait()
