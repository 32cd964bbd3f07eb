"""The tensorpack model of a network."""

from __future__ import annotations

import math

from a3c.config import Config
from a3c.learning.losses import clipped_is_losses, clipped_surrogate_losses, vtrace, vtrace_losses
from a3c.policy.frame_statistics import FrameStatistics
from a3c.policy.graph import build_network
from a3c.policy.networks import NETWORKS
from a3c.simulation.messages import TRUNCATED
from atari_wrapper import STATE_SHAPE

import tensorflow as tf
from tensorpack import ModelDesc, tfv1
from tensorpack.tfutils import optimizer
from tensorpack.tfutils.gradproc import GlobalNormClip, MapGradient
from tensorpack.tfutils.summary import add_moving_summary


class Model(ModelDesc):
    """The tensorpack model: an actor-critic with the losses and the optimizer that the configuration names.

    The tensors ``policy`` ``[B, A]`` and ``value`` ``[B]`` are what a predictor fetches.
    """

    def __init__(self, config: Config, num_actions: int, statistics: FrameStatistics | None = None, shards: int = 1):
        """
        Args:
            config: the resolved configuration.
            num_actions: A.
            statistics: initial values of a ``normalize_input`` network's constants, ``input/...``.
            shards: parts of a training batch that cores work on side by side.
        """
        self._config = config
        self._num_actions = num_actions
        self._statistics = statistics
        self._network = NETWORKS[config.network]
        self._shards = shards

    def inputs(self):
        """The columns of ``Batch``, or of ``UnrollBatch`` with V-trace, each flat over games and steps."""
        targets = {"return": tf.float32, "advantage": tf.float32}
        if self._config.correction == "vtrace":
            targets = {"reward": tf.float32, "end": tf.uint8}
        columns = {"action": tf.int32, **targets, "mu": tf.float32, "version": tf.int64}
        return [
            tf.TensorSpec((None, *STATE_SHAPE), tf.uint8, "state"),
            *(tf.TensorSpec((None,), dtype, name) for name, dtype in columns.items()),
        ]

    def build_graph(self, state, action, *columns):
        config = self._config
        logits, value = self._build_shards(state) if self.training else self._build_network(state)
        policy = tf.nn.softmax(logits, name="policy")
        value = tf.identity(value, name="value")
        if not self.training:
            return None
        *targets, mu, version = columns
        tf.identity(version, name="policy_version")
        beta = _hyper_param("entropy_beta", config.entropy_beta.initial)
        if config.correction == "vtrace":
            policy, value, action, returns, advantage, mu = self._vtrace(policy, value, action, *targets, mu)
            losses = vtrace_losses(policy, value, action, returns, advantage)
        elif config.correction == "clipped-is":
            returns, _ = targets
            losses = clipped_is_losses(policy, value, action, returns, mu)
        else:
            returns, advantage = targets
            losses = clipped_surrogate_losses(policy, value, action, returns, advantage, mu, config.surrogate_clip)
        batch = tf.cast(tf.shape(action)[0], tf.float32)
        policy_loss = tf.divide(losses.policy_loss, batch, name="policy_loss")
        value_loss = tf.divide(losses.value_loss, batch, name="value_loss")
        entropy = tf.divide(losses.entropy, batch, name="entropy")
        cost = tf.add_n([policy_loss, -beta * entropy, config.value_weight * value_loss], name="cost")
        pi_a = tf.gather(policy, action, axis=1, batch_dims=1)
        add_moving_summary(
            cost,
            policy_loss,
            value_loss,
            entropy,
            tf.reduce_mean(value, name="mean_value"),
            tf.reduce_mean(returns, name="mean_return"),
            tf.sqrt(tf.reduce_mean(tf.square(returns - value)), name="value_error_rms"),
            tf.reduce_mean(pi_a / (mu + 1e-8), name="importance_weight"),
            tf.reduce_mean(
                tf.cast(tf.abs(pi_a / (mu + 1e-8) - 1) > config.surrogate_clip, tf.float32), name="clipped_share"
            ),
        )
        return cost

    def _build_network(self, state: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return build_network(self._network, state, self._num_actions, self._statistics)

    def _vtrace(self, policy, value, action, reward, end, mu) -> tuple[tf.Tensor, ...]:
        """The transitions of whole unrolls, flat and without truncated ones, with V-trace's returns and advantages."""
        config, steps = self._config, self._config.local_time_max
        policy = tf.reshape(policy, [-1, steps + 1, self._num_actions])[:, :-1]
        value = tf.reshape(value, [-1, steps + 1])
        action, reward, end, mu = (tf.reshape(column, [-1, steps]) for column in (action, reward, end, mu))
        ratio = tf.gather(policy, action, axis=2, batch_dims=2) / (mu + 1e-8)
        returns, advantage = vtrace(ratio, value, reward, end, config.gamma, config.gae_lambda)
        columns = (policy, value[:, :-1], action, returns, advantage, mu)
        return tuple(tf.boolean_mask(column, tf.not_equal(end, TRUNCATED)) for column in columns)

    def _build_shards(self, state: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # One thread for each part, forwards and backwards: cheaper than several threads within each operation.
        logits, values = [], []
        size = tf.shape(state)[0]
        sizes = [(size + shard) // self._shards for shard in range(self._shards)]
        for shard, part in enumerate(tf.split(state, tf.stack(sizes), num=self._shards)):
            with tfv1.variable_scope(tfv1.get_variable_scope(), reuse=shard > 0 or None):
                outputs = self._build_network(part)
            logits.append(outputs[0])
            values.append(outputs[1])
        return tf.concat(logits, axis=0), tf.concat(values, axis=0)

    def optimizer(self):
        config = self._config
        rate = _hyper_param("learning_rate", config.learning_rate.initial)
        tfv1.summary.scalar("learning_rate-summary", rate)
        adam = tfv1.train.AdamOptimizer(rate, epsilon=config.adam_epsilon)
        return optimizer.apply_grad_processors(adam, [gradient_clip(config)])


def gradient_clip(config: Config):
    """The gradient processor of ``--gradient-clip``."""
    if config.gradient_clip == "global-norm":
        return GlobalNormClip(config.gradient_clip_norm)
    return MapGradient(lambda g: tf.clip_by_norm(g, config.gradient_clip_norm * math.prod(g.shape.as_list())))


def _hyper_param(name: str, initial: float) -> tf.Tensor:
    with tfv1.variable_scope(tfv1.VariableScope(reuse=tfv1.AUTO_REUSE, name=""), auxiliary_name_scope=False):
        return tfv1.get_variable(name, [], initializer=tfv1.constant_initializer(initial), trainable=False)
