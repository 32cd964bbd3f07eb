"""Networks and losses against the original's figures and literal references; model files, good and bad."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
import pickle
import zipfile
from pathlib import Path

import model as model_module
from atari_wrapper import FRAME_SHAPE, IMAGE_SIZE, STATE_SHAPE, Protocol
from config import Config, UsageError
from model import (
    NETWORKS,
    FrameStatistics,
    Model,
    check_model,
    clipped_is_losses,
    clipped_surrogate_losses,
    gradient_clip,
    load_policy,
    read_model,
    write_model,
)

import numpy as np
import pytest
import tensorflow as tf
from tensorpack import tfv1
from tensorpack.tfutils import TowerContext

GOLDEN = json.loads((Path(__file__).parent / "golden_batch_a3c.json").read_text())
SMALL = Config(network="small").resolve(cores=1, num_gpus=0)
ORIGINAL = Config(network="batch-a3c").resolve(cores=1, num_gpus=0)

# The table of the published model files, for A actions.
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


def run(build):
    """Build tensors in a graph of their own and run them once, after the initializers."""
    with tf.Graph().as_default(), tfv1.Session() as session:
        tfv1.set_random_seed(1)
        fetches = build()
        session.run(tfv1.global_variables_initializer())
        return session.run(fetches)


# Networks


@pytest.mark.parametrize("num_actions", [3, 4, 6, 18])
def test_shapes_are_those_of_the_published_files(num_actions):
    shapes = NETWORKS["batch-a3c"].variable_shapes(num_actions)
    assert list(shapes.items()) == [
        (name, tuple(num_actions if n == "A" else n for n in shape)) for name, shape in PUBLISHED_SHAPES
    ]
    assert sum(math.prod(shape) for shape in shapes.values()) == 3_382_850 + 513 * num_actions


@pytest.mark.parametrize(("config", "scales"), [(ORIGINAL, {}), (SMALL, {"fc-pi": 1e-4, "fc-v": 1.0})])
def test_initial_weights(config, scales):
    statistics = FrameStatistics(np.random.default_rng(0).uniform(0, 255, FRAME_SHAPE).astype(np.float32), 60.0)

    def build():
        model = Model(config, 4, statistics)
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
    if config.network == "small":
        np.testing.assert_array_equal(others.pop("input/mean"), statistics.mean)
        assert others.pop("input/std") == 60
    assert others == {}


# The original's own graph


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


# Losses, in float64 against literal loops


def sample_batch(seed=0, size=40, num_actions=5):
    r = np.random.default_rng(seed)
    policy = r.dirichlet(np.full(num_actions, 0.5), size)
    policy[0] = [1, 0, 0, 0, 0]
    values, returns, advantages = r.normal(0, 3, (3, size))
    actions = r.integers(0, num_actions, size)
    mus = r.uniform(0.01, 1, size)
    mus[1:4] = 1e-4, 1e-9, 0  # weights beyond the clip
    actions[1:4] = policy[1:4].argmax(axis=1)
    return policy, values, actions, returns, advantages, mus


def literal_entropy(policy):
    """The entropy and its gradient in the policy."""
    log = np.log(policy + 1e-6)
    return -(policy * log).sum(), -(log + policy / (policy + 1e-6))


def graph_losses(function, clip=None, **columns):
    """Losses, and their gradients in the policy, values and returns; no entry where there is no path."""

    def build():
        tensors = {name: tf.constant(column) for name, column in columns.items()}
        losses = function(**tensors, **({} if clip is None else {"clip": clip}))._asdict()
        paths = {
            (loss, name): tf.gradients(losses[loss], tensors[name])[0]
            for loss in losses
            for name in ("policy", "values", "returns")
        }
        return losses, {path: gradient for path, gradient in paths.items() if gradient is not None}

    return run(build)


def test_clipped_is_losses():
    policy, values, actions, returns, _, mus = sample_batch()
    losses, gradients = graph_losses(
        clipped_is_losses, policy=policy, values=values, actions=actions, returns=returns, mus=mus
    )
    expected, in_policy, weights = 0.0, np.zeros_like(policy), []
    for i, action in enumerate(actions):
        pi = policy[i, action]
        weights.append(min(pi / (mus[i] + 1e-8), 10.0))
        advantage = returns[i] - values[i]
        expected -= weights[-1] * advantage * np.log(pi + 1e-6)
        in_policy[i, action] = -weights[-1] * advantage / (pi + 1e-6)  # the weight and the advantage are constants
    assert weights.count(10.0) >= 3
    entropy, entropy_in_policy = literal_entropy(policy)
    np.testing.assert_allclose(losses["policy_loss"], expected, rtol=1e-9)
    np.testing.assert_allclose(losses["value_loss"], 0.5 * sum((values - returns) ** 2), rtol=1e-9)
    np.testing.assert_allclose(losses["entropy"], entropy, rtol=1e-9)
    np.testing.assert_allclose(gradients["policy_loss", "policy"], in_policy, rtol=1e-9)
    np.testing.assert_allclose(gradients["entropy", "policy"], entropy_in_policy, rtol=1e-9)
    np.testing.assert_allclose(gradients["value_loss", "values"], values - returns, rtol=1e-9)
    assert {path for path in gradients if path[0] == "policy_loss"} == {("policy_loss", "policy")}


@pytest.mark.parametrize("clip", [0.1, 0.2])
def test_clipped_surrogate_losses(clip):
    policy, values, actions, returns, advantages, mus = sample_batch(seed=1, size=200)
    pi_a = policy[np.arange(200), actions]
    mus[10:] = pi_a[10:] * np.random.default_rng(2).uniform(0.6, 1.6, 190)  # ratios on both sides of the clip
    columns = {"values": values, "actions": actions, "returns": returns, "advantages": advantages, "mus": mus}
    losses, gradients = graph_losses(clipped_surrogate_losses, clip, policy=policy, **columns)
    expected, in_policy, regions = 0.0, np.zeros_like(policy), set()
    for i, action in enumerate(actions):
        ratio = (pi_a[i] + 1e-6) / (mus[i] + 1e-6)
        expected -= min(ratio * advantages[i], np.clip(ratio, 1 - clip, 1 + clip) * advantages[i])
        region = (advantages[i] > 0, np.sign(ratio - 1) * (abs(ratio - 1) > clip))
        regions.add(region)
        earns_no_more = region in [(True, 1), (False, -1)]
        in_policy[i, action] = 0 if earns_no_more else -advantages[i] / (mus[i] + 1e-6)
    assert len(regions) == 6
    np.testing.assert_allclose(losses["policy_loss"], expected, rtol=1e-9)
    np.testing.assert_allclose(losses["value_loss"], 0.5 * sum((values - returns) ** 2), rtol=1e-9)
    np.testing.assert_allclose(losses["entropy"], literal_entropy(policy)[0], rtol=1e-9)
    np.testing.assert_allclose(gradients["policy_loss", "policy"], in_policy, rtol=1e-9, atol=1e-12)
    assert {path for path in gradients if path[0] == "policy_loss"} == {("policy_loss", "policy")}


def test_literal_gradients_are_those_of_finite_differences():
    """The hand-derived formulas above, checked: the losses along random directions in the policy."""
    policy, values, actions, returns, advantages, mus = sample_batch(seed=3)
    policy = 0.9 * policy + 0.02
    direction = np.random.default_rng(4).normal(size=policy.shape)
    step = 1e-6
    columns = {"values": values, "actions": actions, "returns": returns, "advantages": advantages, "mus": mus}
    _, gradients = graph_losses(clipped_surrogate_losses, 0.2, policy=policy, **columns)
    ahead, _ = graph_losses(clipped_surrogate_losses, 0.2, policy=policy + step * direction, **columns)
    behind, _ = graph_losses(clipped_surrogate_losses, 0.2, policy=policy - step * direction, **columns)
    for name in ("policy_loss", "entropy"):
        slope = (ahead[name] - behind[name]) / (2 * step)
        assert slope == pytest.approx((gradients[name, "policy"] * direction).sum(), rel=1e-5)


@pytest.mark.parametrize("correction", ["clipped-is", "clipped-surrogate"])
def test_cost_weighs_its_parts(correction):
    config = dataclasses.replace(SMALL, correction=correction, value_weight=0.25)
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


# Model files


def small_variables(num_actions=4, seed=0) -> dict[str, np.ndarray]:
    r = np.random.default_rng(seed)
    shapes = NETWORKS["small"].variable_shapes(num_actions)
    variables = {name: r.normal(0, 0.05, shape).astype(np.float32) for name, shape in shapes.items()}
    mean, std = r.uniform(0, 255, FRAME_SHAPE).astype(np.float32), np.array(60, np.float32)
    return variables | {"input/mean": mean, "input/std": std}


def assert_same_variables(got: dict, expected: dict) -> None:
    assert set(got) == set(expected)
    for name, value in expected.items():
        assert got[name].dtype == np.float32
        np.testing.assert_array_equal(got[name], value)


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "Pong-v0.npz"


def test_round_trip(file):
    variables, metadata = small_variables(6), {"network": "small", "env": "Pong-v0", "score": 20.5, "evaluation": None}
    write_model(file, variables, metadata)
    model = read_model(str(file))
    assert model[2:] == ("small", 6, metadata)
    assert model.path == str(file)
    assert_same_variables(model.variables, variables)
    assert [path.name for path in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize("suffix", ["", ":0"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_published_files_have_no_metadata(file, suffix, save):
    variables = small_variables()
    extra = {f"global_step{suffix}": np.int64(7), f"EMA/cost{suffix}": np.array("text"), "learning_rate": np.float32(1)}
    save(file, **{name + suffix: value for name, value in variables.items()}, **extra)
    model = read_model(str(file))
    assert model[2:] == ("small", 4, {})
    assert_same_variables(model.variables, variables)


def test_float64_weights_are_taken(file):
    variables = small_variables()
    np.savez(file, **{name: value.astype(np.float64) for name, value in variables.items()})
    assert_same_variables(read_model(str(file)).variables, variables)


def test_batch_a3c_is_told_by_its_shapes_and_plays_the_golden_policy(file):
    np.savez(file, **golden_variables())
    model = read_model(str(file))
    assert model[2:] == ("batch-a3c", 4, {})
    policy, value = load_policy(model, cores=1)(golden_inputs()[0])
    np.testing.assert_allclose(policy, GOLDEN["policy"], rtol=1e-4)
    np.testing.assert_allclose(value, GOLDEN["value"], rtol=1e-4, atol=1e-6)


def refusal(path) -> str:
    with pytest.raises(UsageError) as raised:
        read_model(str(path))
    text = str(raised.value)
    assert "\n" not in text
    assert str(path) in text
    return text


def replaced(**changes) -> dict:
    """A good model's arrays but for some: None takes one away; a name's slash is written as two underscores."""
    changes = {name.replace("__", "/").replace("_", "-"): value for name, value in changes.items()}
    return {name: value for name, value in (small_variables() | changes).items() if value is not None}


def with_nan(name: str, value: float) -> np.ndarray:
    array = small_variables()[name]
    array.flat[-1] = value
    return array


GOOD = small_variables()
WRONG_ARRAYS = {
    "empty": ({}, "no network"),
    "variable missing": (replaced(conv1__W=None), "conv1/W is missing"),
    "no policy": (replaced(fc_pi__b=None), "fc-pi/b"),
    "policy's bias is a scalar": (replaced(fc_pi__b=np.float32(1)), "fc-pi/b"),
    "policy of no actions": (replaced(fc_pi__b=np.zeros(0, np.float32)), "fc-pi/b"),
    "weights and bias disagree": (replaced(fc_pi__b=np.zeros(6, np.float32)), "fc-pi/W is (256, 4) and not (256, 6)"),
    "transposed": (replaced(fc_pi__W=GOOD["fc-pi/W"].T), "fc-pi/W is (4, 256) and not (256, 4)"),
    "same size, other shape": (replaced(conv0__W=GOOD["conv0/W"].reshape(8, 8, 16, 12)), "conv0/W is (8, 8, 16, 12)"),
    "flattened": (replaced(fc_v__W=GOOD["fc-v/W"][:, 0]), "fc-v/W is (256,) and not (256, 1)"),
    "NaN": (replaced(conv1__W=with_nan("conv1/W", np.nan)), "not finite"),
    "infinity": (replaced(fc_v__b=with_nan("fc-v/b", np.inf)), "not finite"),
    "object array": (replaced(fc_v__b=np.array([{}], object)), "Object arrays cannot be loaded"),
    "text for weights": (replaced(fc_v__b=np.array(["one"])), "Pong-v0.npz"),
    "metadata is no JSON": (replaced(metadata=np.array("{")), "metadata"),
    "metadata is no object": (replaced(metadata=np.array("[]")), "metadata"),
    "metadata is null": (replaced(metadata=np.array("null")), "metadata"),
}


@pytest.mark.parametrize(("arrays", "reason"), WRONG_ARRAYS.values(), ids=WRONG_ARRAYS)
def test_wrong_arrays_are_refused(file, arrays, reason):
    np.savez(file, **arrays)
    assert reason in refusal(file)


def npz_bytes() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **GOOD)
    return buffer.getvalue()


def zip_bytes(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def npy_bytes(array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def corrupt(content: bytes, at: int, by: bytes) -> bytes:
    return content[:at] + by + content[at + len(by) :]


STORED = npz_bytes()
DEFLATED = zip_bytes({"fc-pi/b.npy": npy_bytes(np.zeros(1000))}, zipfile.ZIP_DEFLATED)
FIRST_DATA_BYTE = 30 + len("fc-pi/b.npy")  # after the archive's first header
UNCLOSED_HEADER = npy_bytes(np.zeros(4)).replace(b"), }", b"(, }")
LONG_HEADER = b"\x93NUMPY\x02\x00" + (20_000).to_bytes(4, "little") + b" " * 19_999 + b"\n"
CORRUPT_FILES = {
    "empty": b"",
    "text": b"not a model\n",
    "cut in the middle": STORED[: len(STORED) // 2],
    "cut at the end": STORED[:-1],
    "cut at the start": STORED[1000:],
    "stored data changed": corrupt(STORED, len(STORED) // 2, b"\x00\xff" * 50),
    "compressed data changed": corrupt(DEFLATED, FIRST_DATA_BYTE, b"\xff"),
    "unknown compression": corrupt(STORED, STORED.rindex(b"PK\x01\x02") + 10, b"\x63"),
    "array without archive": npy_bytes(np.zeros(3)),
    "pickle": pickle.dumps(GOOD),
    "member is no array": zip_bytes({"fc-pi/b": b"hello"}),
    "member's header never closes": zip_bytes({"fc-pi/b.npy": UNCLOSED_HEADER}),
    "member's header is long": zip_bytes({"fc-pi/b.npy": LONG_HEADER}),
}


@pytest.mark.parametrize("content", CORRUPT_FILES.values(), ids=CORRUPT_FILES)
def test_corrupt_files_are_refused(file, content):
    file.write_bytes(content)
    refusal(file)


class Bomb:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_no_pickle_is_ever_loaded(file, tmp_path):
    bomb = Bomb(tmp_path / "exploded")
    np.savez(file, **replaced(fc_v__b=np.array([bomb], object), metadata=np.array(bomb, object)))
    refusal(file)
    file.write_bytes(pickle.dumps(bomb))
    refusal(file)
    assert not bomb.path.exists()
    pickle.loads(pickle.dumps(bomb))
    assert bomb.path.exists()


@pytest.mark.parametrize("name", ["none.npz", "none", "none.index", "", "model-6000.data-00000-of-00001"])
def test_missing_file_is_told(tmp_path, name):
    path = tmp_path / name
    assert "no model file" in refusal(path)


def test_an_interrupted_write_leaves_the_old_file_whole(file, monkeypatch):
    variables = small_variables()
    write_model(file, variables, {"network": "small", "updates": 1})

    def interrupted(target, **arrays):
        target.write(STORED[:1000])
        target.flush()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(model_module.np, "savez", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_model(file, small_variables(seed=1), {"network": "small", "updates": 2})
    model = read_model(str(file))
    assert model.metadata["updates"] == 1
    assert_same_variables(model.variables, variables)
    write_model(file, small_variables(seed=1), {"network": "small", "updates": 3})
    assert read_model(str(file)).metadata["updates"] == 3
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_model_is_written_to_disk_before_it_takes_the_name(file, monkeypatch):
    events = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append("fsync"), fsync(fd)))
    monkeypatch.setattr(Path, "replace", lambda path, to: (events.append("replace"), replace(path, to))[1])
    write_model(file, small_variables(), {})
    assert events == ["fsync", "replace"]


# TensorFlow checkpoints


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """The prefix of a checkpoint such as tensorpack's ModelSaver writes."""
    prefix = tmp_path_factory.mktemp("run") / "model-6000"
    with tf.Graph().as_default(), tfv1.Session() as session:
        for name, value in small_variables().items():
            tfv1.get_variable(name, initializer=value)
            tfv1.get_variable(f"{name}/Adam", initializer=np.zeros_like(value))
        tfv1.get_variable("global_step", initializer=np.int64(6000))
        session.run(tfv1.global_variables_initializer())
        tfv1.train.Saver().save(session, str(prefix), write_meta_graph=False)
    return prefix


@pytest.mark.parametrize("name", ["model-6000", "model-6000.index", "."])
def test_checkpoint_is_read(checkpoint, name):
    model = read_model(str(checkpoint.parent / name))
    assert model[2:] == ("small", 4, {})
    assert_same_variables(model.variables, small_variables())


def test_checkpoint_of_the_original_network_is_read(tmp_path):
    variables = golden_variables()
    with tf.Graph().as_default(), tfv1.Session() as session:
        for name, value in variables.items():
            tfv1.get_variable(name, initializer=value)
        session.run(tfv1.global_variables_initializer())
        tfv1.train.Saver().save(session, str(tmp_path / "model-1"), write_meta_graph=False)
    model = read_model(str(tmp_path / "model-1"))
    assert model[2:] == ("batch-a3c", 4, {})
    assert_same_variables(model.variables, variables)


@pytest.mark.parametrize("part", [".index", ".data-00000-of-00001"])
@pytest.mark.parametrize("keep", [0, 100])
def test_corrupt_checkpoint_is_refused(checkpoint, tmp_path, part, keep):
    for file in checkpoint.parent.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    damaged = tmp_path / (checkpoint.name + part)
    damaged.write_bytes(damaged.read_bytes()[:keep])
    refusal(tmp_path / checkpoint.name)


def test_checkpoint_without_its_data_is_refused(checkpoint, tmp_path):
    (tmp_path / "model-1.index").write_bytes(checkpoint.with_suffix(".index").read_bytes())
    refusal(tmp_path / "model-1")


# check_model and load_policy

ACTIONS = ("NOOP", "FIRE", "RIGHT", "LEFT")


@pytest.mark.parametrize(
    ("num_actions", "network", "reason"),
    [
        (4, "auto", None),
        (4, "small", None),
        (4, "batch-a3c", "--network"),
        (3, "auto", "--env"),
        (5, "small", "--env"),
    ],
)
def test_check_model(file, num_actions, network, reason):
    write_model(file, small_variables(), {})
    protocol = Protocol("Fake-v0", (2, 4), 0.25, (*ACTIONS, "UP")[:num_actions], 60_000, 240_000)
    if reason is None:
        assert check_model(read_model(str(file)), protocol, network) is None
        return
    with pytest.raises(UsageError, match=reason) as raised:
        check_model(read_model(str(file)), protocol, network)
    assert "\n" not in str(raised.value)


def literal_small_network(variables: dict[str, np.ndarray], states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    frames = states.reshape(-1, *IMAGE_SIZE, 4, 3).astype(np.float64)
    present = frames.any(axis=(1, 2, 4), keepdims=True)  # before an episode's first frame there are zeros
    frames -= present * variables["input/mean"][:, :, None].astype(np.float64)
    x = (frames / variables["input/std"]).reshape(states.shape)
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
    probabilities, _ = load_policy(read_model(str(file)), cores=1)(states)
    np.testing.assert_allclose(probabilities, literal_small_network(variables, states)[0], rtol=1e-4)


def test_loaded_policy_is_the_literal_forward_pass(file):
    variables = small_variables()
    write_model(file, variables, {"network": "small"})
    policy = load_policy(read_model(str(file)), cores=1)
    for batch_size in (1, 5):
        states = np.random.default_rng(batch_size).integers(0, 256, (batch_size, *STATE_SHAPE), np.uint8)
        for row, absent in enumerate((0, 1, 2, 3)[:batch_size]):
            states[row, ..., : 3 * absent] = 0
        expected_probabilities, expected_values = literal_small_network(variables, states)
        probabilities, values = policy(states)
        assert np.ptp(expected_probabilities) > 0.01
        np.testing.assert_allclose(probabilities, expected_probabilities, rtol=1e-4)
        np.testing.assert_allclose(values, expected_values, rtol=1e-4, atol=1e-5)
