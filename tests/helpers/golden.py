"""What the original's own graph computes for weights and inputs that anyone can make again."""

from __future__ import annotations

import json
from pathlib import Path

from atari_wrapper import STATE_SHAPE

import numpy as np

PUBLISHED_SHAPES = [
    ("conv0/W", (5, 5, 12, 32)),
    ("conv0/b", (32,)),
    ("conv1/W", (5, 5, 32, 32)),
    ("conv1/b", (32,)),
    ("conv2/W", (4, 4, 32, 64)),
    ("conv2/b", (64,)),
    ("conv3/W", (3, 3, 64, 64)),
    ("conv3/b", (64,)),
    ("fc0/W", (6400, 512)),
    ("fc0/b", (512,)),
    ("prelu/alpha", ()),
    ("fc-pi/W", (512, "A")),
    ("fc-pi/b", ("A",)),
    ("fc-v/W", (512, 1)),
    ("fc-v/b", (1,)),
]
GOLDEN = json.loads((Path(__file__).parent / "golden_batch_a3c.json").read_text())


def golden_variables() -> dict[str, np.ndarray]:
    r = np.random.RandomState(GOLDEN["seed"])
    variables = {}
    for name, shape in PUBLISHED_SHAPES:
        shape = tuple(GOLDEN["num_actions"] if n == "A" else n for n in shape)
        if name == "prelu/alpha":
            variables[name] = np.float32(0.1)
        else:
            variables[name] = (r.randn(*shape) * (0.02 if name == "fc0/W" else 0.05)).astype(np.float32)
    return variables


def golden_inputs() -> list[np.ndarray]:
    r = np.random.RandomState(GOLDEN["seed"] + 1)
    states = r.randint(0, 256, (16, 4, 84, 84, 3)).astype(np.uint8)
    actions, returns, mus = r.randint(0, GOLDEN["num_actions"], 16), r.randn(16), r.uniform(0.05, 0.9, 16)
    states = np.ascontiguousarray(states.transpose(0, 2, 3, 1, 4)).reshape(16, *STATE_SHAPE)
    assert actions.tolist() == GOLDEN["action"]
    np.testing.assert_allclose(returns, GOLDEN["return"], rtol=1e-6)
    np.testing.assert_allclose(mus, GOLDEN["mu"], rtol=1e-6)
    return [states, actions, returns, np.full(16, np.nan), mus, np.zeros(16, np.int64)]
