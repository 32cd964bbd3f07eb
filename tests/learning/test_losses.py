"""Losses and V-trace's targets, in float64, against literal loops."""

from __future__ import annotations

from a3c.learning.losses import clipped_is_losses, clipped_surrogate_losses, vtrace, vtrace_losses
from a3c.simulation.messages import RUNNING, TERMINATED, TRUNCATED

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from tensorpack import tfv1

R, T, C = RUNNING, TERMINATED, TRUNCATED


def run(build):
    """Build tensors in a graph of their own and run them once."""
    with tf.Graph().as_default(), tfv1.Session() as session:
        return session.run(build())


# Losses


def sample_batch(seed=0, size=40, num_actions=5):
    r = np.random.default_rng(seed)
    policy = r.dirichlet(np.full(num_actions, 0.5), size)
    policy[0] = [1, 0, 0, 0, 0]
    values, returns, advantages = r.normal(0, 3, (3, size))
    actions = r.integers(0, num_actions, size)
    mus = r.uniform(0.01, 1, size)
    mus[1:4] = 1e-4, 1e-9, 0  # weights beyond the clip
    actions[1:4] = policy[1:4].argmax(axis=1)
    return policy, values, actions, returns, advantages, mus


def literal_entropy(policy):
    """The entropy and its gradient in the policy."""
    log = np.log(policy + 1e-6)
    return -(policy * log).sum(), -(log + policy / (policy + 1e-6))


def graph_losses(function, clip=None, **columns):
    """Losses, and their gradients in the policy, values and returns; no entry where there is no path."""

    def build():
        tensors = {name: tf.constant(column) for name, column in columns.items()}
        losses = function(**tensors, **({} if clip is None else {"clip": clip}))._asdict()
        paths = {
            (loss, name): tf.gradients(losses[loss], tensors[name])[0]
            for loss in losses
            for name in ("policy", "values", "returns")
        }
        return losses, {path: gradient for path, gradient in paths.items() if gradient is not None}

    return run(build)


def test_clipped_is_losses():
    policy, values, actions, returns, _, mus = sample_batch()
    losses, gradients = graph_losses(
        clipped_is_losses, policy=policy, values=values, actions=actions, returns=returns, mus=mus
    )
    expected, in_policy, weights = 0.0, np.zeros_like(policy), []
    for i, action in enumerate(actions):
        pi = policy[i, action]
        weights.append(min(pi / (mus[i] + 1e-8), 10.0))
        advantage = returns[i] - values[i]
        expected -= weights[-1] * advantage * np.log(pi + 1e-6)
        in_policy[i, action] = -weights[-1] * advantage / (pi + 1e-6)  # the weight and the advantage are constants
    assert weights.count(10.0) >= 3
    entropy, entropy_in_policy = literal_entropy(policy)
    np.testing.assert_allclose(losses["policy_loss"], expected, rtol=1e-9)
    np.testing.assert_allclose(losses["value_loss"], 0.5 * sum((values - returns) ** 2), rtol=1e-9)
    np.testing.assert_allclose(losses["entropy"], entropy, rtol=1e-9)
    np.testing.assert_allclose(gradients["policy_loss", "policy"], in_policy, rtol=1e-9)
    np.testing.assert_allclose(gradients["entropy", "policy"], entropy_in_policy, rtol=1e-9)
    np.testing.assert_allclose(gradients["value_loss", "values"], values - returns, rtol=1e-9)
    assert {path for path in gradients if path[0] == "policy_loss"} == {("policy_loss", "policy")}


@pytest.mark.parametrize("clip", [0.1, 0.2])
def test_clipped_surrogate_losses(clip):
    policy, values, actions, returns, advantages, mus = sample_batch(seed=1, size=200)
    pi_a = policy[np.arange(200), actions]
    mus[10:] = pi_a[10:] * np.random.default_rng(2).uniform(0.6, 1.6, 190)  # ratios on both sides of the clip
    columns = {"values": values, "actions": actions, "returns": returns, "advantages": advantages, "mus": mus}
    losses, gradients = graph_losses(clipped_surrogate_losses, clip, policy=policy, **columns)
    expected, in_policy, regions = 0.0, np.zeros_like(policy), set()
    for i, action in enumerate(actions):
        ratio = (pi_a[i] + 1e-6) / (mus[i] + 1e-6)
        expected -= min(ratio * advantages[i], np.clip(ratio, 1 - clip, 1 + clip) * advantages[i])
        region = (advantages[i] > 0, np.sign(ratio - 1) * (abs(ratio - 1) > clip))
        regions.add(region)
        earns_no_more = region in [(True, 1), (False, -1)]
        in_policy[i, action] = 0 if earns_no_more else -advantages[i] / (mus[i] + 1e-6)
    assert len(regions) == 6
    np.testing.assert_allclose(losses["policy_loss"], expected, rtol=1e-9)
    np.testing.assert_allclose(losses["value_loss"], 0.5 * sum((values - returns) ** 2), rtol=1e-9)
    np.testing.assert_allclose(losses["entropy"], literal_entropy(policy)[0], rtol=1e-9)
    np.testing.assert_allclose(gradients["policy_loss", "policy"], in_policy, rtol=1e-9, atol=1e-12)
    assert {path for path in gradients if path[0] == "policy_loss"} == {("policy_loss", "policy")}


def test_literal_gradients_are_those_of_finite_differences():
    """The hand-derived formulas above, checked: the losses along random directions in the policy."""
    policy, values, actions, returns, advantages, mus = sample_batch(seed=3)
    policy = 0.9 * policy + 0.02
    direction = np.random.default_rng(4).normal(size=policy.shape)
    step = 1e-6
    columns = {"values": values, "actions": actions, "returns": returns, "advantages": advantages, "mus": mus}
    _, gradients = graph_losses(clipped_surrogate_losses, 0.2, policy=policy, **columns)
    ahead, _ = graph_losses(clipped_surrogate_losses, 0.2, policy=policy + step * direction, **columns)
    behind, _ = graph_losses(clipped_surrogate_losses, 0.2, policy=policy - step * direction, **columns)
    for name in ("policy_loss", "entropy"):
        slope = (ahead[name] - behind[name]) / (2 * step)
        assert slope == pytest.approx((gradients[name, "policy"] * direction).sum(), rel=1e-5)


def test_vtrace_losses():
    policy, values, actions, returns, advantages, _ = sample_batch(seed=5)
    losses, gradients = graph_losses(
        vtrace_losses, policy=policy, values=values, actions=actions, returns=returns, advantages=advantages
    )
    pi_a = policy[np.arange(40), actions]
    in_policy = np.zeros_like(policy)
    in_policy[np.arange(40), actions] = -advantages / (pi_a + 1e-6)
    np.testing.assert_allclose(losses["policy_loss"], -(advantages * np.log(pi_a + 1e-6)).sum(), rtol=1e-9)
    np.testing.assert_allclose(losses["value_loss"], 0.5 * sum((values - returns) ** 2), rtol=1e-9)
    np.testing.assert_allclose(losses["entropy"], literal_entropy(policy)[0], rtol=1e-9)
    np.testing.assert_allclose(gradients["policy_loss", "policy"], in_policy, rtol=1e-9)
    assert {path for path in gradients if path[0] == "policy_loss"} == {("policy_loss", "policy")}


# V-trace


def literal_vtrace(ratios, values, rewards, ends, gamma, gae_lambda):
    """Espeholt et al. 2018, equation 1, word for word: a sum over t, with a product over i, for each s of one unroll.

    v_s = V(x_s) + sum_{t=s}^{s+n-1} gamma^{t-s} (prod_{i=s}^{t-1} c_i) delta_t
    delta_t = rho_t (r_t + gamma V(x_{t+1}) - V(x_t)), rho_t = min(1, pi/mu), c_i = lambda min(1, pi/mu)

    The sum ends with the episode. After a termination V is 0. A truncated episode's last state is the last that is
    known: its target is its value, and no sum has a term of it.
    """
    steps = len(rewards)
    targets, advantages = np.zeros(steps), np.zeros(steps)

    def v(s):  # v_T is the bootstrap
        if s == steps:
            return values[s]
        total = values[s]
        for t in range(s, steps):
            if ends[t] == TRUNCATED:
                break
            product = 1.0
            for i in range(s, t):
                product *= gae_lambda * min(1.0, ratios[i])
            value_after = 0.0 if ends[t] == TERMINATED else values[t + 1]
            delta = min(1.0, ratios[t]) * (rewards[t] + gamma * value_after - values[t])
            total += gamma ** (t - s) * product * delta
            if ends[t] == TERMINATED:
                break
        return total

    for s in range(steps):
        targets[s] = v(s)
        target_after = 0.0 if ends[s] == TERMINATED else v(s + 1)
        advantages[s] = min(1.0, ratios[s]) * (rewards[s] + gamma * target_after - values[s])
    return targets, advantages


def assert_vtrace(ratios, values, rewards, ends, gamma, gae_lambda):
    arrays = (np.array(ratios, np.float64), np.array(values, np.float64), np.array(rewards, np.float64))
    targets, advantages = run(lambda: vtrace(*map(tf.constant, arrays), tf.constant(ends, tf.uint8), gamma, gae_lambda))
    for n in range(len(ends)):
        expected = literal_vtrace(*(array[n] for array in arrays), ends[n], gamma, gae_lambda)
        np.testing.assert_allclose(targets[n], expected[0], rtol=1e-9, atol=1e-9)
        known = np.array(ends[n]) != TRUNCATED  # a truncated transition's advantage means nothing
        np.testing.assert_allclose(advantages[n][known], expected[1][known], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 8, 13])
@pytest.mark.parametrize("gae_lambda", [1.0, 0.9])
def test_vtrace_against_its_equation(steps, gae_lambda):
    r = np.random.default_rng(steps)
    ends = r.choice([R, T, C], (7, steps), p=[0.8, 0.1, 0.1])
    assert_vtrace(
        r.uniform(0, 2, (7, steps)), r.normal(size=(7, steps + 1)), r.normal(size=(7, steps)), ends, 0.97, gae_lambda
    )


@pytest.mark.parametrize("ends", [[[R, R, T]], [[T, R, R]], [[C, R, R]], [[R, C, R]], [[R, R, C]], [[T, C, T]]])
def test_vtrace_at_an_episodes_end(ends):
    assert_vtrace([[0.5, 1.5, 0.8]], [[1, -2, 3, 100]], [[1, 0, -1]], ends, 0.9, 1.0)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_vtrace_of_any_unroll(data):
    steps, games = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 3))

    def draw(shape, low, high):
        return data.draw(hnp.arrays(np.float64, shape, elements=st.floats(low, high)))

    ends = data.draw(hnp.arrays(np.uint8, (games, steps), elements=st.sampled_from([R, T, C])))
    assert_vtrace(
        draw((games, steps), 0, 20), draw((games, steps + 1), -100, 100), draw((games, steps), -1, 1), ends,
        data.draw(st.floats(0, 1)), data.draw(st.floats(0, 1)),
    )  # fmt: skip


def test_on_policy_vtrace_is_the_n_step_return():
    targets, advantages = run(
        lambda: vtrace(
            tf.ones((1, 3)), tf.constant([[5.0, 7.0, 9.0, 4.0]]), tf.constant([[1.0, 0.0, 1.0]]),
            tf.zeros((1, 3), tf.uint8), 0.5, 1.0,
        )
    )  # fmt: skip
    assert targets.tolist() == [[1 + 0.25 * 1 + 0.125 * 4, 0.5 * 1 + 0.25 * 4, 1 + 0.5 * 4]]
    np.testing.assert_allclose(advantages, targets - [[5, 7, 9]])


def test_vtrace_is_a_constant_to_the_gradient():
    def build():
        ratios, values = tf.ones((1, 2)), tf.ones((1, 3))
        outputs = vtrace(ratios, values, tf.ones((1, 2)), tf.zeros((1, 2), tf.uint8), 0.9, 1.0)
        assert tf.gradients(outputs, [ratios, values]) == [None, None]
        return outputs

    run(build)
