"""Graphs that a test builds and runs once."""

import tensorflow as tf
from tensorpack import tfv1


def run(build):
    """Build tensors in a graph of their own and run them once, after the initializers."""
    with tf.Graph().as_default(), tfv1.Session() as session:
        tfv1.set_random_seed(1)
        fetches = build()
        session.run(tfv1.global_variables_initializer())
        return session.run(fetches)
