"""The model against the original's figures and literal references."""

from __future__ import annotations

import dataclasses

from a3c.config import Config
from a3c.learning.losses import vtrace
from a3c.learning.model import Model, gradient_clip
from a3c.policy.networks import NETWORKS
from a3c.simulation.messages import RUNNING, TERMINATED, TRUNCATED
from atari_wrapper import STATE_SHAPE

import numpy as np
import pytest
import tensorflow as tf
from golden import GOLDEN, golden_inputs, golden_variables
from graphs import run
from tensorpack import tfv1
from tensorpack.tfutils import TowerContext

SMALL = Config(network="small").resolve(cores=1, num_gpus=0)
ORIGINAL = Config(network="batch-a3c").resolve(cores=1, num_gpus=0)


@pytest.fixture(scope="module")
def golden() -> dict:
    """Our figures for the golden weights and inputs."""
    with tf.Graph().as_default(), tfv1.Session() as session:
        model = Model(ORIGINAL, GOLDEN["num_actions"])
        inputs = [tfv1.placeholder(spec.dtype, spec.shape, spec.name) for spec in model.inputs()]
        with TowerContext("", is_training=True):
            cost = model.build_graph(*inputs)
        variables = tfv1.trainable_variables()
        gradients = tf.gradients(cost, variables)
        names = ("policy", "value", "policy_loss", "value_loss", "entropy")
        fetches = {name: session.graph.get_tensor_by_name(f"{name}:0") for name in names}
        fetches |= {
            "cost": cost,
            "grad_norms": {v.op.name: tf.norm(g) for v, g in zip(variables, gradients, strict=True)},
        }
        session.run(tfv1.global_variables_initializer())
        values = golden_variables()
        assert {variable.op.name for variable in variables} == set(values)
        for variable in variables:
            variable.load(values[variable.op.name], session)
        return session.run(fetches, dict(zip(inputs, golden_inputs(), strict=True)))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("policy", GOLDEN["policy"]),
        ("value", GOLDEN["value"]),
        ("policy_loss", GOLDEN["policy_loss_sum"] / 16),
        ("entropy", -GOLDEN["minus_entropy_sum"] / 16),
        ("value_loss", GOLDEN["value_loss_sum"] / 16),
        ("cost", GOLDEN["cost"]),
    ],
)
def test_golden_figures(golden, name, expected):
    atol = 1e-6 if name == "value" else 0  # values near zero are sums that cancel
    np.testing.assert_allclose(golden[name], expected, rtol=1e-4, atol=atol)


@pytest.mark.parametrize("name", GOLDEN["grad_norms"])
def test_golden_gradient_norms(golden, name):
    assert golden["grad_norms"][name] == pytest.approx(GOLDEN["grad_norms"][name], rel=1e-4)


# The model


@pytest.mark.parametrize("correction", ["clipped-is", "clipped-surrogate"])
def test_cost_weighs_its_parts(correction):
    config = dataclasses.replace(SMALL, correction=correction, value_weight=0.25, surrogate_clip=0.2)
    r = np.random.default_rng(0)
    states = r.integers(0, 256, (6, *STATE_SHAPE), np.uint8)
    batch = [states, r.integers(0, 4, 6), r.normal(size=6), r.normal(size=6), r.uniform(0.1, 1, 6), np.arange(6)]

    def build():
        model = Model(config, 4)
        inputs = [tf.constant(column, spec.dtype) for column, spec in zip(batch, model.inputs(), strict=True)]
        with TowerContext("", is_training=True):
            cost = model.build_graph(*inputs)
        names = ("policy", "value", "policy_loss", "value_loss", "entropy", "entropy_beta", "policy_version")
        return {"cost": cost} | {name: tfv1.get_default_graph().get_tensor_by_name(f"{name}:0") for name in names}

    got = run(build)
    assert got["entropy_beta"] == pytest.approx(0.01)
    assert got["cost"] == pytest.approx(got["policy_loss"] - 0.01 * got["entropy"] + 0.25 * got["value_loss"], rel=1e-5)
    assert got["value_loss"] == pytest.approx(0.5 * np.mean((got["value"] - batch[2]) ** 2), rel=1e-4)
    assert got["policy_version"].tolist() == list(range(6))
    weights = got["policy"][np.arange(6), batch[1]] / batch[4]
    if correction == "clipped-is":
        terms = np.minimum(weights, 10) * (batch[2] - got["value"]) * np.log(got["policy"][np.arange(6), batch[1]])
    else:
        terms = np.minimum(weights * batch[3], np.clip(weights, 0.8, 1.2) * batch[3])
    assert got["policy_loss"] == pytest.approx(-terms.mean(), rel=1e-3)


def test_vtrace_over_whole_unrolls():
    """The model's losses are those of its own policy and values, put through ``vtrace`` unroll by unroll."""
    steps, unrolls = 3, 2
    config = dataclasses.replace(SMALL, correction="vtrace", local_time_max=steps, gae_lambda=0.9, value_weight=0.25)
    r = np.random.default_rng(0)
    states = r.integers(0, 256, (unrolls * (steps + 1), *STATE_SHAPE), np.uint8)
    actions, rewards = r.integers(0, 4, 6), r.normal(size=6)
    ends = np.array([RUNNING, TERMINATED, RUNNING, TRUNCATED, RUNNING, RUNNING])
    mus = r.uniform(0.1, 1, 6)
    batch = [states, actions, rewards, ends, mus, np.arange(6)]

    def build():
        model = Model(config, 4, shards=3)
        inputs = [tf.constant(column, spec.dtype) for column, spec in zip(batch, model.inputs(), strict=True)]
        with TowerContext("", is_training=True):
            cost = model.build_graph(*inputs)
        names = ("policy", "value", "policy_loss", "value_loss", "entropy", "policy_version")
        return {"cost": cost} | {name: tfv1.get_default_graph().get_tensor_by_name(f"{name}:0") for name in names}

    got = run(build)
    policy = got["policy"].reshape(unrolls, steps + 1, 4)[:, :-1].reshape(6, 4)
    values = got["value"].reshape(unrolls, steps + 1).astype(np.float64)
    pi_a = policy[np.arange(6), actions]
    targets, advantages = run(
        lambda: vtrace(
            tf.constant((pi_a / mus).reshape(2, 3)), tf.constant(values), tf.constant(rewards.reshape(2, 3)),
            tf.constant(ends.reshape(2, 3)), 0.99, 0.9,
        )
    )  # fmt: skip
    keep = ends != TRUNCATED
    policy_loss = -(advantages.reshape(6) * np.log(pi_a + 1e-6))[keep].mean()
    value_loss = 0.5 * ((values[:, :-1] - targets).reshape(6)[keep] ** 2).mean()
    entropy = -(policy * np.log(policy + 1e-6)).sum(axis=1)[keep].mean()
    assert got["policy_loss"] == pytest.approx(policy_loss, rel=1e-4)
    assert got["value_loss"] == pytest.approx(value_loss, rel=1e-4)
    assert got["entropy"] == pytest.approx(entropy, rel=1e-4)
    assert got["cost"] == pytest.approx(policy_loss - 0.01 * entropy + 0.25 * value_loss, rel=1e-4)
    assert got["policy_version"].tolist() == list(range(6))


@pytest.mark.parametrize("shards", [2, 3, 4])  # 4: uneven ones
def test_shards_change_neither_outputs_nor_gradients(shards):
    r = np.random.default_rng(0)
    states = r.integers(0, 256, (6, *STATE_SHAPE), np.uint8)
    batch = [states, r.integers(0, 4, 6), r.normal(size=6), r.normal(size=6), r.uniform(0.1, 1, 6), np.arange(6)]
    weights = {name: 0.05 * r.normal(size=shape) for name, shape in NETWORKS["small"].variable_shapes(4).items()}
    weights["input/scale"] = 100.0

    def outputs(shards):
        with tf.Graph().as_default() as graph, tfv1.Session() as session:
            model = Model(SMALL, 4, shards=shards)
            inputs = [tf.constant(column, spec.dtype) for column, spec in zip(batch, model.inputs(), strict=True)]
            with TowerContext("", is_training=True):
                cost = model.build_graph(*inputs)
            session.run(tfv1.global_variables_initializer())
            for variable in tfv1.global_variables():
                if variable.op.name in weights:
                    variable.load(weights[variable.op.name], session)
            named = [graph.get_tensor_by_name(f"{name}:0") for name in ("cost", "policy", "value")]
            return session.run(named + tf.gradients(cost, tfv1.trainable_variables()))

    for whole, parts in zip(outputs(1), outputs(shards), strict=True):
        np.testing.assert_allclose(parts, whole, rtol=1e-4, atol=1e-6)


# Gradient clip and optimizer

SHAPES = {"a": (3, 4), "b": (5,), "scalar": ()}


def clipped(config: Config, gradients: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    def build():
        pairs = [
            (tf.constant(value, tf.float32), tfv1.get_variable(name, value.shape)) for name, value in gradients.items()
        ]
        return {variable.op.name: gradient for gradient, variable in gradient_clip(config).process(pairs)}

    return run(build)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0])
def test_per_tensor_clip(scale):
    gradients = {name: scale * np.random.default_rng(0).normal(size=shape) for name, shape in SHAPES.items()}
    for name, got in clipped(ORIGINAL, gradients).items():
        raw = gradients[name]
        limit = 0.1 * max(1, raw.size)
        expected = raw * min(1, limit / np.linalg.norm(raw))
        np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0])
def test_global_norm_clip(scale):
    gradients = {name: scale * np.random.default_rng(0).normal(size=shape) for name, shape in SHAPES.items()}
    norm = np.sqrt(sum((value**2).sum() for value in gradients.values()))
    for name, got in clipped(SMALL, gradients).items():
        np.testing.assert_allclose(got, gradients[name] * min(1, 0.5 / norm), rtol=1e-5)


def test_optimizer_is_adam_with_the_configured_epsilon_after_the_clip():
    gradient = np.array([1e-4, -3e-4, 2e-3])

    def build():
        weights = tfv1.get_variable("w", initializer=tf.zeros(3))
        update = Model(ORIGINAL, 4).optimizer().apply_gradients([(tf.constant(gradient, tf.float32), weights)])
        with tf.control_dependencies([update]):
            return weights.read_value()

    # Kingma and Ba 2015, end of section 2, first update; its epsilon is the one of tf.train.AdamOptimizer.
    m, v = 0.1 * gradient, 0.001 * gradient**2
    expected = -1e-3 * np.sqrt(1 - 0.999) / (1 - 0.9) * m / (np.sqrt(v) + 1e-3)
    np.testing.assert_allclose(run(build), expected, rtol=1e-4)
