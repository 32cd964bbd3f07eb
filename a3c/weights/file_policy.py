"""The policy that a model file holds: its network, ready to play."""

from __future__ import annotations

from a3c.policy.graph import build_network
from a3c.policy.networks import NETWORKS
from a3c.policy.session import make_policy, session_config
from a3c.weights.model_file import ModelFile
from atari_wrapper import STATE_SHAPE

import numpy as np
import tensorflow as tf
from tensorpack import tfv1


class FilePolicy:
    """The policy of a model file, ``states -> [policy, value]``, in a session of its own, on the thread that calls.

    Attributes:
        metadata: of the file whose weights it has now.
    """

    def __init__(self, model: ModelFile, cores: int):
        with tf.Graph().as_default():
            state = tfv1.placeholder(tf.uint8, (None, *STATE_SHAPE), "state")
            logits, value = build_network(NETWORKS[model.network], state, model.num_actions)
            self._session = tfv1.Session(config=session_config(cores))
            self._variables = tfv1.global_variables()
            self._policy = make_policy(self._session, state, [tf.nn.softmax(logits), value])
        self.load(model)

    def load(self, model: ModelFile) -> None:
        """Take the weights of this file, which is of the same network and as many actions, from now on."""
        self.metadata = model.metadata
        for variable in self._variables:
            variable.load(model.variables[variable.op.name], self._session)

    def __call__(self, states: np.ndarray) -> list[np.ndarray]:
        return self._policy(states)
