"""How actions are drawn, and what a predictor does with what waits."""

from __future__ import annotations

import queue
import threading
from types import SimpleNamespace

from a3c.acting.predictor import Predictor, Request, sample_actions
from atari_wrapper import STATE_SHAPE

import numpy as np
import pytest

ALMOST_ONE = np.nextafter(1.0, 0.0)


def policy_of(*rows) -> np.ndarray:
    return np.array(rows, np.float32)


@pytest.mark.parametrize(
    ("row", "uniform", "action"),
    [
        ((0.25, 0.25, 0.5), 0.0, 0),
        ((0.25, 0.25, 0.5), 0.2499, 0),
        ((0.25, 0.25, 0.5), 0.25, 1),
        ((0.25, 0.25, 0.5), 0.5, 2),
        ((0.25, 0.25, 0.5), 0.999999, 2),
        ((0.25, 0.25, 0.5), ALMOST_ONE, 2),
        ((0, 1, 0), 0.0, 1),
        ((0, 1, 0), 0.999999, 1),
        ((0, 0, 1), 0.0, 2),
        ((1, 0, 0), ALMOST_ONE, 0),
        ((0.5, 0, 0.5), 0.5, 2),
        ((0.2, 0.2, 0.2), 0.0, 0),  # sums to 0.6
        ((0.2, 0.2, 0.2), 0.34, 1),
        ((0.2, 0.2, 0.2), ALMOST_ONE, 2),
        ((0.4, 0.4, 0.4), 0.9, 2),  # sums to 1.2
        ((0.7, 0.7, 0), ALMOST_ONE, 1),
        ((1,), ALMOST_ONE, 0),
    ],
)
def test_sample_by_table(row, uniform, action):
    actions, mus = sample_actions(policy_of(row), np.array([uniform]))
    assert actions.tolist() == [action]
    assert mus.tolist() == policy_of(row)[0, [action]].tolist()
    assert mus.dtype == np.float32


def test_rows_are_drawn_each_by_its_own_number():
    policy = policy_of((0.9, 0.1), (0.1, 0.9), (0.5, 0.5), (1, 0))
    actions, mus = sample_actions(policy, np.array([0.5, 0.05, 0.75, 0.999999]))
    assert actions.tolist() == [0, 0, 1, 0]
    np.testing.assert_array_equal(mus, policy_of((0.9, 0.1, 0.5, 1))[0])


@pytest.mark.parametrize(
    "row", [(0.1, 0.2, 0.3, 0.4), (0.97, 0.01, 0.01, 0.01), (0, 0.5, 0, 0.5), (0.25, 0.25, 0.25, 0.2499)]
)
def test_actions_follow_the_policy(row):
    draws = 100_000
    actions, _ = sample_actions(np.repeat(policy_of(row), draws, axis=0), np.random.default_rng(0).random(draws))
    shares = np.bincount(actions, minlength=4) / draws
    np.testing.assert_allclose(shares, np.array(row) / sum(row), atol=0.005)


def test_an_action_of_probability_zero_is_never_drawn():
    r = np.random.default_rng(0)
    policy = r.dirichlet(np.full(6, 0.3), 20_000)
    policy[r.random(policy.shape) < 0.4] = 0
    policy[:, 3] += 1e-7
    policy = (policy / policy.sum(axis=1, keepdims=True)).astype(np.float32)
    for uniform in (r.random(len(policy)), np.zeros(len(policy)), np.full(len(policy), ALMOST_ONE)):
        actions, mus = sample_actions(policy, uniform)
        assert actions.min() >= 0
        assert actions.max() < 6
        assert mus.min() > 0
        np.testing.assert_array_equal(mus, policy[np.arange(len(policy)), actions])


def make_predictor(envs: tuple[int, ...], batch_size: int) -> Predictor:
    rng = np.random.default_rng(0)
    return Predictor(rng, queue.SimpleQueue(), queue.SimpleQueue(), envs, batch_size)


def request(index: int, envs: int, decided: list | None = None) -> Request:
    """Of simulator ``index``, whose states are filled with its number; what is decided goes to ``decided``."""
    states = np.full((envs, *STATE_SHAPE), index, np.uint8)
    builder = SimpleNamespace(push=lambda frames: states, decide=lambda *args: decided.append((index, *args)))
    return Request(index, 10 + index, builder, states[..., -3:])


@pytest.mark.parametrize(
    ("envs", "batch_size", "taken"),
    [((1, 1, 1), 2, 2), ((1, 1, 1), 16, 3), ((8, 8, 8), 16, 2), ((10, 10, 10), 16, 1), ((20, 20), 16, 1)],
)
def test_an_inference_batch_has_at_most_its_size_but_one_block(envs, batch_size, taken):
    predictor = make_predictor(envs, batch_size)
    for index, size in enumerate(envs):
        predictor._requests.put(request(index, size))
    assert [request.index for request in predictor._take_requests()] == list(range(taken))
    assert predictor._requests.qsize() == len(envs) - taken


@pytest.mark.parametrize(("batch_size", "inferences"), [(16, [[0, 0, 1, 2, 2]]), (1, [[0, 0], [1], [2, 2]])])
def test_each_waiting_simulator_gets_its_own_actions(batch_size, inferences):
    decided, acted_on, stop = [], [], threading.Event()
    predictor = make_predictor((2, 1, 2), batch_size)
    for index, size in enumerate((2, 1, 2)):
        predictor._requests.put(request(index, size, decided))

    def act_by_number(states):
        numbers = states[:, 0, 0, 0]
        acted_on.append(numbers.tolist())
        if sum(map(len, acted_on)) == 5:
            stop.set()
        return np.eye(3, dtype=np.float32)[numbers], numbers / np.float32(2)

    predictor.run(act_by_number, lambda: 7 + len(acted_on), stop)
    assert acted_on == inferences
    answers = [predictor._answers.get_nowait() for _ in range(3)]
    assert [(a.index, a.life, a.actions.tolist()) for a in answers] == [(0, 10, [0, 0]), (1, 11, [1]), (2, 12, [2, 2])]
    assert {a.actions.dtype for a in answers} == {np.dtype(np.int8)}
    assert predictor._answers.empty()
    for index, actions, mus, values, _ in decided:
        assert set(actions) == {index}
        assert set(mus) == {1}
        assert set(values) == {index / 2}
    versions = [7 if batch_size == 16 else 7 + index for index in range(3)]  # of the policy, before each inference
    assert [version for *_, version in decided] == versions


def test_waiting_is_counted_and_ends():
    predictor = make_predictor((1,), 1)
    assert predictor._take_requests() == []
    stop = threading.Event()
    running = threading.Thread(target=predictor.run, args=(None, lambda: 0, stop), daemon=True)
    running.start()
    running.join(0.7)
    assert running.is_alive()
    stop.set()
    running.join(5)
    assert not running.is_alive()
    assert 0.5 <= predictor.wait_s < 5
