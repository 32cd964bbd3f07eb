"""See the agent play anywhere: the live game, its policy, value, score and input, as moments for the page.

``--task play --watch PORT`` plays and serves in one process. For a training ``watcher.Watcher`` runs this file as a
program of its own, which plays with the newest weights that the training wrote. While nobody watches, nothing is
played, drawn or sent.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from a3c.errors import UsageError
from a3c.playing.episode import ChooseActions, Policy, Step, greedy_actions, play_episode, sampled_actions
from a3c.playing.progress import tell
from a3c.seeds import Purpose, Seeds
from a3c.system.machine import quiet_stderr
from a3c.watch.server import Broadcast, Server
from a3c.weights.model_file import read_model
from atari_wrapper import FRAMES_PER_S, make_player

import cv2
import numpy as np

if TYPE_CHECKING:  # TensorFlow, which takes seconds
    from a3c.weights.file_policy import FilePolicy

_POLL_S = 0.5
_CATCH_UP_S = 0.25  # a player that was held up makes up for so much
# Of the process that plays for a training: its priority, and how many of its steps are shown, about 10 a second.
_NICENESS, _TRAINING_EVERY_STEPS = 19, 2
# Lossless, and a fifth of the work of OpenCV's default filter.
_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 1]
if hasattr(cv2, "IMWRITE_PNG_FILTER"):
    _PNG += [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE]


class Pace:
    """Lets time pass as it does for the game."""

    def __init__(self):
        self._due = time.monotonic()

    def wait(self, emulator_frames: int) -> None:
        """Wait until these frames have been shown too. What is more than a moment late is not caught up with."""
        self._due = max(self._due + emulator_frames / FRAMES_PER_S, time.monotonic() - _CATCH_UP_S)
        time.sleep(max(0.0, self._due - time.monotonic()))


def show(
    make_game: Callable[[], object],
    policy: Policy,
    broadcast: Broadcast,
    seed: int,
    about: Callable[[], dict],
    check_stop: Callable[[], None] = lambda: None,
    every_steps: int = 1,
    choose: ChooseActions = greedy_actions,
) -> Iterator[float]:
    """Play an episode after the other at the game's own speed, as long as somebody watches; yield their scores.

    Args:
        make_game: makes a game with ``render_mode="rgb_array"``; called for each episode.
        policy: of the agent.
        broadcast: where each step goes.
        seed: of the games and the random actions.
        about: what else each message says.
        check_stop: called between steps; what it raises ends the show.
        every_steps: how many steps there are from one that is shown to the next; an episode's last is shown, too.
        choose: makes actions of the policy's probabilities.
    """
    seeds, pace, frames = Seeds(seed, Purpose.WATCH), Pace(), 0
    for episode in itertools.count(1):
        game, score = make_game(), 0.0
        actions = game.unwrapped.get_action_meanings()
        try:
            steps = play_episode(game, policy, seeds.generator(episode), seeds.of_life(episode), choose)
            for number, step in enumerate(steps):
                while not broadcast.wait_for_client(_POLL_S):
                    check_stop()
                check_stop()
                score, frames = score + step.reward, frames + step.emulator_frames
                pace.wait(step.emulator_frames)
                if number % every_steps and not step.over:
                    continue
                told = {"episode": episode, "step": number, "score": score, "frames": frames, "actions": actions}
                broadcast.publish(encode(game.render(), step, told | about()))
        finally:
            game.close()
        yield score


def encode(screen: np.ndarray, step: Step, told: dict) -> bytes:
    """Make the message of a moment: JSON on one line; pictures are PNG in base64, the input as its four frames."""
    channels = cv2.split(step.state)  # OpenCV copies in half of NumPy's time, and wants the colours from blue to red
    frames = [cv2.merge(channels[first : first + 3][::-1]) for first in range(0, len(channels), 3)]
    moment = {
        **told,
        "policy": [round(float(p), 4) for p in step.policy],
        "action": step.action,
        "value": round(step.value, 4),
        "screen": _png(cv2.cvtColor(screen, cv2.COLOR_RGB2BGR)),
        "input": _png(cv2.hconcat(frames)),
    }
    return json.dumps(moment).encode()


def _png(bgr: np.ndarray) -> str:
    _, data = cv2.imencode(".png", bgr, _PNG)
    return base64.b64encode(data).decode()


def play(
    listener: socket.socket,
    policy: FilePolicy,
    env_id: str,
    episodes: int,
    seed: int,
    choose: ChooseActions = greedy_actions,
    report: Callable[[str], None] = tell,
    check_stop: Callable[[], None] = lambda: None,
) -> None:
    """Show the agent play on the page, until so many episodes are over or ``check_stop`` raises."""
    told = {"env": env_id, "episodes": episodes, **facts(policy.metadata)}
    with Server(listener) as server:
        scores = show(lambda: make_player(env_id, "rgb_array"), policy, server.broadcast, seed, lambda: told,
                      check_stop, choose=choose)  # fmt: skip
        with contextlib.closing(scores):
            for episode, score in enumerate(itertools.islice(scores, episodes), start=1):
                report(f"episode {episode}/{episodes}: score {score:.10g}")


def facts(metadata: dict) -> dict:
    """What the page tells of a model file."""
    return {name: metadata.get(name) for name in ("updates", "online_score")}


class NewestPolicy:
    """The policy of a model file that a training writes again and again: read anew when it has changed. One thread."""

    def __init__(self, path: str):
        self._path = path
        self._policy: FilePolicy | None = None
        self._version: tuple[int, int] | None = None
        self._written = 0.0

    def reload(self) -> bool:
        """Take the file's weights if they are new; tell whether there are any."""
        from a3c.weights.file_policy import FilePolicy

        try:
            status = os.stat(self._path)
            version = status.st_ino, status.st_mtime_ns
            if version != self._version:
                self._version = version
                model = read_model(self._path)
                if self._policy is None:
                    self._policy = FilePolicy(model, cores=1)
                else:
                    self._policy.load(model)
                self._written = status.st_mtime
        except (OSError, UsageError):
            pass  # not there yet, or not readable: the weights from before go on
        return self._policy is not None

    def __call__(self, states: np.ndarray) -> list[np.ndarray]:
        self.reload()
        return self._policy(states)

    def about(self) -> dict:
        """What the page tells of the weights; ``age_s`` since they were written."""
        return facts(self._policy.metadata) | {"age_s": round(time.time() - self._written)}


def watch_training(listener: socket.socket, model_path: str, env_id: str, seed: int) -> None:
    """Play for ever with the newest weights of a training, for those who watch."""
    policy = NewestPolicy(model_path)
    with Server(listener) as server:
        while not policy.reload():
            server.broadcast.publish(json.dumps({"env": env_id, "waiting": "the first weights"}).encode())
            time.sleep(_POLL_S)
        for _ in show(
            lambda: make_player(env_id, "rgb_array"),
            policy,
            server.broadcast,
            seed,
            lambda: {"env": env_id, **policy.about()},
            every_steps=_TRAINING_EVERY_STEPS,
            choose=sampled_actions,  # as the training does, whose score is told beside it
        ):
            pass


def _main(descriptor: str, model_path: str, env_id: str, seed: str) -> None:
    cv2.setNumThreads(1)
    with quiet_stderr():
        from a3c.weights import file_policy  # noqa: F401  takes seconds, which would be minutes at the lowest priority
    os.nice(_NICENESS)  # of this thread, and of all that it starts from here on
    with contextlib.suppress(OSError):  # it then never interrupts the training, where sessions share no cores
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    watch_training(socket.socket(fileno=int(descriptor)), model_path, env_id, int(seed))


if __name__ == "__main__":
    _main(*sys.argv[1:])
