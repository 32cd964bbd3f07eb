"""A master of simulators in a test: it is started with its games, and each step is received and answered."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from a3c.seeds import Purpose, Seeds
from a3c.simulation.master import SimulatorMaster
from a3c.simulation.messages import StepBlock
from a3c.simulation.nursery import Nursery

import numpy as np

DEADLINE_S = 20.0


class RecordingNursery(Nursery):
    """A nursery that keeps what it was told to spawn."""

    def __init__(self):
        super().__init__()
        self.specs: list[dict] = []

    def spawn(self, spec: dict) -> None:
        self.specs.append(spec)
        super().spawn(spec)


def receive(master: SimulatorMaster) -> StepBlock:
    block = master.receive(DEADLINE_S)
    assert block is not None, "no step came"
    return block


def send(master: SimulatorMaster, block: StepBlock, actions) -> None:
    master.send(block.index, block.life, np.array(actions, np.int8))


def steps(master: SimulatorMaster, choose: Callable[[StepBlock], list[int]]) -> Iterator[StepBlock]:
    """The blocks of all simulators; after each of them its games' next actions are sent."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        block = receive(master)
        yield block
        send(master, block, choose(block))
    raise AssertionError(f"not over within {DEADLINE_S} s")


def fake_action(index: int, sequence: int, env: int) -> int:
    """Another one for each game and step."""
    return (50 * index + 7 * sequence + 3 * env) % 100


def seeds_of(seed: int) -> Seeds:
    return Seeds(seed, Purpose.TRAINING_GAMES)


def seeds(spec: dict) -> range:
    """The seeds of a simulator's games."""
    return range(spec["seed"], spec["seed"] + spec["num_envs"])


def fake_actions(block: StepBlock) -> list[int]:
    return [fake_action(block.index, block.sequence, env) for env in range(len(block.ends))]
