"""The output directory of a training: who may begin or continue a run there, and when it holds one.

A run is there from the moment that its configuration and its first checkpoint are. A training that fails before its
first update leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path

from a3c.config import Config
from a3c.errors import UsageError
from a3c.run_files import CONFIG_FILE, CURVE_FILE, STATS_FILE, file_name
from a3c.system.files import alone_in, make_writable, output_errors_told, whole_file
from a3c.weights.checkpoints import checkpoint_files, newest_whole, plain_name, saved_steps

_LOG_FILE = "log.log"


class RunDirectory:
    """The output directory of one training, which has it alone.

    Attributes:
        path: the directory.
        model, best_model: where the newest weights go, and those with the best evaluation.
        checkpoint: the newest whole checkpoint when a run is continued, else None.
        trained: set by the learner: whether there is anything to keep.
    """

    def __init__(self, config: Config):
        """``config``: the resolved configuration."""
        self._config = config
        self.path = Path(config.directory)
        self.model = self.path / f"{file_name(config.env)}.npz"
        self.best_model = self.model.with_name(f"{self.model.stem}-best.npz")
        self.checkpoint: str | None = None
        self.trained = False
        self._begun = False

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """Have the directory to ourselves while the block runs; remove what was made if nothing was ``trained``.

        Raises:
            UsageError: another process trains there; it holds another run, or none to continue; it cannot be written.
        """
        made = [path for path in (self.path, *self.path.absolute().parents) if not os.path.lexists(path)]
        if self._config.resume and made:
            raise self._nothing_to_resume()
        try:
            make_writable(self.path)
            with contextlib.ExitStack() as stack:
                stack.enter_context(alone_in(self.path, "train"))
                with output_errors_told(self.path):
                    before, prefix = set(self.path.iterdir()), self._check()
                if prefix:
                    self.checkpoint = stack.enter_context(plain_name(prefix))
                try:
                    yield
                finally:
                    if not (prefix or (self._begun and self.trained)):
                        self._remove_all_but(before)
        finally:
            for path in made:
                with contextlib.suppress(OSError):  # it is not empty
                    path.rmdir()

    def _check(self) -> str | None:
        """The newest whole checkpoint of the run that is continued, or None for a new one."""
        config, output = self._config, self.path
        steps = saved_steps(output)
        if config.resume:
            if not steps:
                raise self._nothing_to_resume()
            if not (output / CONFIG_FILE).exists():
                raise UsageError(
                    f"{output} has checkpoints and no {CONFIG_FILE}, which says what they are: put it back, or start "
                    f"from {self.model.name} with --load and a new --output"
                )
            return newest_whole(output)
        if steps:
            raise UsageError(f"{output} holds another run: continue it with --resume, or name a new --output")
        written = (self.model, self.best_model, *(output / name for name in (STATS_FILE, "checkpoint", CURVE_FILE)))
        taken = [path.name for path in written if path.exists()]
        if (output / CONFIG_FILE).exists() and not _is_of_a_run(output / CONFIG_FILE):
            taken.append(CONFIG_FILE)
        if taken:
            raise UsageError(
                f"{output} holds {' and '.join(taken)}, which a training would write over: name a new --output"
            )
        return None

    def _nothing_to_resume(self) -> UsageError:
        return UsageError(f"{self.path} holds no run to resume: leave --resume out to start one")

    def begin(self) -> None:
        """Write the configuration: the run stands. Raises UsageError if that cannot be."""
        path = self.path / CONFIG_FILE
        config = dataclasses.replace(self._config, load=_load_of(path)) if self._config.resume else self._config
        with output_errors_told(self.path), whole_file(path) as file:
            file.write(config.as_json())
        self._begun = True

    def _remove_all_but(self, before: set[Path]) -> None:
        ours = {self.path / name for name in (CONFIG_FILE, STATS_FILE, _LOG_FILE, "checkpoint")}
        ours |= {self.model, self.best_model, *(path for path, _ in checkpoint_files(self.path))}
        ours |= set(self.path.glob("events.out.tfevents.*"))
        for path in ours - before:
            with contextlib.suppress(OSError):
                path.unlink()


def _load_of(config: Path) -> tuple[str, ...]:
    """The weights that a run was begun from, as its configuration says."""
    with contextlib.suppress(OSError, ValueError, TypeError, AttributeError, RecursionError):
        return tuple(json.loads(config.read_text()).get("load", ()))
    return ()


def _is_of_a_run(config: Path) -> bool:
    with contextlib.suppress(OSError, ValueError, TypeError, RecursionError):
        return "network" in json.loads(config.read_text())
    return False
