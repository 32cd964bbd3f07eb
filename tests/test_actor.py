"""The actor's choice of actions, and the learner's choice of devices."""

from __future__ import annotations

from actor import sample_actions
from learner import Devices

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


@pytest.mark.parametrize(
    ("num_devices", "train", "infer"),
    [
        (0, (0,), (-1,)),
        (1, (0,), (0,)),
        (2, (0,), (1,)),
        (3, (0,), (1, 2)),
        (4, (0, 1), (2, 3)),
        (5, (0, 1), (2, 3, 4)),
        (8, (0, 1, 2, 3), (4, 5, 6, 7)),
    ],
)
def test_devices(num_devices, train, infer):
    assert Devices.split(num_devices) == Devices(train, infer)
