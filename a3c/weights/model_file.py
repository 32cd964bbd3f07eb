"""Model files: reading, writing and checking them.

A file is an ``.npz`` of the network's variables under the original's names, with one more entry that says what they
are: network, environment and protocol, steps, score, versions, and which weights its training began from. The
published files have the variables only.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NamedTuple

from a3c.config import REMOVED, REMOVED_NETWORK
from a3c.errors import UsageError, first_line
from a3c.policy.networks import NETWORKS, is_of_one_colour
from a3c.run_files import CONFIG_FILE
from a3c.system.files import whole_file
from a3c.weights.checkpoints import read_variables
from a3c.weights.kinds import is_table, kind_of_file
from a3c.weights.metadata import parse, training_of
from atari_wrapper import Protocol

import numpy as np

METADATA_KEY = "metadata"


class ModelFile(NamedTuple):
    """A model file's contents.

    Attributes:
        path: where it is.
        variables: the network's variables by name, without ``:0``; what else the file held is left out.
        network: one of ``NETWORKS``, told by the shapes.
        num_actions: outputs of the policy.
        metadata: what the file says of itself, as far as it could be read; empty for the published ones.
        unreadable: the names of what could not.
    """

    path: str
    variables: dict[str, np.ndarray]
    network: str
    num_actions: int
    metadata: dict
    unreadable: tuple[str, ...] = ()


def write_model(path: Path, variables: dict[str, np.ndarray], metadata: dict, compressed: bool = False) -> None:
    """Write an ``.npz`` of the variables and one entry of metadata, JSON as text; a whole file or none."""
    write_arrays(path, {**variables, METADATA_KEY: np.array(json.dumps(metadata))}, compressed)


def write_arrays(path: Path, arrays: dict[str, np.ndarray], compressed: bool = False) -> None:
    """Write an ``.npz``; a whole file or none."""
    with whole_file(path, "wb") as file:
        (np.savez_compressed if compressed else np.savez)(file, **arrays)


def read_model(path: str) -> ModelFile:
    """Read an ``.npz`` of ours, a published one (keys with or without ``:0``), or a TensorFlow checkpoint.

    Args:
        path: the file, or the checkpoint without a suffix (``model-6000``).

    Raises:
        UsageError: the file is missing, corrupt, another kind of file, or holds no network that this suite knows.
    """
    is_checkpoint = os.path.isfile(f"{path}.index") or (os.path.isfile(path) and is_table(path))
    arrays = _read_checkpoint(path) if is_checkpoint else _read_npz(path)
    try:
        metadata, unreadable = parse(str(arrays.pop(METADATA_KEY, "{}")))
    except ValueError:
        raise UsageError(f"{path} is corrupt: its metadata is no JSON object; take another copy") from None
    arrays = {name.removesuffix(":0"): value for name, value in arrays.items() if np.asarray(value).dtype.kind in "fiu"}
    if metadata.get("network") == REMOVED_NETWORK:
        raise UsageError(f"{path} holds the network {REMOVED_NETWORK}, which {REMOVED}")
    if is_of_one_colour({name: value.shape for name, value in arrays.items()}):
        raise UsageError(f"{path} holds the network nature over one colour, which {REMOVED}")
    bias = arrays.get("fc-pi/b")
    num_actions = len(bias) if bias is not None and bias.ndim == 1 else 0
    problem, fewest = "it has no fc-pi/b", None
    for name, network in sorted(NETWORKS.items(), key=lambda item: item[0] != metadata.get("network")):
        shapes = network.variable_shapes(num_actions)
        wrong = [key for key, shape in shapes.items() if key not in arrays or arrays[key].shape != shape]
        if num_actions and not wrong:
            variables = {key: arrays[key].astype(np.float32) for key in shapes}
            if not all(np.isfinite(value).all() for value in variables.values()):
                raise UsageError(f"{path} is corrupt: a weight is not finite; take another copy")
            return ModelFile(path, variables, name, num_actions, metadata, unreadable)
        if num_actions and len(wrong) < (fewest or len(shapes)):  # the nearest one is what was meant
            fewest = len(wrong)
            found = arrays[wrong[0]].shape if wrong[0] in arrays else "missing"
            problem = f"as {name}, {wrong[0]} is {found} and not {shapes[wrong[0]]}"
    raise UsageError(f"{path} holds no network of this suite ({', '.join(NETWORKS)}): {problem}")


def _read_npz(path: str) -> dict[str, np.ndarray]:
    if not os.path.isfile(path):
        what = ": that is a directory, a pipe or a device" if os.path.exists(path) else ""
        raise UsageError(f"there is no model file {path}{what}")
    try:
        kind = kind_of_file(path)
        if kind is None:
            with np.load(path, allow_pickle=False) as file:
                return {key: file[key] for key in file.files}
    except Exception as error:  # of many kinds: zip, zlib, tokenize, numpy ...
        raise UsageError(f"{path} is no readable .npz ({first_line(error)}): take another copy") from None
    raise UsageError(f"{path} is {kind}: --load takes an .npz of this suite or a TensorFlow checkpoint")


def _read_checkpoint(prefix: str) -> dict[str, np.ndarray]:
    names = {name for network in NETWORKS.values() for name in network.variable_shapes(1)}
    return read_variables(prefix, names) | {METADATA_KEY: _said_beside(prefix)}


def _said_beside(prefix: str) -> str:
    """What the configuration of a checkpoint's run says of it, as metadata."""
    try:
        config = json.loads((Path(prefix).parent / CONFIG_FILE).read_text())
        return json.dumps({name: config[name] for name in ("env", "network")})
    except (OSError, ValueError, LookupError, TypeError, RecursionError):  # it is another program's, or not whole
        return "{}"


def environment_of(model: ModelFile, env: str | None) -> str:
    """The environment to use a model in: the one it says, or ``env`` if it does not say.

    Raises:
        UsageError: it says another than ``env``; or neither says anything.
    """
    trained_on = model.metadata.get("env")
    if trained_on is None and env is None:
        stem = Path(model.path).stem
        example = stem if stem.endswith("-v0") else "Breakout-v0"
        raise UsageError(f"{model.path} does not say its game: add --env, for example --env {example}")
    if None not in (trained_on, env) and trained_on != env:
        raise UsageError(
            f"{model.path} was trained on {trained_on}: what it scores in {env} is no score of {env}; leave --env out"
        )
    return trained_on or env


def origin(model: ModelFile) -> dict:
    """What a run that starts from this file's weights says of them: its name, how it was trained, and from what."""
    return {"file": Path(model.path).name} | training_of(model.metadata)


def check_model(model: ModelFile, protocol: Protocol, network: str) -> None:
    """Refuse a model that is for another game or another network. Raises UsageError."""
    if model.num_actions != len(protocol.actions):
        raise UsageError(
            f"{model.path} has {model.num_actions} actions, {protocol.env} has {len(protocol.actions)}: "
            "name the environment it was trained on with --env"
        )
    if network not in ("auto", model.network):
        raise UsageError(f"{model.path} holds the network {model.network}, not {network}: leave --network out")
