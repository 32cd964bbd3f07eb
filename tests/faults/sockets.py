"""Anything is sent to the sockets: it is refused and counted, memory stays, and the games go on."""

from __future__ import annotations

import logging
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from a3c.simulation.master import SimulatorMaster
from a3c.simulation.messages import RUNNING, StepBlock
from a3c.simulation.nursery import Nursery
from bench.command_line import stats
from tests.faults.strangers import Known, Strangers
from tests.faults.trial import Trials, expect_end, expect_learning, train, wait_for, without_traceback

import numpy as np
import psutil

_MESSAGES = 50_000  # in a trial; 20 trials are a million
_MESSAGES_TO_A_RUN = 1_000
_MAX_GROWTH_BYTES = 20e6
_STEP_S = 20.0


def bad_messages(directory: Path, trials: int, rng: random.Random, messages: int = _MESSAGES) -> Trials:
    """Send them to one master, which has a game at play: each is counted, told now and then, and none is a step."""
    nursery = _RecordingNursery()
    master = SimulatorMaster(nursery, (1,), {"env_id": "Pong-v0"})
    strangers = None
    try:
        earlier = _next_step(master)
        nursery.kill(0)
        step = _next_step(master)
        assert step.life > earlier.life, "it was not replaced"
        known = Known(step._replace(frames=step.frames.copy()), earlier.life)
        step = _step_after(master, step)  # its sockets are both connected
        strangers = Strangers(nursery.address, known, rng)
        memory = None
        with _warnings() as warnings:
            for _ in range(trials):
                for number in range(messages):
                    strangers.send(wait=lambda: _expect_none(master, 0.01))
                    _expect_none(master, 0.0)
                    if memory is None and number == messages // 5:
                        memory = psutil.Process().memory_info().rss
                wait_for(lambda: _expect_none(master, 0.1) or master.malformed_messages >= strangers.refused, 20, "all")
                assert master.malformed_messages == strangers.refused
                assert len(warnings) == strangers.refused.bit_length(), warnings
                for _ in range(3):
                    step = _step_after(master, step)
                growth = psutil.Process().memory_info().rss - memory
                assert growth < _MAX_GROWTH_BYTES, f"memory grew by {growth:,} bytes"
                yield f"{messages:,} messages"
        assert master.restarts == 1
    finally:
        if strangers:
            strangers.close()
        master.close()


class _RecordingNursery(Nursery):
    """Knows where the sockets are."""

    def spawn(self, spec: dict) -> None:
        self.address = spec["address"]
        super().spawn(spec)


def _next_step(master: SimulatorMaster) -> StepBlock:
    step = master.receive(_STEP_S)
    assert step is not None, f"no step in {_STEP_S:g} s"
    return step


def _step_after(master: SimulatorMaster, step: StepBlock) -> StepBlock:
    master.send(step.index, step.life, np.zeros(1, np.int8))
    after = _next_step(master)
    assert after[:3] == (step.index, step.life, step.sequence + 1), after[:3]
    return after


def _expect_none(master: SimulatorMaster, timeout_s: float) -> None:
    assert master.receive(timeout_s) is None, "it was taken for a step"


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """What the master warns of messages; it is not shown."""
    told: list[str] = []
    logger = logging.getLogger(SimulatorMaster.__module__)
    handler = logging.Handler()
    handler.emit = lambda record: told.append(record.getMessage())
    logger.addHandler(handler)
    propagate, logger.propagate = logger.propagate, False
    try:
        yield told
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


def bad_messages_to_a_run(directory: Path, trials: int, rng: random.Random) -> Trials:
    """Send them to the sockets of a training: it goes on, and its statistics have the number of them."""
    output = directory / "run"
    run = train(output, "--max-epoch", "100000", env={"TMPDIR": str(directory)})
    seen = run.read_until("Start Epoch 2")
    os.kill(run.simulators()[0], signal.SIGKILL)
    expect_learning(run, output, 1)

    def expect_alive() -> None:
        assert run.process.poll() is None, run.finish()[-3000:]
        time.sleep(0.001)

    (sockets,) = directory.glob("train-atari-sockets-*")
    games = 4
    frames = np.zeros((games, 84, 84, 3), np.uint8)
    # The one that was killed had the life 1 or 2, and the other has the other: the first step of that is over.
    step = StepBlock(0, 1, 0, 3, np.zeros(games, np.float32), np.full(games, RUNNING, np.uint8), frames)
    strangers = Strangers(str(sockets), Known(step, 2), rng)
    try:
        for _ in range(trials):
            for _ in range(_MESSAGES_TO_A_RUN):
                strangers.send(wait=expect_alive)
            expect_learning(run, output, 1)
            yield f"{_MESSAGES_TO_A_RUN:,} messages"
    finally:
        strangers.close()
    expect_learning(run, output, 2)
    record = stats(output)[-1]
    assert record["simulator_restarts"] == 1, record
    assert record["malformed_messages"] > 0.5 * strangers.refused, (record, strangers.refused)
    run.process.send_signal(signal.SIGTERM)
    without_traceback(seen + expect_end(run, 143))
