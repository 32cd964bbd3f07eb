"""The optimizer SOAP, against its equations written down with numpy, one axis at a time."""

from a3c.learning.soap import SoapOptimizer

import numpy as np
import pytest
import tensorflow as tf
from tensorpack import tfv1

EPSILON = 1e-5
WARM_UP, REFRESH = 20, 40


def literal_soap(weights, gradients, rates, axes):
    """The equations, with the differences that the optimizer names, on one tensor; the gradients' shape is ``axes``."""
    weights = weights.astype(np.float64).reshape(axes)
    moment, square = np.zeros(axes), np.zeros(axes)
    covariances, bases = [np.zeros((d, d)) for d in axes], [np.eye(d) for d in axes]
    for t, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        gradient = gradient.astype(np.float64).reshape(axes)
        for axis in range(len(axes)):
            others = [other for other in range(len(axes)) if other != axis]
            covariances[axis] = 0.99 * covariances[axis] + 0.01 * np.tensordot(gradient, gradient, (others, others))
        turned = turn(gradient, [basis.T for basis in bases])
        moment = 0.9 * moment + 0.1 * turned
        if t > WARM_UP:
            square = 0.999 * square + 0.001 * turned**2
            step = moment / (np.sqrt(square / (1 - 0.999 ** (t - WARM_UP))) + EPSILON)
            weights = weights - rate * turn(step, bases)
        if t == WARM_UP or t % REFRESH == 0:
            moment = turn(moment, bases)
            if t == WARM_UP:
                bases = [np.linalg.eigh(covariance)[1][:, ::-1] for covariance in covariances]
            else:
                for axis, covariance in enumerate(covariances):
                    bases[axis], _ = np.linalg.qr(covariance @ bases[axis])
            moment = turn(moment, [basis.T for basis in bases])
    return weights


def turn(tensor, bases):
    """Multiply each axis of a tensor by a matrix."""
    for axis, basis in enumerate(bases):
        tensor = np.moveaxis(np.tensordot(basis, tensor, (1, axis)), 0, axis)
    return tensor


def run_soap(start, gradients, rates, axes):
    """What the optimizer makes of the weights ``start``, and the slots' names and values."""
    with tf.Graph().as_default(), tfv1.Session() as session:
        weights = tfv1.get_variable("layer/W", initializer=tf.constant(start))
        gradient = tfv1.placeholder(tf.float32, start.shape)
        rate = tfv1.placeholder(tf.float32, [])
        optimizer = SoapOptimizer(rate, EPSILON, {"layer/W": axes} if axes else {})
        update = optimizer.apply_gradients([(gradient, weights)])
        session.run(tfv1.global_variables_initializer())
        for value, r in zip(gradients, rates, strict=True):
            session.run(update, {gradient: value.reshape(start.shape), rate: r})
        slots = {name: session.run(optimizer.get_slot(weights, name)) for name in optimizer.get_slot_names()}
        return session.run(weights), slots


def correlated(rng, axes, steps):
    """Gradients of which each axis is correlated, and whose mean is not zero."""
    mixers = [rng.normal(size=(d, d)) * np.geomspace(1, 0.1, d) for d in axes]
    noise = [turn(rng.normal(size=axes), mixers) for _ in range(steps)]
    return (np.stack(noise) + 0.3).astype(np.float32)


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((4, 3), (4, 3)), ((6, 5), (2, 3, 5)), ((2, 2, 3, 4), (12, 4)), ((5, 1), (5, 1)), ((24, 2), (2, 3, 4, 2))],
)
def test_follows_its_equations(shape, axes):
    rng = np.random.default_rng(0)
    start = rng.normal(size=shape).astype(np.float32)
    gradients, rates = correlated(rng, axes, 2 * REFRESH + 15), np.linspace(0.01, 0.001, 2 * REFRESH + 15)
    weights, _ = run_soap(start, gradients, rates, axes)
    expected = literal_soap(start, gradients, rates, axes)
    assert np.abs(expected.reshape(shape) - start).max() > 0.1
    np.testing.assert_allclose(weights, expected.reshape(shape), atol=2e-3)


def test_changes_no_weight_while_it_warms_up():
    rng = np.random.default_rng(0)
    start = rng.normal(size=(4, 3)).astype(np.float32)
    weights, _ = run_soap(start, correlated(rng, (4, 3), WARM_UP), [0.1] * WARM_UP, (4, 3))
    np.testing.assert_array_equal(weights, start)
    weights, _ = run_soap(start, correlated(rng, (4, 3), WARM_UP + 1), [0.1] * (WARM_UP + 1), (4, 3))
    assert np.all(weights != start)


def test_a_tensor_without_axes_is_given_adams_step():
    rng = np.random.default_rng(1)
    start = rng.normal(size=7).astype(np.float32)
    gradients = rng.normal(size=(60, 7)).astype(np.float32)
    weights, _ = run_soap(start, gradients, [0.01] * 60, ())
    moment, square, expected = np.zeros(7), np.zeros(7), start.astype(np.float64)
    for t, gradient in enumerate(gradients, start=1):
        moment = 0.9 * moment + 0.1 * gradient
        if t > WARM_UP:
            square = 0.999 * square + 0.001 * gradient.astype(np.float64) ** 2
            expected -= 0.01 * moment / (np.sqrt(square / (1 - 0.999 ** (t - WARM_UP))) + EPSILON)
    np.testing.assert_allclose(weights, expected, atol=1e-5)


def test_its_bases_are_orthogonal_and_find_what_a_gradient_varies_along():
    rng = np.random.default_rng(2)
    axes = (6, 4)
    direction = rng.normal(size=6)
    direction /= np.linalg.norm(direction)
    noise = rng.normal(size=(200, *axes)) * 0.1
    gradients = (noise + 3 * direction[:, None] * rng.normal(size=(200, 1, 4))).astype(np.float32)
    _, slots = run_soap(np.zeros(axes, np.float32), gradients, [0.0] * 200, axes)
    for axis, size in enumerate(axes):
        basis = slots[f"basis{axis}"]
        np.testing.assert_allclose(basis.T @ basis, np.eye(size), atol=1e-5)
    assert abs(slots["basis0"][:, 0] @ direction) > 0.999


def test_learns_faster_than_adam_where_the_noise_is_correlated():
    # A hundred times as much noise along one direction, which is no coordinate's, as along the others.
    rng = np.random.default_rng(3)
    size, steps, rate = 16, 400, 0.01
    direction = np.ones(size) / 4
    noise = rng.normal(size=(steps, size, 4)) * 0.1 + 10 * direction[:, None] * rng.normal(size=(steps, 1, 4))
    signal = rng.normal(size=(size, 4))
    signal -= direction[:, None] * (direction @ signal)
    gradients = (noise - 0.1 * signal).astype(np.float32)

    def progress(axes):
        weights, _ = run_soap(np.zeros((size, 4), np.float32), gradients, [rate] * steps, axes)
        return float((weights * signal).sum() / np.linalg.norm(signal))

    assert progress((size, 4)) > 5 * progress(())


def test_leaves_out_what_has_no_gradient():
    with tf.Graph().as_default(), tfv1.Session() as session:
        weights = tfv1.get_variable("layer/W", initializer=tf.zeros([2, 2]))
        unused = tfv1.get_variable("unused/W", initializer=tf.zeros([2, 2]))
        optimizer = SoapOptimizer(0.1, EPSILON, {"layer/W": (2, 2), "unused/W": (2, 2)})
        update = optimizer.apply_gradients([(tf.ones([2, 2]), weights), (None, unused)])
        session.run(tfv1.global_variables_initializer())
        for _ in range(WARM_UP + 1):
            session.run(update)
        changed, same = session.run([weights, unused])
    assert np.all(changed < 0)
    assert np.all(same == 0)
