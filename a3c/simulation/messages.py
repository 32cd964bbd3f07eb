"""What simulators and their master say to each other: data, never objects.

A message is a msgpack header of known types and sizes, and raw buffers whose sizes the header implies.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

from atari_wrapper import FRAME_SHAPE

import msgpack
import numpy as np

RUNNING, TERMINATED, TRUNCATED = 0, 1, 2
ATARI_PLAYER = "atari_wrapper:make_player"
REST = -1  # the action that leaves a game as it is: an evaluation's game that has played its episodes
_VERSION = 1
_FRAME_BYTES = int(np.prod(FRAME_SHAPE))
_MAX_TRACEBACK = 1 << 16
_MAX_HEADER_BYTES = 1 << 19


class MessageError(ValueError):
    """A message that no simulator of this run sends."""


def max_part_bytes(envs_per_simulator: tuple[int, ...]) -> int:
    """Size of the largest part of a message that one of these simulators sends."""
    return max(_MAX_HEADER_BYTES, max(envs_per_simulator) * _FRAME_BYTES)


@dataclasses.dataclass(frozen=True)
class SimulatorSpec:
    """All that a simulator process needs to know.

    Attributes:
        index: its place among the simulators.
        life: the number of this life; no two lives of a run share it.
        seed: of its first game; the others' follow, one up each.
        num_envs: E, how many games it plays.
        address: directory of the sockets; to another machine, the fields of ``remote.RemoteAddress``.
        player: ``module:function`` that makes one game, and is given as ``seed`` what it is reset with first.
        player_args: further keyword arguments of that function.
    """

    index: int
    life: int
    seed: int
    num_envs: int
    address: str | dict
    player: str
    player_args: dict


def identity(index: int, life: int) -> bytes:
    """Name the actions' socket of one life of a simulator."""
    return f"{index}.{life}".encode()


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


def decode(
    parts: list, envs_per_simulator: tuple[int, ...], unpack: Callable[[Any, int], Any] | None = None
) -> StepBlock | tuple[int, int, str]:
    """Decode a message of a simulator.

    Args:
        parts: the parts of the message, bytes-like.
        envs_per_simulator: how many games each simulator plays.
        unpack: what makes frames of so many bytes of a part, if they are packed; it raises MessageError.

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
    frames = parts[1] if unpack is None else unpack(parts[1], envs * _FRAME_BYTES)
    if len(frames) != envs * _FRAME_BYTES:
        raise MessageError(f"{len(frames)} bytes of frames for {envs} games")
    rewards = np.frombuffer(rewards, np.float32)
    ends = np.frombuffer(ends, np.uint8)
    if not np.isfinite(rewards).all() or ends.max() > TRUNCATED:
        raise MessageError("a reward or an end has no meaning")
    frames = np.frombuffer(frames, np.uint8).reshape(envs, *FRAME_SHAPE)
    return StepBlock(index, life, sequence, emulator_frames, rewards, ends, frames)
