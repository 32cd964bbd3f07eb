"""The graphs of networks."""

from __future__ import annotations

from a3c.policy.frame_statistics import FrameStatistics
from a3c.policy.networks import Conv, Network
from atari_wrapper import FRAME_HISTORY, FRAME_SHAPE

import numpy as np
import tensorflow as tf
from tensorpack import tfv1

tfv1.disable_v2_behavior()

_DEVIATIONS = 4.0  # a game's objects are few pixels, many deviations from the mean frame: they become about 4
_UNKNOWN = FrameStatistics(np.zeros(FRAME_SHAPE, np.float32), 64.0)


def _first_convolution(states: tf.Tensor, weights: tf.Tensor, conv: Conv, network: Network, statistics) -> tf.Tensor:
    """Convolve normalised pixels without going over the image to normalise it: the convolution is linear.

    Pixels / 255 is a matter of the weights. The mean frame's own convolution, once for a batch and apart for each of
    the four frames of the history, is subtracted where a state has that frame: before an episode's first it is zeros.
    """
    x = tf.cast(states, tf.float32)
    if not network.normalize_input:
        return tf.nn.conv2d(x, weights / 255.0, conv.stride, conv.padding)
    statistics = statistics or _UNKNOWN

    def constant(name: str, value) -> tf.Tensor:
        with tfv1.variable_scope("input"):
            return tfv1.get_variable(name, initializer=tf.constant(value, tf.float32), trainable=False)

    mean, scale = constant("mean", statistics.mean), constant("scale", _DEVIATIONS * statistics.std)
    weights = weights / scale
    k, colours, channels = conv.kernel, FRAME_SHAPE[-1], conv.channels
    per_frame = tf.reshape(weights, [k, k, FRAME_HISTORY, colours, channels])
    per_frame = tf.reshape(tf.transpose(per_frame, [0, 1, 3, 2, 4]), [k, k, colours, FRAME_HISTORY * channels])
    of_mean = tf.nn.conv2d(mean[None], per_frame, conv.stride, conv.padding)
    height, width = of_mean.shape[1:3]
    of_mean = tf.reshape(of_mean, [height * width, FRAME_HISTORY, channels])
    of_mean = tf.reshape(tf.transpose(of_mean, [1, 0, 2]), [FRAME_HISTORY, -1])
    there = tf.cast(present(states), tf.float32)
    offset = tf.reshape(tf.matmul(there, of_mean), [-1, height, width, channels])
    return tf.nn.conv2d(x, weights, conv.stride, conv.padding) - offset


def present(states: tf.Tensor) -> tf.Tensor:
    """Which frames of a history are there, bool ``[B, 4]``: those that are not all zeros.

    One row of pixels tells for most; the states for which it does not are searched whole.
    """

    height, width, channels = states.shape[1:]

    def brightest(pixels: tf.Tensor) -> tf.Tensor:  # [N, pixels, channels] -> [N, 4]
        of_channels = tf.reshape(tf.reduce_max(pixels, axis=1), [-1, FRAME_HISTORY, channels // FRAME_HISTORY])
        return tf.reduce_max(tf.cast(of_channels, tf.int32), axis=2)

    in_row = brightest(states[:, height // 2])
    doubtful = tf.where(tf.reduce_any(in_row < 1, axis=1))
    searched = brightest(tf.reshape(tf.gather_nd(states, doubtful), [-1, height * width, channels]))
    return tf.tensor_scatter_nd_update(in_row, doubtful, searched) > 0


def build_network(
    network: Network, states: tf.Tensor, num_actions: int, statistics: FrameStatistics | None = None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Build the network's graph in the current variable scope.

    Args:
        network: which.
        states: uint8 ``[B, 84, 84, 12]``.
        num_actions: A.
        statistics: initial values of a ``normalize_input`` network's constants, ``input/...``.

    Returns:
        The policy's logits, float32 ``[B, A]``, and the value, float32 ``[B]``.
    """
    shapes = network.variable_shapes(num_actions)

    def variables(layer: str, scale: float = 2.0) -> tuple[tf.Tensor, tf.Tensor]:
        init = tfv1.variance_scaling_initializer(scale, mode="fan_in", distribution="untruncated_normal")
        with tfv1.variable_scope(layer):
            weights = tfv1.get_variable("W", shapes[f"{layer}/W"], initializer=init)
            return weights, tfv1.get_variable("b", shapes[f"{layer}/b"], initializer=tfv1.zeros_initializer())

    x = states
    for layer, conv in enumerate(network.convs):
        weights, bias = variables(conv.name)
        if layer == 0:
            x = _first_convolution(x, weights, conv, network, statistics)
        else:
            x = tf.nn.conv2d(x, weights, conv.stride, conv.padding)
        x = tf.nn.relu(tf.nn.bias_add(x, bias))
        if conv.pool > 1:
            x = tf.nn.max_pool2d(x, conv.pool, conv.pool, "VALID")
    x = tf.reshape(x, [-1, shapes["fc0/W"][0]])
    weights, bias = variables("fc0")
    x = tf.matmul(x, weights) + bias
    if network.prelu:
        with tfv1.variable_scope("prelu"):
            alpha = tfv1.get_variable("alpha", [], initializer=tfv1.constant_initializer(0.001))
        x = tf.nn.relu(x) - alpha * tf.nn.relu(-x)
    else:
        x = tf.nn.relu(x)
    weights, bias = variables("fc-pi", network.policy_scale)
    logits = tf.matmul(x, weights) + bias
    weights, bias = variables("fc-v", network.value_scale)
    return logits, tf.squeeze(tf.matmul(x, weights) + bias, axis=1)
