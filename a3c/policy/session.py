"""What runs a network's graph."""

from __future__ import annotations

import tensorflow as tf
from tensorflow.core.protobuf import config_pb2
from tensorpack import tfv1
from tensorpack.tfutils.common import get_default_sess_config


def session_config(cores: int) -> tfv1.ConfigProto:
    """The session's configuration: one thread to an operation, as many operations at a time as there are usable cores,
    and at most half of a GPU's memory."""
    config = get_default_sess_config(0.5)
    config.intra_op_parallelism_threads = 1
    config.inter_op_parallelism_threads = cores
    return config


def make_policy(session: tfv1.Session, state: tf.Tensor, outputs: list[tf.Tensor]):
    """Make a fast callable ``states -> [policy, value]``, which runs on the thread that calls it.

    Feeds and fetches are resolved once, not at each call.
    """
    options = config_pb2.CallableOptions(feed=[state.name], fetch=[tensor.name for tensor in outputs])
    options.run_options.inter_op_thread_pool = -1
    return session._make_callable_from_options(options)
