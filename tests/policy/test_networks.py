"""Networks against literal references."""

from __future__ import annotations

import math

from a3c.config import Config
from a3c.learning.model import Model
from a3c.policy.frame_statistics import FrameStatistics
from a3c.policy.graph import _first_convolution, present
from a3c.policy.networks import NETWORKS
from atari_wrapper import FRAME_SHAPE, STATE_SHAPE

import numpy as np
import pytest
import tensorflow as tf
from golden import PUBLISHED_SHAPES
from graphs import run
from tensorpack import tfv1
from tensorpack.tfutils import TowerContext

SMALL = Config(network="small").resolve(cores=1, num_gpus=0)
NATURE = Config(network="nature").resolve(cores=1, num_gpus=0)
ORIGINAL = Config(network="batch-a3c").resolve(cores=1, num_gpus=0)


# The table of the published model files, for A actions.
@pytest.mark.parametrize("num_actions", [3, 4, 6, 18])
def test_shapes_are_those_of_the_published_files(num_actions):
    shapes = NETWORKS["batch-a3c"].variable_shapes(num_actions)
    assert list(shapes.items()) == [
        (name, tuple(num_actions if n == "A" else n for n in shape)) for name, shape in PUBLISHED_SHAPES
    ]
    assert sum(math.prod(shape) for shape in shapes.values()) == 3_382_850 + 513 * num_actions


STATISTICS = FrameStatistics(np.random.default_rng(0).uniform(0, 255, FRAME_SHAPE).astype(np.float32), 60.0)


@pytest.mark.parametrize(
    ("config", "scales", "constants"),
    [
        (ORIGINAL, {}, {}),
        (SMALL, {"fc-pi": 1e-4, "fc-v": 1.0}, {"input/mean": STATISTICS.mean, "input/scale": 4 * 60}),
        (NATURE, {"fc-pi": 1e-4, "fc-v": 1.0}, {"input/mean": STATISTICS.mean, "input/scale": 4 * 60}),
    ],
)
def test_initial_weights(config, scales, constants):
    def build():
        model = Model(config, 4, STATISTICS)
        with TowerContext("", is_training=False):
            model.build_graph(*(tfv1.placeholder(spec.dtype, spec.shape) for spec in model.inputs()))
        trainable = tfv1.trainable_variables()
        others = [variable for variable in tfv1.global_variables() if variable not in trainable]
        return [{variable.op.name: variable for variable in variables} for variables in (trainable, others)]

    trainable, others = run(build)
    shapes = {name: value.shape for name, value in (trainable | others).items()}
    assert shapes == NETWORKS[config.network].variable_shapes(4)
    for name, value in trainable.items():
        layer, _, kind = name.partition("/")
        if kind == "b":
            assert not value.any()
        elif kind == "alpha":
            assert value == np.float32(0.001)
        else:
            fan_in = value.size // value.shape[-1]
            scale = np.mean(value**2) * fan_in
            assert scale / scales.get(layer, 2.0) == pytest.approx(1, abs=5 / math.sqrt(value.size))
    assert others.keys() == constants.keys()
    for name, value in constants.items():
        np.testing.assert_array_equal(others[name], value)


@pytest.mark.parametrize("name", ["small", "nature"])
def test_the_first_convolution_sees_normalised_pixels(name):
    network, r = NETWORKS[name], np.random.default_rng(1)
    conv = network.convs[0]
    states = r.integers(1, 256, (3, *STATE_SHAPE), np.uint8)
    states[1, ..., :6] = 0  # two frames are from before its episode
    weights = r.normal(size=(conv.kernel, conv.kernel, 12, conv.channels)).astype(np.float32)
    frames = states.reshape(3, 84, 84, 4, 3) - STATISTICS.mean[:, :, None]
    frames[1, ..., :2, :] = 0
    pixels = frames.reshape(states.shape) / (4 * 60)
    got, expected = run(
        lambda: (
            _first_convolution(tf.constant(states), tf.constant(weights), conv, network, STATISTICS),
            tf.nn.conv2d(tf.constant(pixels, tf.float32), tf.constant(weights), conv.stride, conv.padding),
        )
    )
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("pixel", [(42, 7), (41, 83), (0, 0), (83, 83)])
def test_a_frame_is_there_if_any_pixel_is_not_black(pixel):
    there = np.array([[0, 0, 0, 1], [0, 0, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0], [1, 0, 0, 1]], bool)
    states = np.zeros((5, *STATE_SHAPE), np.uint8)
    for state, frame in np.argwhere(there):
        states[state, *pixel, 3 * frame + 1] = 1
    np.testing.assert_array_equal(run(lambda: present(tf.constant(states))), there)
