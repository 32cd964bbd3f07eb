"""Checkpoints of a training: written whole or not at all, and kept to a number; the statistics of a resumed run.

What a killed save, or one on a full disk, has left is removed by the next; nothing else ever is.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from pathlib import Path

from a3c.acting.actor import Actor
from a3c.errors import RunError, first_line
from a3c.run_files import STATS_FILE
from a3c.system.files import free_name, whole_file
from a3c.system.stopping import StopRequest
from a3c.weights.checkpoints import NAME, checkpoint_files, saved_steps

import tensorflow as tf
from tensorpack import Callback, tfv1
from tensorpack.utils import logger


@contextlib.contextmanager
def disk_errors_told(what: str):
    """Tell in one line that something could not be written, and go on."""
    try:
        yield
    except (OSError, IndexError, tf.errors.OpError) as error:  # IndexError: TensorFlow's for EFBIG
        reason = _reason(error)
        logger.error(
            f"{what} could not be written ({first_line(reason)}). What was saved before is whole, and the next save "
            "tries again: make room, or make the directory writable"
        )


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    # TensorFlow says "path; reason", in an operation's error amid much else.
    told = re.search(r"^\S+; (.+)$", str(error), re.MULTILINE)
    return told[1] if told else str(error)


class Checkpointer(Callback):
    """Saves all variables: at first, after each epoch, and when the run ends early. On the trainer's thread."""

    def __init__(self, directory: Path, max_to_keep: int, actor: Actor, stop: StopRequest):
        """A stop or a failure of ``actor`` is the early end: the weights are good."""
        self._directory, self._max_to_keep, self._actor, self._stop = directory, max_to_keep, actor, stop
        self._saved = True  # the newest save succeeded

    def _setup_graph(self):
        # It is to keep none of its own accord: it does not know of those from before a resume.
        self._saver = tfv1.train.Saver(tfv1.global_variables(), max_to_keep=None, save_relative_paths=True)
        finite = [tf.reduce_all(tf.math.is_finite(variable)) for variable in tfv1.trainable_variables()]
        self._weights_are_finite = tf.reduce_all(finite)

    def _before_train(self):
        if not saved_steps(self._directory):  # from now on the run can be resumed
            self._save()

    def _trigger_epoch(self):
        self._save()

    def _after_train(self):
        if self._stop.signal or self._actor.failed or not self._saved:
            self._save()

    def raise_loss(self) -> None:
        """Raise RunError if the newest save failed: after training, what it was to save is lost."""
        if not self._saved:
            raise RunError(
                f"the last checkpoint could not be written: what was learned after that of step "
                f"{max(saved_steps(self._directory), default=0)} is lost. Make room in {self._directory}, or make it "
                "writable; --resume goes on from there"
            )

    def _save(self) -> None:
        session = self.trainer.sess
        if not session.run(self._weights_are_finite):
            raise RunError(f"the weights are not finite after update step {self.global_step}: they are not saved")
        self._saved = False
        with disk_errors_told("the checkpoint"):
            self._saver.save(session, str(self._directory / NAME), self.global_step, write_meta_graph=False)
            self._saved = True
            logger.info(f"Checkpoint of step {self.global_step} saved.")
        remove_old(self._directory, self._max_to_keep, self.global_step)


def remove_old(directory: Path, max_to_keep: int, step: int) -> None:
    """Remove all but the newest checkpoints, and what saves that failed have left behind.

    Those of later steps than ``step``, the present one, go first: the run has gone on from before a damaged one.
    """
    keep = sorted(saved_steps(directory), key=lambda saved: (saved <= step, saved))[-max_to_keep:]
    # The index goes first: a checkpoint is there as long as that is.
    for path, of_step in sorted(checkpoint_files(directory), key=lambda found: found[0].suffix != ".index"):
        if of_step not in keep:
            with disk_errors_told(f"the removal of {path.name}"):
                path.unlink(missing_ok=True)


def mend_stats(directory: Path, step: int) -> None:
    """Make ``stats.json`` end where a resumed run begins: what is of later steps, or was cut, is put aside."""
    path = directory / STATS_FILE
    if not path.exists():
        return
    records, whole = _read_records(path.read_text(errors="replace"))
    before = [record for record in records if _step_of(record) <= step]
    if whole and len(before) == len(records):
        return
    aside = free_name(path.with_name(f"stats-before-step-{step}.json"))
    if not whole:
        logger.warn(f"{path} is not whole: {len(records)} epochs of it can be read")
    logger.warn(f"{path} goes on after step {step}; what it was is kept in {aside}")
    with disk_errors_told(str(path)):
        shutil.copyfile(path, aside)
        with whole_file(path) as file:
            json.dump(before, file)


def _step_of(record: dict) -> float:
    step = record.get("global_step")
    return step if isinstance(step, (int, float)) else 0


def _read_records(text: str) -> tuple[list[dict], bool]:
    """The records that can be read of a list in JSON, and whether that is all of it."""
    with contextlib.suppress(ValueError):
        read = json.loads(text)
        records = [record for record in read if isinstance(record, dict)] if isinstance(read, list) else []
        return records, isinstance(read, list) and len(records) == len(read)
    decoder, records, at = json.JSONDecoder(), [], text.find("{")
    while at >= 0:
        try:
            record, end = decoder.raw_decode(text, at)
        except ValueError:
            break
        records.append(record)
        at = text.find("{", end)
    return records, False
