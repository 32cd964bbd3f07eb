"""What an argument of ``--load`` stands for: the models that a path names. ``model_file`` reads them.

A path is a file, a file's name without its suffix, a checkpoint or any part of one, or a directory.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from a3c.errors import UsageError
from a3c.weights.checkpoints import newest_whole
from a3c.weights.kinds import archive_members

_MAX_LISTED = 10


def expand(paths: tuple[str, ...]) -> list[str]:
    """List the models that some paths stand for; a directory stands for all its models.

    These are its ``.npz`` files, but for those that are surely no models: they are told and left out. Where there are
    none it is the newest whole checkpoint.

    Raises:
        UsageError: there is no file of that name, or no model in the directory.
    """
    models = []
    for path in paths:
        models += _models_in(Path(path)) if os.path.isdir(path) else [_model(path)]
    return models


def choose(path: str) -> str:
    """Find the one model that a path stands for; a run's directory stands for its newest weights. It is told.

    Raises:
        UsageError: there is none; or there are several, and no run's.
    """
    bests = []
    if os.path.isdir(path):
        models = _models_in(Path(path))
        bests = [model for model in models if model.endswith("-best.npz") and _newest_beside(model) in models]
        model = _the_one([model for model in models if model not in bests], path)
    else:
        model = _model(path)
    if model != path:
        best = f"; {bests[0]} is the one with the best evaluation" if bests else ""
        print(f"{path} stands for {model}{best}", flush=True)
    return model


def _newest_beside(best: str) -> str:
    return f"{best.removesuffix('-best.npz')}.npz"


def _the_one(models: list[str], path: str) -> str:
    if len(models) > 1:
        raise UsageError(f"{path} holds several models: name one of {_listed(models)}")
    return models[0]


def _listed(names: list) -> str:
    more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
    return ", ".join(map(str, names[:_MAX_LISTED])) + more


def _model(path: str) -> str:
    """The file or the checkpoint's prefix that is meant with a path which is no directory."""
    if os.path.isfile(f"{path}.index"):
        return path
    part = re.fullmatch(r"(.+)\.(index|meta|data-\d+-of-\d+)", path)
    if part and os.path.isfile(path):
        whole = part[1]
        if os.path.isfile(f"{whole}.index") or os.path.isfile(whole):  # without an index: TensorFlow's before 2017
            return whole
        raise UsageError(f"{path} is a part of a checkpoint: {whole}.index is missing beside it")
    if os.path.basename(path) == "checkpoint" and os.path.isfile(path):
        models = _checkpoints(Path(path).parent)
        if not models:
            raise UsageError(f"{path} names no checkpoint that is there")
        return _the_one(models, path)
    if os.path.exists(path):
        return path
    if os.path.isfile(f"{path}.npz"):
        return f"{path}.npz"
    raise UsageError(f"there is no model file {path}: name an .npz, a checkpoint such as model-6000, or a run")


def _models_in(directory: Path) -> list[str]:
    try:
        files = sorted(file for file in directory.iterdir() if file.suffix == ".npz" and file.is_file())
    except OSError as error:
        raise UsageError(f"{directory} cannot be read: {error.strerror}") from None
    others = [file for file in files if _is_no_model(file)]
    models = [str(file) for file in files if file not in others] or _checkpoints(directory)
    told = f"no model: {_listed(others)}" if others else ""
    if not models:
        raise UsageError(f"there is no model file in {directory}" + (f" ({told})" if told else ""))
    if told:
        print(f"left out, as {told}", flush=True)
    return models


def _is_no_model(file: Path) -> bool:
    """Whether it surely is none: other arrays. What is damaged may be one, and is told when it is read."""
    members = archive_members(str(file))
    return members is not None and not {"fc-pi/b.npy", "fc-pi/b:0.npy"} & set(members)


def _checkpoints(directory: Path) -> list[str]:
    """A run's newest whole checkpoint; of another program's, the one that TensorFlow's file names, or all."""
    newest = newest_whole(directory)
    if newest is not None:
        return [newest]
    found = [str(file.with_suffix("")) for file in sorted(directory.glob("*.index"))]
    state = directory / "checkpoint"
    text = state.read_text(errors="replace") if state.is_file() else ""
    named = re.search(r'^model_checkpoint_path: "(?:.*/)?(.+)"', text, re.MULTILINE)
    return [prefix for prefix in found if named and os.path.basename(prefix) == named[1]] or found
