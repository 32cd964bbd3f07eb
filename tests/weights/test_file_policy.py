"""The policy of a model file: what it computes, against the original's figures and a literal network."""

from __future__ import annotations

from a3c.weights.file_policy import FilePolicy
from a3c.weights.model_file import read_model, write_model
from atari_wrapper import IMAGE_SIZE, STATE_SHAPE

import numpy as np
import pytest
from golden import GOLDEN, golden_inputs, golden_variables
from model_files import small_variables


def test_batch_a3c_is_told_by_its_shapes_and_plays_the_golden_policy(file):
    np.savez(file, **golden_variables())
    model = read_model(str(file))
    assert model[2:5] == ("batch-a3c", 4, {})
    policy, value = FilePolicy(model, cores=1)(golden_inputs()[0])
    np.testing.assert_allclose(policy, GOLDEN["policy"], rtol=1e-4)
    np.testing.assert_allclose(value, GOLDEN["value"], rtol=1e-4, atol=1e-6)


def literal_small_network(variables: dict[str, np.ndarray], states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    frames = states.reshape(-1, *IMAGE_SIZE, 4, 3).astype(np.float64)
    present = frames.any(axis=(1, 2, 4), keepdims=True)  # before an episode's first frame there are zeros
    frames -= present * variables["input/mean"][:, :, None].astype(np.float64)
    x = (frames / variables["input/scale"]).reshape(states.shape)
    for layer, stride in (("conv0", 4), ("conv1", 2)):
        weights, size = variables[f"{layer}/W"].astype(np.float64), variables[f"{layer}/W"].shape[0]
        patches = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))[:, ::stride, ::stride]
        x = np.maximum(0, np.einsum("bijcyx,yxco->bijo", patches, weights) + variables[f"{layer}/b"])
    x = np.maximum(0, x.reshape(len(x), -1) @ variables["fc0/W"].astype(np.float64) + variables["fc0/b"])
    logits = x @ variables["fc-pi/W"] + variables["fc-pi/b"]
    policy = np.exp(logits - logits.max(axis=1, keepdims=True))
    return policy / policy.sum(axis=1, keepdims=True), (x @ variables["fc-v/W"] + variables["fc-v/b"])[:, 0]


@pytest.mark.parametrize("pixel", [(0, 0), (41, 43), (83, 83)])
def test_a_frame_with_one_lit_pixel_is_a_frame(file, pixel):
    """Black games such as Asteroids show little more; only zeros stand for what was before an episode."""
    variables = small_variables()
    write_model(file, variables, {"network": "small"})
    states = np.zeros((1, *STATE_SHAPE), np.uint8)
    states[(0, *pixel)] = 1
    probabilities, _ = FilePolicy(read_model(str(file)), cores=1)(states)
    np.testing.assert_allclose(probabilities, literal_small_network(variables, states)[0], rtol=1e-4)


def test_loaded_policy_is_the_literal_forward_pass(file):
    variables = small_variables()
    write_model(file, variables, {"network": "small"})
    policy = FilePolicy(read_model(str(file)), cores=1)
    for batch_size in (1, 5):
        states = np.random.default_rng(batch_size).integers(0, 256, (batch_size, *STATE_SHAPE), np.uint8)
        for row, absent in enumerate((0, 1, 2, 3)[:batch_size]):
            states[row, ..., : 3 * absent] = 0
        expected_probabilities, expected_values = literal_small_network(variables, states)
        probabilities, values = policy(states)
        assert np.ptp(expected_probabilities) > 0.01
        np.testing.assert_allclose(probabilities, expected_probabilities, rtol=1e-4)
        np.testing.assert_allclose(values, expected_values, rtol=1e-4, atol=1e-5)
