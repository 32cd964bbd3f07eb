"""The simulators' messages: what is sent is received, and nothing else is a message."""

from __future__ import annotations

from typing import NamedTuple

from a3c.simulation.messages import (
    RUNNING,
    TERMINATED,
    TRUNCATED,
    MessageError,
    StepBlock,
    decode,
    encode_failure,
    encode_step,
)

import hypothesis.strategies as st
import msgpack
import numpy as np
import pytest
from hypothesis import given, settings

ENVS = (2, 1)  # games of the simulators
FRAME_BYTES = 84 * 84 * 3


class Header(NamedTuple):
    """A valid one, of simulator 0; the parts of a message are this and the frames."""

    version: int = 1
    index: int = 0
    life: int = 5
    sequence: int = 9
    emulator_frames: int = 6
    rewards: bytes = np.array([1.5, -200.0], np.float32).tobytes()
    ends: bytes = bytes([TERMINATED, RUNNING])


FRAMES = np.random.default_rng(0).bytes(2 * FRAME_BYTES)
WORDS = [1, 0, 5, "Traceback"]


def step(*more: bytes, frames: bytes = FRAMES, **changes) -> list[bytes]:
    return [msgpack.packb(list(Header()._replace(**changes))), frames, *more]


def words(position: int, value) -> list[bytes]:
    return [msgpack.packb([*WORDS[:position], value, *WORDS[position + 1 :]])]


def rewards(*values: float) -> bytes:
    return np.array(values, np.float32).tobytes()


@pytest.mark.parametrize("envs", [1, 2, 16])
def test_step_round_trip(envs):
    rng = np.random.default_rng(envs)
    sent = StepBlock(
        index=1,
        life=2**40,
        sequence=2**62,
        emulator_frames=0,
        rewards=rng.normal(0, 1e6, envs).astype(np.float32),
        ends=rng.choice([RUNNING, TERMINATED, TRUNCATED], envs).astype(np.uint8),
        frames=rng.integers(0, 256, (envs, 84, 84, 3), dtype=np.uint8),
    )
    received = decode([bytes(part) for part in encode_step(sent)], (1, envs))
    assert received[:4] == sent[:4]
    for name in ("rewards", "ends", "frames"):
        np.testing.assert_array_equal(getattr(received, name), getattr(sent, name))
        assert getattr(received, name).dtype == getattr(sent, name).dtype


@pytest.mark.parametrize("text", ["", "Traceback: höchst ünerfreulich", "x" * 2**16, "ü" * 2**16])
def test_failure_round_trip(text):
    assert decode(encode_failure(1, 7, text), ENVS) == (1, 7, text)


def test_a_long_failure_keeps_its_end():
    assert decode(encode_failure(0, 7, "x" * 2**17 + "the error"), ENVS)[2].endswith("xthe error")


def test_the_valid_message_of_these_tests():
    block = decode(step(), ENVS)
    assert block[:4] == (0, 5, 9, 6)
    assert block.rewards.tolist() == [1.5, -200]
    assert block.ends.tolist() == [TERMINATED, RUNNING]
    assert block.frames.tobytes() == FRAMES
    assert decode(words(3, "Traceback"), ENVS) == (0, 5, "Traceback")


NO_NUMBERS = (-1, -(2**63), 2**63, 2**64 - 1, True, False, 0.0, 1.0, float("nan"), "0", b"0", None, [0], {})
NO_BYTES = (None, 0, 1.5, "12345678", [1.0, 2.0], {})
MALFORMED = {
    "no parts": [],
    "an empty part": [b""],
    "two empty parts": [b"", b""],
    "no header": [b"", FRAMES],
    "random bytes": [np.random.default_rng(1).bytes(200)],
    "random bytes and frames": [np.random.default_rng(2).bytes(200), FRAMES],
    "a pickle": [b"\x80\x04\x95\x00\x00\x00\x00", FRAMES],
    "frames alone": [FRAMES],
    "swapped parts": step()[::-1],
    "no frames": step()[:1],
    "a third part": step(b""),
    "many parts": step(*[b"x"] * 50),
    "a cut header": [step()[0][:-1], FRAMES],
    "something after the header": [step()[0] + b"\x00", FRAMES],
    "two headers": [step()[0] * 2, FRAMES],
    "a header too long": [msgpack.packb([1, 0, 5, "x" * 2**19])],
    "a header too long, of bytes": step(rewards=b"x" * 2**19),
    "words too long": words(3, "x" * (2**16 + 1)),
    "words and frames": [*words(3, "Traceback"), FRAMES],
    "words that are no text": [b"\x94\x01\x00\x05\xa2\xff\xff"],
    "lists within lists": [b"\x91" * 100_000],
    "maps within maps": [b"\x81\x01" * 100_000],
    "a list without end": [b"\xdd\xff\xff\xff\xff"],
    "bytes without end": [b"\x94\x01\x00\x05\xc6\xff\xff\xff\xff"],
    "a byte of no meaning": [b"\xc1"],
    "fewer fields": [msgpack.packb(list(Header())[:-1]), FRAMES],
    "more fields": [msgpack.packb([*Header(), 0]), FRAMES],
    "an empty list": [msgpack.packb([]), FRAMES],
    "an extension": [msgpack.packb(msgpack.ExtType(1, b"x"))],
    "an empty extension": [msgpack.packb(msgpack.ExtType(1, b""))],
    "a time": [msgpack.packb(msgpack.Timestamp(1))],
    "an extension in the header": step(rewards=msgpack.ExtType(1, rewards(1, 2))),
    "a nested header": [msgpack.packb([list(Header())]), FRAMES],
    "a map for a header": [msgpack.packb(Header()._asdict()), FRAMES],
    **{f"{value!r} for a header": [msgpack.packb(value), FRAMES] for value in (None, True, 1, 1.5, "x" * 7, b"x" * 7)},
    **{
        f"{value!r} for {name}": step(**{name: value})
        for name in ("version", "index", "life", "sequence", "emulator_frames")
        for value in NO_NUMBERS
    },
    **{f"{value!r} for version": step(version=value) for value in (0, 2)},
    **{f"simulator {value}": step(index=value) for value in (2, 3, 2**62)},
    **{f"{value!r} for {name}": step(**{name: value}) for name in ("rewards", "ends") for value in NO_BYTES},
    **{f"{size} bytes of rewards": step(rewards=bytes(size)) for size in (0, 4, 7, 9, 12, 16)},
    **{f"{size} bytes of ends": step(ends=bytes(size)) for size in (0, 1, 3, 8)},
    **{f"{size} bytes of frames": step(frames=FRAMES[:size]) for size in (0, 1, FRAME_BYTES, 2 * FRAME_BYTES - 1)},
    "one more byte of frames": step(frames=FRAMES + b"x"),
    "another simulator's sizes": step(index=1),
    **{f"reward {value}": step(rewards=rewards(0, value)) for value in (np.nan, np.inf, -np.inf)},
    **{f"end {value}": step(ends=bytes([RUNNING, value])) for value in (3, 4, 255)},
    **{f"words of {value!r}": words(1, value) for value in NO_NUMBERS},
    **{f"words in life {value!r}": words(2, value) for value in NO_NUMBERS},
    **{f"words of version {value!r}": words(0, value) for value in (0, 2, True, 1.0)},
    **{f"{value!r} for words": words(3, value) for value in (None, 0, b"Traceback", ["Traceback"], {})},
    "words of simulator 2": words(1, 2),
    "words without text": [msgpack.packb(WORDS[:3])],
    "words and more": [msgpack.packb([*WORDS, ""])],
}  # fmt: skip


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed(name):
    with pytest.raises(MessageError) as caught:
        decode([memoryview(part) for part in MALFORMED[name]], ENVS)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def check(parts: list[bytes]) -> None:
    """It is a message in every respect, or it is refused."""
    try:
        decoded = decode(parts, ENVS)
    except MessageError:
        return
    index, life = decoded[:2]
    assert (type(index), type(life)) == (int, int)
    assert 0 <= index < len(ENVS)
    assert 0 <= life < 2**63
    if not isinstance(decoded, StepBlock):
        assert len(decoded) == 3
        assert type(decoded[2]) is str
        return
    envs = ENVS[index]
    assert 0 <= decoded.sequence < 2**63
    assert 0 <= decoded.emulator_frames < 2**63
    assert (decoded.rewards.shape, decoded.rewards.dtype) == ((envs,), np.float32)
    assert (decoded.ends.shape, decoded.ends.dtype) == ((envs,), np.uint8)
    assert (decoded.frames.shape, decoded.frames.dtype) == ((envs, 84, 84, 3), np.uint8)
    assert np.isfinite(decoded.rewards).all()
    assert set(decoded.ends.tolist()) <= {RUNNING, TERMINATED, TRUNCATED}


SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.integers(0, 3) | st.floats() | st.text(max_size=5)
    | st.binary(max_size=9) | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=4))
)  # fmt: skip
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=8) | st.dictionaries(SCALARS, inner, max_size=2))
NEARLY = st.builds(
    lambda position, value: [*list(Header())[:position], value, *list(Header())[position + 1 :]],
    st.integers(0, 7),
    VALUES | st.binary(min_size=8, max_size=8) | st.binary(min_size=2, max_size=2),
)
HEADERS = (VALUES | NEARLY | st.lists(SCALARS, min_size=3, max_size=7)).map(msgpack.packb)
FRAME_PARTS = st.sampled_from([FRAMES, FRAMES[:FRAME_BYTES], FRAMES[:-1], b""]) | st.binary(max_size=20)


@settings(deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=4))
def test_any_bytes(parts):
    check(parts)


@settings(deadline=None, max_examples=150)
@given(HEADERS, st.lists(FRAME_PARTS, max_size=2))
def test_any_header(header, frames):
    check([header, *frames])


@settings(deadline=None, max_examples=300)
@given(st.sampled_from([step(), words(3, "Traceback")]), st.data())
def test_a_bit_that_fell_over(parts, data):
    header = bytearray(parts[0])
    header[data.draw(st.integers(0, len(header) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    check([bytes(header), *parts[1:]])
