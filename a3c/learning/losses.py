"""What a learner minimises, from the policy's and the value's outputs over a batch."""

from __future__ import annotations

from typing import NamedTuple

from a3c.simulation.messages import RUNNING, TRUNCATED

import tensorflow as tf

MAX_IMPORTANCE_WEIGHT = 10.0


class Losses(NamedTuple):
    """Sums over the batch, scalars: losses are minimised, the entropy is maximised."""

    policy_loss: tf.Tensor
    value_loss: tf.Tensor
    entropy: tf.Tensor


def _log_probability(policy: tf.Tensor, actions: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    log_policy = tf.math.log(policy + 1e-6)
    return log_policy, tf.gather(log_policy, actions, axis=1, batch_dims=1)


def _entropy(policy: tf.Tensor, log_policy: tf.Tensor) -> tf.Tensor:
    return -tf.reduce_sum(policy * log_policy)


def clipped_is_losses(
    policy: tf.Tensor, values: tf.Tensor, actions: tf.Tensor, returns: tf.Tensor, mus: tf.Tensor
) -> Losses:
    """The original's losses: A3C (Mnih et al. 2016, section 4) with a clipped importance weight on the policy's.

    Args:
        policy: pi, float32 ``[B, A]``.
        values: float32 ``[B]``.
        actions: int32 ``[B]``.
        returns: float32 ``[B]``.
        mus: behaviour probability of the action, float32 ``[B]``.
    """
    log_policy, log_pi_a = _log_probability(policy, actions)
    pi_a = tf.gather(policy, actions, axis=1, batch_dims=1)
    weights = tf.stop_gradient(tf.clip_by_value(pi_a / (mus + 1e-8), 0.0, MAX_IMPORTANCE_WEIGHT))
    advantages = tf.stop_gradient(returns - values)
    return Losses(
        policy_loss=-tf.reduce_sum(weights * advantages * log_pi_a),
        value_loss=tf.nn.l2_loss(values - returns),
        entropy=_entropy(policy, log_policy),
    )


def clipped_surrogate_losses(
    policy: tf.Tensor,
    values: tf.Tensor,
    actions: tf.Tensor,
    returns: tf.Tensor,
    advantages: tf.Tensor,
    mus: tf.Tensor,
    clip: float,
) -> Losses:
    """The clipped surrogate objective of PPO (Schulman et al. 2017, equation 7), negated; arguments as above.

    Args:
        advantages: of the behaviour policy, float32 ``[B]``.
        clip: pi/mu beyond 1 +- clip earns nothing more.
    """
    log_policy, log_pi_a = _log_probability(policy, actions)
    ratios = tf.exp(log_pi_a - tf.math.log(mus + 1e-6))
    clipped = tf.clip_by_value(ratios, 1 - clip, 1 + clip)
    return Losses(
        policy_loss=-tf.reduce_sum(tf.minimum(ratios * advantages, clipped * advantages)),
        value_loss=tf.nn.l2_loss(values - returns),
        entropy=_entropy(policy, log_policy),
    )


def vtrace(
    ratios: tf.Tensor, values: tf.Tensor, rewards: tf.Tensor, ends: tf.Tensor, gamma: float, gae_lambda: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """V-trace (Espeholt et al. 2018, "IMPALA", equation 1 and section 4.2), with rho-bar = c-bar = 1.

    After a termination nothing is worth anything. A truncated episode goes on unseen: its last transition stands for
    nothing (its target here is its own state's value), and that value is the bootstrap of the transition before.

    Args:
        ratios: pi/mu of the actions taken, float32 ``[N, T]``.
        values: of the states, and of the one after them, float32 ``[N, T + 1]``.
        rewards: float32 ``[N, T]``.
        ends: uint8 ``[N, T]``.
        gamma: discount per step.
        gae_lambda: lambda in c = lambda min(1, ratio) (remark 2).

    Returns:
        The values' targets v and the policy's advantages rho (r + gamma v' - V), both ``[N, T]`` and constants.
    """
    ratios, values = tf.stop_gradient(ratios), tf.stop_gradient(values)
    rhos = tf.minimum(ratios, 1.0)
    discounts = gamma * tf.cast(tf.equal(ends, RUNNING), values.dtype)
    here, after = values[:, :-1], values[:, 1:]
    deltas = rhos * (rewards + discounts * after - here)
    deltas = tf.where(tf.equal(ends, TRUNCATED), tf.zeros_like(deltas), deltas)
    targets = here + _discounted_sums(deltas, discounts * gae_lambda * rhos)
    next_targets = tf.concat([targets[:, 1:], values[:, -1:]], axis=1)
    return targets, rhos * (rewards + discounts * next_targets - here)


def _discounted_sums(terms: tf.Tensor, factors: tf.Tensor) -> tf.Tensor:
    """The sums y_t = term_t + factor_t y_(t+1), y_T = 0, of ``[N, T]``: log2(T) rounds, each doubles their reach."""

    def later(x: tf.Tensor, steps: int) -> tf.Tensor:
        return tf.pad(x[:, steps:], [[0, 0], [0, steps]])

    reach = 1
    while reach < terms.shape[1]:
        terms = terms + factors * later(terms, reach)
        factors = factors * later(factors, reach)
        reach *= 2
    return terms


def vtrace_losses(
    policy: tf.Tensor, values: tf.Tensor, actions: tf.Tensor, returns: tf.Tensor, advantages: tf.Tensor
) -> Losses:
    """The losses of IMPALA (Espeholt et al. 2018, section 4.2); arguments as above.

    Args:
        returns, advantages: those of ``vtrace``.
    """
    log_policy, log_pi_a = _log_probability(policy, actions)
    return Losses(
        policy_loss=-tf.reduce_sum(advantages * log_pi_a),
        value_loss=tf.nn.l2_loss(values - returns),
        entropy=_entropy(policy, log_policy),
    )
