"""What a model file says of itself: read as far as it can be, and told in words.

Another version of the suite may have written it, or another hand: what is known is read, what is of another type is
left out and told, and the rest is left alone. So whoever uses it finds each field as it should be, or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from atari_wrapper import Protocol

if TYPE_CHECKING:
    from a3c.weights.model_file import ModelFile

_MAX_DEPTH = 50  # trainings that began from each other's weights


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and abs(value) < 1e15


def _is_text(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) < 256 and value.isprintable()


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_range(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_count, value))


def _are_versions(value: object) -> bool:
    return isinstance(value, dict) and all(map(_is_text, (*value, *value.values())))


Fields = dict[str, "Callable[[object], bool] | Fields"]

_PROTOCOL: Fields = {
    "env": _is_text,
    "frameskip": _is_range,
    "sticky": _is_number,
    "actions": _are_texts,
    "max_episode_steps": _is_count,
    "max_episode_frames": _is_count,
}
_TRAINING: Fields = {
    "steps": _is_count,
    "emulator_frames": _is_count,
    "updates": _is_count,
    "train_minutes": _is_number,
    "cores": _is_count,
    "seed": _is_count,
}
_BEGUN_FROM: Fields = {"file": _is_text, **_TRAINING}
_BEGUN_FROM["begun_from"] = _BEGUN_FROM
_FIELDS: Fields = {
    "network": _is_text,
    "env": _is_text,
    "protocol": _PROTOCOL,
    **_TRAINING,
    "begun_from": _BEGUN_FROM,
    "online_score": _is_number,
    "evaluation": {"mean": _is_number, "stderr": _is_number, "episodes": _is_count, "protocol": _is_text},
    "versions": _are_versions,
}


def parse(text: str) -> tuple[dict, tuple[str, ...]]:
    """Read metadata: the fields that are known and as they should be, and the names of those that are not.

    ``null`` and numbers that are none stand for what is not said.

    Raises:
        ValueError: it is no JSON object.
    """
    try:
        said = json.loads(text, parse_constant=lambda _: None)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(said, dict):
        raise ValueError("no JSON object")
    known, unreadable = _read(said, _FIELDS, _MAX_DEPTH)
    return known, tuple(dict.fromkeys(unreadable))


def _read(said: dict, fields: Fields, depth: int) -> tuple[dict, list[str]]:
    known, unreadable = {}, []
    for name, expected in fields.items():
        value = said.get(name)
        if value is None:
            continue
        if callable(expected):
            good = expected(value)
        else:
            good = isinstance(value, dict) and depth > 0
            if good:
                value, wrong = _read(value, expected, depth - 1)
                # A training in a training's past is named like the first.
                unreadable += [inner if inner.startswith(name) else f"{name}.{inner}" for inner in wrong]
        if good:
            known[name] = value
        else:
            unreadable.append(name)
    return known, unreadable


def training_of(metadata: dict) -> dict:
    """How a model was trained, and which weights its training began from, as far as it is said."""
    return {name: metadata[name] for name in (*_TRAINING, "begun_from") if name in metadata}


def describe(model: ModelFile) -> str:
    """What a model file says of itself, and what its weights tell, a line for each fact."""
    said = model.metadata
    protocol, begun = said.get("protocol", {}), said.get("begun_from")
    actions = f" ({' '.join(protocol['actions'])})" if "actions" in protocol else ""
    facts = {
        "file": model.path,
        "game": said.get("env"),
        "protocol": _told_protocol(protocol),
        "network": f"{model.network}, {sum(value.size for value in model.variables.values()):,} numbers",
        "actions": f"{model.num_actions}{actions}",
        "trained for": _told_training(said),
        **({"begun from": _told_origin(begun)} if begun else {}),
        "score in training": "online_score" in said and f"{said['online_score']:.2f}, the last episodes",
        "evaluated": _told_evaluation(said.get("evaluation", {})),
        "written with": ", ".join(f"{name} {version}" for name, version in said.get("versions", {}).items()),
        **({"could not be read": ", ".join(model.unreadable)} if model.unreadable else {}),
    }
    return "\n".join(f"{name + ':':18} {fact or 'the file does not say'}" for name, fact in facts.items())


def _told(said: dict, forms: dict[str, str]) -> str:
    """What is said of these fields, each in its form."""
    return "".join(form.format(said[name]) for name, form in forms.items() if name in said).lstrip(" ,")


def _told_protocol(protocol: dict) -> str:
    if set(protocol) == set(_PROTOCOL):
        return str(Protocol(**{name: tuple(v) if isinstance(v, list) else v for name, v in protocol.items()}))
    return _told(protocol, {name: f", {name} {{}}" for name in _PROTOCOL})


def _told_training(said: dict) -> str:
    return _told(said, {
        "steps": "{:,} steps", "emulator_frames": " ({:,} frames)", "updates": ", {:,} updates",
        "train_minutes": ", {:g} minutes", "cores": " on {} cores", "seed": ", seed {}",
    })  # fmt: skip


def _told_evaluation(said: dict) -> str:
    return _told(said, {"mean": "{:.2f}", "stderr": " +- {:.2f}", "episodes": ", {} episodes", "protocol": ", {}"})


def _told_origin(begun: dict) -> str:
    before = f"; that from {_told_origin(begun['begun_from'])}" if begun.get("begun_from") else ""
    return f"{begun.get('file', 'a file')}, after {_told_training(begun) or 'it does not say what'}{before}"
