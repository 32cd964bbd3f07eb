"""The learner's end of ``--watch``: starts the process that plays for those who watch a training, and ends it."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

from a3c.system.processes import ONE_THREAD, start_program, wait_or_kill
from a3c.watch.server import address

from tensorpack import Callback
from tensorpack.utils import logger

_CLOSE_TIMEOUT_S = 5.0


class Watcher(Callback):
    """A process that plays with the newest model file and serves the page; without it the training goes on.

    It is killed when the learner dies, in whatever way. All methods run on the trainer's thread.
    """

    def __init__(self, listener: socket.socket, model_path: Path, env_id: str, seed: int):
        """``listener`` has the page's port; it is the process's own from ``_before_train`` on."""
        self._listener, self._model_path, self._env_id, self._seed = listener, model_path, env_id, seed
        self._process: subprocess.Popen | None = None

    def _before_train(self):
        descriptor = self._listener.fileno()
        arguments = (descriptor, self._model_path.resolve(), self._env_id, self._seed)
        with self._listener:
            environment = {**ONE_THREAD, "CUDA_VISIBLE_DEVICES": ""}
            try:
                self._process = start_program("a3c.watch.player", *arguments, pass_fds=[descriptor], env=environment)
            except OSError as error:  # there may be no process more
                logger.warn(f"the watcher cannot be started ({error.strerror}): training goes on without its page")
            else:
                logger.info(f"watch it at {address(self._listener)}")

    def _trigger_epoch(self):
        if self._process is not None and self._process.poll() is not None:
            logger.warn(f"the watcher ended with status {self._process.returncode}: training goes on without its page")
            self._process = None

    def _after_train(self):
        if self._process is None:
            return
        self._process.terminate()
        wait_or_kill(self._process, _CLOSE_TIMEOUT_S)
