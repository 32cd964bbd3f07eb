"""The parts of training alone: that each is measured, and that nobody is left behind. How fast is not tested."""

from __future__ import annotations

import dataclasses

from a3c.config import CORRECTIONS, Config
from a3c.doctor import speed
from a3c.system.machine import usable_cores
from atari_wrapper import get_protocol

import pytest
from processes import descendants


def test_seconds_per_call(monkeypatch):
    clock = iter([0.0, 1.0, 2.0, 3.0])
    monkeypatch.setattr(speed.time, "perf_counter", lambda: next(clock))
    calls = []
    assert speed.seconds_per_call(lambda: calls.append(1), 2.5) == 1.0
    assert len(calls) == 3


def test_calls_of_several_threads_end_at_their_common_rate(monkeypatch):
    monkeypatch.setattr(speed, "seconds_per_call", lambda function, seconds: function() * seconds)
    assert speed._seconds_per_call_of(1, lambda: 3.0, 2.0) == 6.0
    times = iter([1.0, 1.0, 0.5])
    assert speed._seconds_per_call_of(3, lambda: next(times), 1.0) == 0.25  # one, one, and two a second


def test_a_step_is_its_frames_a_screen_and_a_resize():
    parts = {"frame": 1.0, "screen": 10.0, "resize": 100.0}
    protocol = get_protocol("Pong-v0")
    assert speed.whole_step(parts, protocol) == 113  # 2 to 4 frames
    assert speed.whole_step(parts, dataclasses.replace(protocol, frameskip=(1, 1))) == 111


def test_a_game_is_measured_on_one_core_and_on_all():
    before = descendants()
    alone, together = speed.game_seconds(get_protocol("Pong-v0"), 0.05)
    assert len(together) == usable_cores()
    assert all(1e-5 < seconds < 0.1 for seconds in (alone, *together))
    assert descendants() == before


def test_a_game_that_fails_is_told_and_leaves_nobody():
    before = descendants()
    broken = dataclasses.replace(get_protocol("Pong-v0"), env="NoSuchGame-v0")
    with pytest.raises(RuntimeError, match="has ended"):
        speed.game_seconds(broken, 0.05)
    assert descendants() == before


def test_transport_is_measured_and_leaves_nobody():
    before = descendants()
    assert speed.transport_states_per_s((3, 2), 6, 0.05) > 0
    assert descendants() == before


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_a_network_is_measured_with_each_loss(correction):
    config = Config(network="small", correction=correction, local_time_max=4, batch_size=8, pool_states=8)
    found = speed.network_seconds(config.resolve(1, 0), 6, 0.0, (2, 4), (8,), callers=2)
    assert sorted(found) == ["forward", "train"]
    assert all(0 < seconds < 1 for seconds in found.values())
