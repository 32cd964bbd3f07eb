"""Simulators: the processes that play, their messages, and the master that receives them. Transport only.

A simulator process plays a block of E games in step. After each step it pushes one message, the newest frames,
rewards and ends of its games, and waits for their actions:

    SimulatorProcess  -- PUSH ---------> PULL --   SimulatorMaster.receive() -> StepBlock
                      <- DEALER ------ ROUTER --   SimulatorMaster.send(index, life, actions)

Messages are data, never objects: a msgpack header of known types and sizes, and raw buffers whose sizes the header
implies. The sockets are files in a directory that only this user can enter. A simulator that dies is replaced; each
of its lives has a number of its own, and what an ended life still had under way is dropped.
"""

from __future__ import annotations

import dataclasses
import importlib
import logging
import os
import shutil
import tempfile
import time
import traceback
from typing import NamedTuple

from atari_wrapper import FRAME_SHAPE
from nursery import Nursery

import cv2
import msgpack
import numpy as np
import zmq

RUNNING, TERMINATED, TRUNCATED = 0, 1, 2
REST = -1  # the action that leaves a game as it is: an evaluation's game that has played its episodes
_VERSION = 1
_FRAME_BYTES = int(np.prod(FRAME_SHAPE))
_MAX_TRACEBACK = 1 << 16
_MAX_HEADER_BYTES = 1 << 19
_ORPHAN_CHECK_MS = 1000
_BURY_EVERY_S = 0.1
_SOCKET_BUFFER_BYTES = 1 << 20  # a message is written at once, as far as the system allows
_FAILED_STARTS = 3
_CONNECT_TIMEOUT_S = 10.0
ATARI_PLAYER = "atari_wrapper:make_player"
_log = logging.getLogger(__name__)


class MessageError(ValueError):
    """A message that no simulator of this run sends."""


class SimulatorError(RuntimeError):
    """A simulator failed in a way that a new one would too; the text holds its traceback."""


class SimulatorClosedError(Exception):
    """A simulator left of its own accord: its window was closed."""


class StepBlock(NamedTuple):
    """What one simulator's E games did in their last step.

    Attributes:
        index: which simulator.
        life: which life of it.
        sequence: number of the message in this life; 0 is the first, whose frames are resets.
        emulator_frames: frames emulated since the message before, all games together.
        rewards: raw rewards, float32 ``[E]``.
        ends: uint8 ``[E]``: RUNNING, TERMINATED or TRUNCATED; after an end, the frame is the next
            episode's first.
        frames: the newest frames, uint8 ``[E, 84, 84, 3]``.
    """

    index: int
    life: int
    sequence: int
    emulator_frames: int
    rewards: np.ndarray
    ends: np.ndarray
    frames: np.ndarray


def encode_step(block: StepBlock) -> list:
    """Encode a step as the two parts of a message."""
    header = [_VERSION, block.index, block.life, block.sequence, block.emulator_frames]
    return [msgpack.packb([*header, block.rewards.tobytes(), block.ends.tobytes()]), block.frames]


def encode_failure(index: int, life: int, text: str) -> list:
    """Encode a simulator's last words, a traceback."""
    return [msgpack.packb([_VERSION, index, life, text[-_MAX_TRACEBACK:]], unicode_errors="replace")]


def decode(parts: list, envs_per_simulator: tuple[int, ...]) -> StepBlock | tuple[int, int, str]:
    """Decode a message of a simulator.

    Args:
        parts: the parts of the message, bytes-like.
        envs_per_simulator: how many games each simulator plays.

    Returns:
        A ``StepBlock`` whose arrays are views of ``parts``; or ``(index, life, text)``, a simulator's last words.

    Raises:
        MessageError: it is not such a message.
    """
    if not parts or len(parts[0]) > _MAX_HEADER_BYTES:
        raise MessageError("no header, or one too long")
    try:
        header = msgpack.unpackb(parts[0], max_array_len=7, max_map_len=0, max_ext_len=0)
    except (ValueError, msgpack.UnpackException) as error:
        raise MessageError(f"header is no msgpack: {type(error).__name__}") from None
    if not isinstance(header, list) or len(header) < 3 or header[0] != _VERSION:
        raise MessageError("header is no list of this version")
    if not all(type(value) is int and 0 <= value < 2**63 for value in header[:3]):
        raise MessageError("header has wrong types")
    index, life = header[1:3]
    if index >= len(envs_per_simulator):
        raise MessageError(f"there is no simulator {index}")
    if len(parts) == 1:
        if len(header) != 4 or not isinstance(header[3], str) or len(header[3]) > _MAX_TRACEBACK:
            raise MessageError("last words are no text")
        return index, life, header[3]
    if len(parts) != 2 or len(header) != 7:
        raise MessageError(f"{len(parts)} parts and {len(header)} header fields")
    sequence, emulator_frames, rewards, ends = header[3:]
    if not all(type(value) is int and 0 <= value < 2**63 for value in (sequence, emulator_frames)):
        raise MessageError("header has wrong types")
    envs = envs_per_simulator[index]
    if not (isinstance(rewards, bytes) and isinstance(ends, bytes) and len(rewards) == 4 * envs and len(ends) == envs):
        raise MessageError(f"rewards or ends are not those of {envs} games")
    if len(parts[1]) != envs * _FRAME_BYTES:
        raise MessageError(f"{len(parts[1])} bytes of frames for {envs} games")
    rewards = np.frombuffer(rewards, np.float32)
    ends = np.frombuffer(ends, np.uint8)
    if not np.isfinite(rewards).all() or ends.max() > TRUNCATED:
        raise MessageError("a reward or an end has no meaning")
    frames = np.frombuffer(parts[1], np.uint8).reshape(envs, *FRAME_SHAPE)
    return StepBlock(index, life, sequence, emulator_frames, rewards, ends, frames)


@dataclasses.dataclass(frozen=True)
class SimulatorSpec:
    """All that a simulator process needs to know.

    Attributes:
        index: its place among the simulators.
        life: the number of this life; no two lives of a run share it.
        seed: of its first game; the others' follow, one up each.
        num_envs: E, how many games it plays.
        address: directory of the sockets.
        player: ``module:function`` that makes one game.
        player_args: keyword arguments of that function.
    """

    index: int
    life: int
    seed: int
    num_envs: int
    address: str
    player: str
    player_args: dict


class GameBlock:
    """E games that are played in step, an episode after the other.

    Attributes:
        emulator_frames, rewards, ends, frames: of the last step, as in ``StepBlock``.
    """

    def __init__(self, players: list, seed: int):
        """Reset the games; the first one's seed is ``seed``, the others' follow, one up each."""
        self._players = players
        envs = len(players)
        self.frames = np.empty((envs, *FRAME_SHAPE), np.uint8)
        self.rewards = np.zeros(envs, np.float32)
        self.ends = np.zeros(envs, np.uint8)
        self._emulated = [0] * envs
        self._slots = list(self.frames)
        for env, player in enumerate(players):
            player.frame = self._slots[env]  # an Atari player then writes there
            frame, info = player.reset(seed=seed + env)
            self._keep(env, frame, info)
        self.emulator_frames = sum(self._emulated)

    def step(self, actions: np.ndarray) -> None:
        """Take the actions, int8 ``[E]``; a game that ends goes on with its next episode."""
        before = sum(self._emulated)
        for env, (player, action) in enumerate(zip(self._players, actions.tolist(), strict=True)):
            if action == REST:
                self.rewards[env], self.ends[env] = 0.0, RUNNING
                continue
            frame, self.rewards[env], terminated, truncated, info = player.step(action)
            self.ends[env] = TERMINATED if terminated else TRUNCATED if truncated else RUNNING
            if terminated or truncated:
                frame, info = player.reset()
            self._keep(env, frame, info)
        self.emulator_frames = sum(self._emulated) - before

    def _keep(self, env: int, frame: np.ndarray, info: dict) -> None:
        slot = self._slots[env]
        if frame is not slot:
            slot[...] = frame
        self._emulated[env] = info["frame_number"]


class SimulatorProcess:
    """The process that plays E games in step. All of it runs in the process that the nursery forked."""

    def __init__(self, spec: SimulatorSpec):
        self._spec = spec
        self._parent_pid = os.getppid()
        context = self._context = zmq.Context()
        self._push = context.socket(zmq.PUSH)
        self._push.setsockopt(zmq.SNDHWM, 2)
        self._push.setsockopt(zmq.SNDBUF, _SOCKET_BUFFER_BYTES)
        self._push.connect(f"ipc://{spec.address}/steps")
        self._dealer = context.socket(zmq.DEALER)
        self._dealer.setsockopt(zmq.IDENTITY, _identity(spec.index, spec.life))
        self._dealer.setsockopt(zmq.RCVTIMEO, _ORPHAN_CHECK_MS)
        self._dealer.connect(f"ipc://{spec.address}/actions")

    def run(self) -> None:
        """Play until killed. A failure is told to the master before it is raised."""
        try:
            self._play()
        except Exception:
            self._push.send_multipart(encode_failure(self._spec.index, self._spec.life, traceback.format_exc()))
            self._dealer.close(linger=0)
            self._push.close(linger=2000)
            self._context.term()  # os._exit would not wait until the words are on their way
            raise

    def _play(self) -> None:
        cv2.setNumThreads(1)
        module, function = self._spec.player.split(":")
        make_player = getattr(importlib.import_module(module), function)
        games = GameBlock([make_player(**self._spec.player_args) for _ in range(self._spec.num_envs)], self._spec.seed)
        sequence = 0
        while True:
            block = StepBlock(
                self._spec.index,
                self._spec.life,
                sequence,
                games.emulator_frames,
                games.rewards,
                games.ends,
                games.frames,
            )
            self._push.send_multipart(encode_step(block))
            sequence += 1
            games.step(self._receive_actions())

    def _receive_actions(self) -> np.ndarray:
        while True:
            try:
                actions = np.frombuffer(self._dealer.recv(), np.int8)
                break
            except zmq.Again:
                if os.getppid() != self._parent_pid:
                    os._exit(1)
        if len(actions) != self._spec.num_envs:
            raise MessageError(f"{len(actions)} actions for {self._spec.num_envs} games")
        return actions


def run_simulator(spec: dict) -> None:
    """Run a simulator in this process; ``spec`` holds the fields of ``SimulatorSpec``."""
    SimulatorProcess(SimulatorSpec(**spec)).run()


def _identity(index: int, life: int) -> bytes:
    return f"{index}.{life}".encode()


class SimulatorMaster:
    """The learner's end of the transport: receives steps, sends actions, replaces simulators that died.

    ``receive`` is called by one thread and ``send`` by one thread, which may be two: each owns one socket.
    """

    def __init__(
        self,
        nursery: Nursery,
        envs_per_simulator: tuple[int, ...],
        player_args: dict,
        player: str = ATARI_PLAYER,
        seed: int = 0,
    ):
        """Start the simulators.

        Args:
            nursery: forks them; no other master may use it, and ``close`` closes it.
            envs_per_simulator: how many games each simulator plays.
            player_args: keyword arguments of ``player``, such as ``{"env_id": "Pong-v0"}``.
            player: ``module:function`` that makes one game.
            seed: no two games of a run, nor of its seeds, share a seed.
        """
        self.envs_per_simulator = envs_per_simulator
        self.malformed_messages = 0
        self.restarts = 0
        self._nursery = nursery
        self._player, self._player_args, self._seed = player, player_args, seed
        self._directory = tempfile.mkdtemp(prefix="train-atari-")  # mode 0700
        self._context = zmq.Context()
        self._pull = self._context.socket(zmq.PULL)
        self._pull.setsockopt(zmq.RCVHWM, 2)
        self._pull.bind(f"ipc://{self._directory}/steps")
        self._router = self._context.socket(zmq.ROUTER)
        self._router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._router.setsockopt(zmq.SNDTIMEO, 100)
        self._router.bind(f"ipc://{self._directory}/actions")
        self._next_burial = 0.0
        self._lives = 0
        self._life = [0] * len(envs_per_simulator)  # the current one of each simulator
        self._next_sequence = [0] * len(envs_per_simulator)
        self._reached = [0] * len(envs_per_simulator)  # the life that has been sent actions
        self._failed_starts = [0] * len(envs_per_simulator)
        for index in range(len(envs_per_simulator)):
            self._spawn(index)

    def _spawn(self, index: int) -> None:
        self._lives += 1
        self._life[index] = self._lives
        self._next_sequence[index] = 0
        seed = (self._seed * 1_000_000 + self._lives) * 100_000  # lives are unique: so are their games' seeds
        spec = SimulatorSpec(
            index, self._lives, seed, self.envs_per_simulator[index], self._directory, self._player, self._player_args
        )
        self._nursery.spawn(dataclasses.asdict(spec))

    def receive(self, timeout_s: float) -> StepBlock | None:
        """Wait for the next step of any simulator.

        Args:
            timeout_s: seconds to wait at most.

        Returns:
            The step, or None when the time is over. ``sequence`` 0 marks the first step of a new life: what is
            known of the simulator's games from before it is void.

        Raises:
            SimulatorError: a simulator told its failure, or ended several times before its first step.
            SimulatorClosedError: a simulator's window was closed.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            now = time.monotonic()
            if now >= self._next_burial:  # by the clock: with busy simulators there is always a step
                self._bury()
                self._next_burial = now + _BURY_EVERY_S
            self._pull.setsockopt(zmq.RCVTIMEO, int(1000 * max(0.0, min(deadline - now, _BURY_EVERY_S))))
            try:
                block = self._decode(self._pull.recv_multipart(copy=False))
            except zmq.Again:
                self._next_burial, block = now, None
            if block is not None or now >= deadline:
                return block

    def _decode(self, message: list[zmq.Frame]) -> StepBlock | None:
        try:
            decoded = decode([frame.buffer for frame in message], self.envs_per_simulator)
        except MessageError as error:
            return self._refuse(str(error))
        index, life = decoded[:2]
        if not isinstance(decoded, StepBlock):  # perhaps overtaken by the news of its end: of whatever life they are
            raise SimulatorError(f"simulator {index} fails:\n{decoded[2]}")
        if life != self._life[index]:  # what a life that ended had under way
            return None
        if decoded.sequence != self._next_sequence[index]:
            return self._refuse(f"step {decoded.sequence} of simulator {index} out of turn")
        self._next_sequence[index] += 1
        self._failed_starts[index] = 0
        return decoded

    def _refuse(self, reason: str) -> None:
        self.malformed_messages += 1
        if self.malformed_messages.bit_count() == 1:  # the 1st, 2nd, 4th, 8th ...
            _log.warning("%d messages refused so far, the last one because: %s", self.malformed_messages, reason)

    def _bury(self) -> None:
        for index, life, status in self._nursery.exits():
            if life != self._life[index]:
                continue
            if self._next_sequence[index] == 0:
                self._failed_starts[index] += 1
            if status == 0:
                raise SimulatorClosedError
            if self._failed_starts[index] >= _FAILED_STARTS:
                raise SimulatorError(f"simulator {index} fails: it ended with status {status} and left no traceback")
            self.restarts += 1
            _log.warning("simulator %d ended with status %d: a new one takes its place", index, status)
            self._spawn(index)

    def send(self, index: int, life: int, actions: np.ndarray) -> None:
        """Send the actions of one simulator's games, int8 ``[E]``; silently to nobody if that life has ended."""
        deadline = time.monotonic() + _CONNECT_TIMEOUT_S
        while self._life[index] == life:
            try:
                self._router.send_multipart([_identity(index, life), actions.tobytes()])
                self._reached[index] = life
                return
            except zmq.ZMQError as error:
                if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                    raise
                # A new life's first step can be here before its other socket has connected; later it has died.
                if self._reached[index] == life or time.monotonic() > deadline:
                    return
                time.sleep(0.001)

    def close(self) -> None:
        """Kill the simulators, close the sockets and remove their directory. No other thread may still use it."""
        self._nursery.close()
        self._context.destroy(linger=0)
        shutil.rmtree(self._directory, ignore_errors=True)
