"""How fast this machine does each part of training: the game, the transport, the forward pass and the update.

The benchmarks and ``--task doctor`` measure with this. As a program it is one of the processes of ``game_seconds``,
which play a game on a core each and die with the process that started them.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import random
import select
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from a3c.acting.unroll import UnrollBuilder, aligned_empty
from a3c.config import Config
from a3c.errors import RunError
from a3c.simulation.master import SimulatorMaster
from a3c.simulation.messages import ATARI_PLAYER, StepBlock
from a3c.simulation.nursery import Nursery
from a3c.system.machine import usable_cores
from a3c.system.processes import start_program
from atari_wrapper import FRAME_SHAPE, IMAGE_SIZE, STATE_SHAPE, Protocol, make_player

import cv2
import numpy as np

FREE_GAME = "a3c.doctor.speed:FreeGame"
RECORDED_GAME = "a3c.doctor.speed:RecordedGame"
_RECORDED_STEPS = 100
_WARM_UP_S = 0.2
_START_TIMEOUT_S = 60.0
_UNROLL_STEPS = 64
_FORWARD_BATCHES = (16, 32, 64, 128)
_TRAIN_BATCHES = (128, 256, 512)


def seconds_per_call(function: Callable[[], object], seconds: float) -> float:
    """Mean time of a call, in seconds, over at least ``seconds``."""
    calls, start = 0, time.perf_counter()
    while True:
        function()
        calls += 1
        elapsed = time.perf_counter() - start
        if elapsed >= seconds:
            return elapsed / calls


# The game.


def step_seconds(env_id: str, seconds: float) -> dict[str, float]:
    """Time the parts of a step alone: seconds per emulator frame, per RGB screen and per resize."""
    cv2.setNumThreads(1)
    ale = make_player(env_id).unwrapped.ale
    actions = random.Random(0).choices(ale.getMinimalActionSet(), k=10_000)
    screen, image = ale.getScreenRGB(), np.empty(FRAME_SHAPE, np.uint8)
    return {
        "frame": _frame_seconds(ale, actions, 0.6 * seconds),
        "screen": seconds_per_call(lambda: ale.getScreenRGB(screen), 0.2 * seconds),
        "resize": seconds_per_call(
            lambda: cv2.resize(screen, IMAGE_SIZE, dst=image, interpolation=cv2.INTER_LINEAR), 0.2 * seconds
        ),
    }


def whole_step(parts: dict[str, float], protocol: Protocol) -> float:
    """Seconds of a step that is made of the parts that ``step_seconds`` has timed."""
    return statistics.mean(protocol.frameskip) * parts["frame"] + parts["screen"] + parts["resize"]


def _frame_seconds(ale, actions: list, seconds: float) -> float:
    """Mean time of an emulator frame; resets are not in it."""
    frames, elapsed = 0, 0.0
    while elapsed < seconds:
        ale.reset_game()
        start = time.perf_counter()
        while not ale.game_over() and elapsed + time.perf_counter() - start < seconds:
            ale.act(actions[frames % len(actions)])
            frames += 1
        elapsed += time.perf_counter() - start
    return elapsed / frames


def game_seconds(protocol: Protocol, seconds: float) -> tuple[float, list[float]]:
    """Seconds of a step on one core while the others rest, and on each of the usable cores at the same time."""
    cores = sorted(os.sched_getaffinity(0))[: usable_cores()]
    with contextlib.ExitStack() as stack:
        players = [stack.enter_context(_CorePlayer(core, protocol.env, seconds)) for core in cores]
        for player in players:
            player.read(_START_TIMEOUT_S)
        times = []
        for group in (players[:1], players):
            for player in group:
                player.go()
            times.append([whole_step(player.read(_START_TIMEOUT_S + seconds), protocol) for player in group])
    return times[0][0], times[1]


class _CorePlayer:
    """A process that times a step on a core of its own, each time it is told to. A context manager."""

    def __init__(self, core: int, env_id: str, seconds: float):
        self._process = start_program(
            "a3c.doctor.speed", core, env_id, seconds, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def go(self) -> None:
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def read(self, timeout_s: float) -> dict[str, float]:
        """What it tells next; nothing at first, when it is ready. Raises RuntimeError if that does not come."""
        ready, _, _ = select.select([self._process.stdout], [], [], timeout_s)
        line = self._process.stdout.readline() if ready else ""
        if not line:
            raise RuntimeError("the process that times a game has ended, or hangs")
        return json.loads(line)

    def __enter__(self) -> _CorePlayer:
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.communicate()


def _play_on_core(core: int, env_id: str, seconds: float) -> None:
    os.sched_setaffinity(0, {core})
    print("{}", flush=True)
    for _ in sys.stdin:
        print(json.dumps(step_seconds(env_id, seconds)), flush=True)


# The transport.


class Simulators:
    """Simulators with a free policy: random actions, made beforehand."""

    def __init__(
        self,
        player_args: dict,
        envs_per_simulator: tuple[int, ...],
        num_actions: int,
        player=ATARI_PLAYER,
        make_master: Callable[..., SimulatorMaster] | None = None,
    ):
        """``make_master``: takes games, their arguments and player; by default they play on this machine."""
        make_master = make_master or functools.partial(SimulatorMaster, Nursery())
        self.master = make_master(envs_per_simulator, player_args, player)
        rng = np.random.default_rng(0)
        self._actions = rng.integers(num_actions, size=(1000, max(envs_per_simulator)), dtype=np.int8)
        # Steps that were not answered yet: the simulators rest between two measurements.
        try:
            self._waiting = [self._receive() for _ in envs_per_simulator]
        except RunError:
            self.close()
            raise

    def states_per_s(self, seconds: float, on_step=lambda step: None) -> float:
        """Play for ``seconds`` after a warm-up. ``on_step`` is called with each step before it is answered."""
        for step in self._waiting:
            on_step(step)
            self._answer(step, 0)
        self._waiting.clear()
        self._play(_WARM_UP_S, on_step)
        start = time.perf_counter()
        states = self._play(seconds, on_step)
        result = states / (time.perf_counter() - start)
        while len(self._waiting) < len(self.master.envs_per_simulator):
            self._waiting.append(self._receive())
        return result

    def _play(self, seconds: float, on_step) -> int:
        states, number, end = 0, 0, time.perf_counter() + seconds
        while time.perf_counter() < end:
            step = self._receive()
            on_step(step)
            self._answer(step, number)
            states, number = states + len(step.ends), number + 1
        return states

    def _receive(self):
        step = self.master.receive(_START_TIMEOUT_S)
        if step is None:
            raise RunError(f"no simulator made a step for {_START_TIMEOUT_S:g} s")
        return step

    def _answer(self, step, number: int) -> None:
        self.master.send(step.index, step.life, self._actions[number % len(self._actions), : len(step.ends)])

    def close(self) -> None:
        self.master.close()


class FreeGame:
    """A game that costs nothing: always the same frame, and an end every 1,000 steps."""

    def __init__(self, seed: int | None = None):
        self._frame = np.random.default_rng(0).integers(0, 256, FRAME_SHAPE, np.uint8)
        self._steps = 0

    def reset(self, seed=None):
        return self._frame, {"frame_number": self._steps}

    def step(self, action):
        self._steps += 1
        return self._frame, 0.0, self._steps % 1000 == 0, False, {"frame_number": self._steps}


class RecordedGame(FreeGame):
    """A game that costs nothing and shows a real one's frames: what random play has recorded, over and over."""

    def __init__(self, env_id: str, seed: int):
        super().__init__(seed)
        frames = _recorded_frames(env_id)
        start = random.randrange(len(frames))
        self._frames = itertools.cycle(frames[start:] + frames[:start])

    def step(self, action):
        self._frame = next(self._frames)
        return super().step(action)


@functools.cache
def _recorded_frames(env_id: str) -> list[np.ndarray]:
    """Frames of random play, uint8 ``[84, 84, 3]``; once for each process."""
    player = make_player(env_id)
    frames = [player.reset(seed=os.getpid())[0].copy()]
    for _ in range(_RECORDED_STEPS):
        frame, _, terminated, truncated, _ = player.step(random.randrange(player.action_space.n))
        frames.append((player.reset()[0] if terminated or truncated else frame).copy())
    player.close()
    return frames


class Histories:
    """What the learner's master does with a step besides receiving it: the history, in an unroll."""

    def __init__(self, envs_per_simulator: tuple[int, ...]):
        self._envs = envs_per_simulator
        self._builders: list[UnrollBuilder | None] = [None] * len(envs_per_simulator)

    def on_step(self, step: StepBlock) -> None:
        """Make the states that a predictor would take."""
        if step.sequence == 0:
            self._builders[step.index] = UnrollBuilder(self._envs[step.index], _UNROLL_STEPS)
        elif (unroll := self._builders[step.index].record(step.rewards, step.ends)) is not None:
            unroll.give_back()
        self._builders[step.index].push(step.frames)


def transport_states_per_s(envs_per_simulator: tuple[int, ...], num_actions: int, seconds: float) -> float:
    """States per second that cross from games that cost nothing, the history stacked for the policy."""
    simulators = Simulators({}, envs_per_simulator, num_actions, FREE_GAME)
    try:
        return simulators.states_per_s(seconds, Histories(envs_per_simulator).on_step)
    finally:
        simulators.close()


# The network.


def network_seconds(
    config: Config,
    num_actions: int,
    seconds: float,
    forward_batches: tuple[int, ...] = _FORWARD_BATCHES,
    train_batches: tuple[int, ...] = _TRAIN_BATCHES,
    callers: int = 1,
) -> dict[str, float]:
    """Time the forward pass and the update alone: seconds per state, each in its best batch.

    TensorFlow puts them on the GPU if it sees one, else on one thread of the CPU.

    Args:
        config: the resolved configuration.
        num_actions: A.
        seconds: of the measurement of each batch.
        forward_batches, train_batches: how many states a batch holds.
        callers: threads that call for the forward pass at the same time, as predictors do: on a GPU one's copies and
            another's inference go on side by side.
    """
    from a3c.learning.model import Model  # here: TensorFlow stays out of the benchmark's own process
    from a3c.policy.session import make_policy, session_config

    import tensorflow as tf
    from tensorflow.core.protobuf import config_pb2
    from tensorpack import tfv1
    from tensorpack.tfutils.tower import TrainTowerContext

    with tf.Graph().as_default() as graph:
        model = Model(config, num_actions)
        inputs = [tfv1.placeholder(spec.dtype, spec.shape, spec.name) for spec in model.inputs()]
        with TrainTowerContext(""):
            cost = model.build_graph(*inputs)
            update = model.optimizer().minimize(cost)
        with tfv1.Session(config=session_config(1)) as session:
            session.run(tfv1.global_variables_initializer())
            policy = make_policy(
                session, inputs[0], [graph.get_tensor_by_name(f"{name}:0") for name in ("policy", "value")]
            )
            options = config_pb2.CallableOptions(feed=[tensor.name for tensor in inputs], target=[update.name])
            learn = session._make_callable_from_options(options)

            def forward_seconds(batch: int) -> float:
                states = _states(batch)
                policy(states)
                return _seconds_per_call_of(callers, lambda: policy(states), seconds) / batch

            def train_seconds(batch: int) -> float:
                columns = _columns(config, batch, num_actions)
                learn(*columns)
                return seconds_per_call(lambda: learn(*columns), seconds) / batch

            return {
                "forward": min(forward_seconds(batch) for batch in forward_batches),
                "train": min(train_seconds(batch) for batch in train_batches),
            }


def _seconds_per_call_of(callers: int, function: Callable[[], object], seconds: float) -> float:
    """Time between two calls' ends when so many threads call at the same time."""
    if callers == 1:
        return seconds_per_call(function, seconds)
    with ThreadPoolExecutor(callers) as pool:
        times = list(pool.map(lambda _: seconds_per_call(function, seconds), range(callers)))
    return 1 / sum(1 / one for one in times)


def _states(size: int) -> np.ndarray:
    states = aligned_empty((size, *STATE_SHAPE), np.uint8)
    states[:] = np.random.default_rng(0).integers(0, 256, states.shape, np.uint8)
    return states


def _columns(config: Config, size: int, num_actions: int) -> list[np.ndarray]:
    """A batch of noise, in the order of the model's inputs; V-trace's unrolls have one state more than steps."""
    rng = np.random.default_rng(0)
    vtrace = config.correction == "vtrace"
    noise = rng.normal(size=(2, size)).astype(np.float32)
    return [
        _states(size + size // config.local_time_max if vtrace else size),
        rng.integers(0, num_actions, size, np.int32),
        noise[0],
        np.zeros(size, np.uint8) if vtrace else noise[1],
        np.full(size, 1 / num_actions, np.float32),
        np.zeros(size, np.int64),
    ]


if __name__ == "__main__":
    _play_on_core(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
