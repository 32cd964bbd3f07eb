"""What a training says when it cannot go on. The rest of the learner: the command line, end to end."""

from __future__ import annotations

from a3c.cluster.cluster import ClusterLostError
from a3c.errors import RunError
from a3c.learning.learner import _failures_told

import pytest
import tensorflow as tf

EXHAUSTED = tf.errors.ResourceExhaustedError(None, None, "fake: OOM when allocating\nmore")


@pytest.mark.parametrize("in_a_thread", [False, True])
@pytest.mark.parametrize(
    ("error", "told"),
    [
        (MemoryError(), r"not enough memory \(MemoryError\): lower --pool-states"),
        (EXHAUSTED, r"not enough memory \(fake: OOM when allocating\): lower"),
    ],
)
def test_the_end_of_memory_is_told_with_what_to_do_whoever_meets_it(error, told, in_a_thread):
    raised = error
    if in_a_thread:
        raised = RuntimeError("a thread of the actor failed")
        raised.__cause__ = error
    with pytest.raises(RunError, match=told), _failures_told():
        raise raised


def test_a_lost_cluster_is_told():
    with pytest.raises(RunError, match="fake: gone: --resume goes on from the newest checkpoint"), _failures_told():
        raise ClusterLostError("fake: gone")


@pytest.mark.parametrize("error", [ZeroDivisionError(), RunError("fake")])
def test_other_failures_are_left_alone(error):
    with pytest.raises(type(error)) as raised, _failures_told():
        raise error
    assert raised.value is error
