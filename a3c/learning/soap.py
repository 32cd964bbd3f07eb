"""The optimizer SOAP: Adam in a basis in which the gradient's elements are nearly uncorrelated."""

from __future__ import annotations

import math

import tensorflow as tf
from tensorpack import tfv1

tfv1.disable_v2_behavior()

_MOMENT_DECAY = 0.9
_SQUARE_DECAY = 0.999
_COVARIANCE_DECAY = 0.99
_WARM_UP = 20  # updates that only gather covariances
_REFRESH = 40  # updates between two refinements of the bases


class SoapOptimizer(tfv1.train.Optimizer):
    """SOAP (Vyas et al. 2024, "SOAP: Improving and Stabilizing Shampoo using Adam").

    For each axis of a weight tensor it keeps the covariance of the gradient along that axis, and the eigenvectors of
    it. Adam's moments are kept in that basis; its step is turned back. Where a gradient is mostly noise, its
    covariances are those of the noise, and the step is near a natural gradient's. Differences from the paper: the
    first 20 updates change no weight, so that the first basis is of more than one gradient; a tensor may have more
    axes than two; the first moment needs no correction of its bias by then, and is turned along with the basis instead
    of at each update, which comes to the same.

    Tensors without axes are given Adam's step.
    """

    def __init__(self, learning_rate, epsilon: float, axes: dict[str, tuple[int, ...]], name: str = "Soap"):
        """
        Args:
            learning_rate: scalar tensor.
            epsilon: added to the root of the second moment.
            axes: for each variable that has such bases, by name, the shape that its gradient is given: a basis for each
                axis. An axis of d costs some 6 d flops for each weight and update.
        """
        super().__init__(use_locking=False, name=name)
        self._learning_rate = learning_rate
        self._epsilon = epsilon
        self._axes = axes

    def _create_slots(self, variables):
        self._create_non_slot_variable(initial_value=0, name="soap_updates", colocate_with=variables[0])
        for variable in variables:
            slots = {"moment": tf.zeros(variable.shape), "square": tf.zeros(variable.shape)}
            for axis, size in enumerate(self._axes.get(variable.op.name, ())):
                slots |= {f"covariance{axis}": tf.zeros([size, size]), f"basis{axis}": tf.eye(size)}
            for slot, initial in slots.items():
                self._get_or_make_slot(variable, initial, slot, f"soap_{slot}")

    def _prepare(self):
        self._updates = tf.identity(self._counter()) + 1
        since = tf.cast(tf.maximum(self._updates - _WARM_UP, 1), tf.float32)
        self._bias_correction = 1 - tf.pow(_SQUARE_DECAY, since)

    def _apply_dense(self, grad, var):
        axes = self._axes.get(var.op.name, ())
        shape = axes or var.shape
        moment, square = self.get_slot(var, "moment"), self.get_slot(var, "square")
        bases = [self.get_slot(var, f"basis{axis}") for axis in range(len(axes))]
        covariances = [self.get_slot(var, f"covariance{axis}") for axis in range(len(axes))]
        gradient = tf.reshape(grad, shape)
        warm = tf.cast(self._updates > _WARM_UP, tf.float32)
        covariances = [
            tfv1.assign(covariance, covariance + (1 - _COVARIANCE_DECAY) * (_covariance(gradient, axis) - covariance))
            for axis, covariance in enumerate(covariances)
        ]
        turned = tf.reshape(_turn(gradient, bases), var.shape)
        moment_t = tfv1.assign(moment, moment + (1 - _MOMENT_DECAY) * (turned - moment))
        square_t = tfv1.assign(square, square + (1 - _SQUARE_DECAY) * warm * (tf.square(turned) - square))
        step = moment_t / (tf.sqrt(square_t / self._bias_correction) + self._epsilon)
        step = tf.reshape(_turn(tf.reshape(step, shape), bases, back=True), var.shape)
        update = tfv1.assign_sub(var, self._learning_rate * warm * step)
        if not axes:
            return update
        with tf.control_dependencies([update]):
            first, later = tf.equal(self._updates, _WARM_UP), tf.equal(self._updates % _REFRESH, 0)
            refresh = tf.cond(
                tf.logical_or(first, later), lambda: self._refresh(moment, axes, bases, covariances, first), tf.no_op
            )
        return tf.group(update, refresh)

    def _refresh(self, moment, axes, bases, covariances, first):
        """Move the bases on: at first to the eigenvectors, later by one step of orthogonal iteration."""

        def eigenvectors(covariance):
            return tf.reverse(tf.linalg.eigh(covariance)[1], [1])

        def iterate(covariance, basis):
            return tf.linalg.qr(tf.matmul(covariance, basis))[0]

        plain = _turn(tf.reshape(moment, axes), bases, back=True)
        new = [
            tf.cond(first, lambda c=covariance: eigenvectors(c), lambda c=covariance, b=basis: iterate(c, b))
            for covariance, basis in zip(covariances, bases, strict=True)
        ]
        with tf.control_dependencies([plain, *new]):
            turned = tf.reshape(_turn(plain, new), moment.shape)
            return tf.group(tfv1.assign(moment, turned), *(tfv1.assign(b, n) for b, n in zip(bases, new, strict=True)))

    def _finish(self, update_ops, name_scope):
        # Towers side by side may count an update of each as one, but none of the counts is left out.
        with tf.control_dependencies(update_ops):
            return tf.group(*update_ops, tfv1.assign(self._counter(), self._updates), name=name_scope)

    def _counter(self):
        return self._get_non_slot_variable("soap_updates", graph=tfv1.get_default_graph())


def _around(tensor: tf.Tensor, axis: int) -> tf.Tensor:
    """Merge the axes before, and those after: ``[before, d, after]``."""
    shape = tensor.shape.as_list()
    return tf.reshape(tensor, [math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])])


def _covariance(tensor: tf.Tensor, axis: int) -> tf.Tensor:
    parts = _around(tensor, axis)
    if parts.shape[2] == 1:
        return tf.matmul(parts[:, :, 0], parts[:, :, 0], transpose_a=True)
    return tf.reduce_sum(tf.matmul(parts, parts, transpose_b=True), axis=0)


def _turn(tensor: tf.Tensor, bases: list, back: bool = False) -> tf.Tensor:
    """Express a tensor in bases, the columns of ``[d, d]`` for each axis, or turn it back."""
    shape = tensor.shape
    for axis, basis in enumerate(bases):
        parts = _around(tensor, axis)
        if parts.shape[2] == 1:
            parts = tf.matmul(parts[:, :, 0], basis, transpose_b=back)
        else:
            parts = tf.matmul(basis, parts, transpose_a=not back)
        tensor = tf.reshape(parts, shape)
    return tensor
