"""What a training writes of its epochs: ``stats.json``, and TensorBoard's events. On the trainer's thread."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections import deque
from pathlib import Path

from a3c.learning.checkpoint import disk_errors_told
from a3c.system.files import whole_file

import tensorflow as tf
from tensorpack import JSONWriter, tfv1
from tensorpack.callbacks import MonitorBase
from tensorpack.utils import logger

_MAX_EVENTS = 10_000  # that wait while the disk is full


class StatsWriter(JSONWriter):
    """tensorpack's ``stats.json``, written whole or not at all, and always continued."""

    def _before_train(self):
        self._fname = str(Path(logger.get_logger_dir()) / self.FILENAME)
        self._stats = self.load_existing_json() or []

    def _write_stat(self):
        path = Path(self._fname)
        with disk_errors_told(str(path)), whole_file(path) as file:
            json.dump(self._stats, file)


class EventWriter(MonitorBase):
    """Writes TensorBoard's events after each epoch; what could not be written is tried again, in a new file.

    An event file is a TFRecord file of ``Event`` messages. TensorFlow's own writer does not survive a full disk.
    """

    def __init__(self, directory: Path):
        self._directory = directory
        self._events: deque[tfv1.Event] = deque(maxlen=_MAX_EVENTS)
        self._writer: tf.io.TFRecordWriter | None = None

    def process_summary(self, summary):
        """Keep a summary for the end of the epoch."""
        self.process_event(tfv1.Event(summary=summary))

    def process_event(self, evt):
        """Keep an event for the end of the epoch."""
        evt.wall_time, evt.step = time.time(), self.global_step
        self._events.append(evt)

    def _before_train(self):
        self.process_event(tfv1.Event(graph_def=self.graph.as_graph_def().SerializeToString()))

    def _trigger(self):
        self._write()

    def _after_train(self):
        self._write()
        self._close()

    def _write(self) -> None:
        with disk_errors_told("TensorBoard's events"):
            try:
                if self._writer is None:
                    name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}"
                    self._writer = tf.io.TFRecordWriter(str(self._directory / name))
                    version = tfv1.Event(wall_time=time.time(), file_version="brain.Event:2")
                    self._writer.write(version.SerializeToString())
                for event in self._events:
                    self._writer.write(event.SerializeToString())
                self._writer.flush()
                self._events.clear()
            except (OSError, IndexError, tf.errors.OpError):  # IndexError: a file that may not grow
                self._close()
                raise

    def _close(self) -> None:
        if self._writer is not None:
            with contextlib.suppress(OSError, IndexError, tf.errors.OpError):
                self._writer.close()
            self._writer = None
