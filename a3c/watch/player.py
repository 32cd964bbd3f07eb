"""See the agent play anywhere: one page on 127.0.0.1 with the live game, its policy, value, score and input.

    player's thread                                  the server's threads, one for each browser
    show() plays -> Broadcast.publish(message) ----> a short queue each -> Server-Sent Events -> page.html

``--task play --watch PORT`` plays and serves in one process. For a training ``watcher.Watcher`` runs this file as a
program of its own, which plays with the newest weights that the training wrote. While nobody watches, nothing is
played, drawn or sent; a browser that is slow misses moments and holds nobody up.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import itertools
import json
import os
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from a3c.config import UsageError
from a3c.seeds import Purpose, Seeds
from a3c.system.machine import quiet_stderr
from a3c.weights.model_file import read_model
from atari_wrapper import FRAMES_PER_S, make_player
from common import Policy, Step, play_episode

import cv2
import numpy as np
from werkzeug.exceptions import Forbidden, MethodNotAllowed, NotFound, ServiceUnavailable
from werkzeug.sansio.utils import host_is_trusted
from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler
from werkzeug.wrappers import Request, Response

if TYPE_CHECKING:  # TensorFlow, which takes seconds
    from a3c.weights.file_policy import FilePolicy

HOST = "127.0.0.1"
_HOSTS = (HOST, "localhost")  # what a browser may call us, with any port: a tunnel's other end can have another one
_PAGE = Path(__file__).resolve().parent / "page.html"
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data:; connect-src 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}
_MAX_CLIENTS = 16
_MAX_CONNECTIONS = 2 * _MAX_CLIENTS  # each has a thread
_VISIT_S = 10.0  # that a connection may take to ask and be answered; a client's stays
_ROOM_TIMEOUT_S = 0.5
_WAITING_MESSAGES = 4  # of a client that is slow: then the oldest are dropped
_SILENCE_S = 5.0  # after which a client is sent a comment, to find out whether it is still there
_SEND_TIMEOUT_S = 30.0
_SHUTDOWN_POLL_S, _SHUTDOWN_TIMEOUT_S = 0.1, 5.0
_POLL_S = 0.5
_CATCH_UP_S = 0.25  # a player that was held up makes up for so much
# Of the process that plays for a training: its priority, and how many of its steps are shown, about 10 a second.
_NICENESS, _TRAINING_EVERY_STEPS = 19, 2
# Lossless, and a fifth of the work of OpenCV's default filter.
_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 1]
if hasattr(cv2, "IMWRITE_PNG_FILTER"):
    _PNG += [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE]


class Broadcast:
    """Carries messages from one player to any number of clients; any thread may call its methods.

    Each client has a queue of a few messages, whose oldest is dropped when a newer one comes, so that no one waits for
    it.
    """

    def __init__(self):
        self._changed = threading.Condition()
        self._clients: dict[object, deque[bytes]] = {}
        self._closed = False

    @property
    def full(self) -> bool:
        """Whether there are as many clients as there may be."""
        return len(self._clients) >= _MAX_CLIENTS

    def publish(self, message: bytes) -> None:
        """Give each client the message; does not wait."""
        with self._changed:
            for waiting in self._clients.values():
                waiting.append(message)
            self._changed.notify_all()

    def wait_for_client(self, timeout_s: float) -> bool:
        """Wait until somebody is there; tell whether it is so."""
        with self._changed:
            return self._changed.wait_for(lambda: bool(self._clients), timeout_s)

    def has(self, client: object) -> bool:
        """Whether it is a client now."""
        return client in self._clients

    def messages(self, client: object) -> Iterator[bytes]:
        """A client's messages until ``close``; empty ones when none came for a while. One thread iterates.

        There are none if there are as many clients as there may be.
        """
        waiting = deque(maxlen=_WAITING_MESSAGES)
        with self._changed:
            if self.full:
                return
            self._clients[client] = waiting
            self._changed.notify_all()
        try:
            while not self._closed:
                with self._changed:
                    self._changed.wait_for(lambda: waiting or self._closed, _SILENCE_S)
                    message = waiting.popleft() if waiting else b""
                yield message
        finally:
            with self._changed:
                del self._clients[client]

    def close(self) -> None:
        """End all clients' messages."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def listen(port: int) -> socket.socket:
    """Take the page's port, before there is anything to lose.

    Raises:
        UsageError: it is taken, or not ours to take.
    """
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        other = port + 1 if 1024 <= port < 65535 else 8080
        reason = "the port is taken" if error.errno == errno.EADDRINUSE else error.strerror
        raise UsageError(f"--watch {port}: {reason}; name another port, for example --watch {other}") from None


def address(listener: socket.socket) -> str:
    """What to type into a browser."""
    return f"http://{HOST}:{listener.getsockname()[1]}"


class _Handler(WSGIRequestHandler):
    """Sends each moment at once, says nothing, and gives a browser up that takes nothing for too long."""

    disable_nagle_algorithm = True
    timeout = _SEND_TIMEOUT_S

    def log(self, *_):
        pass


class _PageServer(ThreadedWSGIServer):
    """Gives each connection a thread, so many at most, and closes after a while those that are no client's.

    Where there is no room, the oldest of these makes it: silent and slow ones lock nobody out.
    """

    def __init__(self, listener: socket.socket, broadcast: Broadcast):
        self._broadcast = broadcast
        self._room = threading.Semaphore(_MAX_CONNECTIONS)
        self._since_s: dict[socket.socket, float] = {}  # of each connection, the oldest first
        super().__init__(*listener.getsockname(), make_app(broadcast), _Handler, fd=listener.fileno())

    def process_request(self, request, client_address):
        if not self._room.acquire(blocking=False):
            for connection, _ in self._visits()[:1]:
                _hang_up(connection)
            if not self._room.acquire(timeout=_ROOM_TIMEOUT_S):
                self.shutdown_request(request)
                return
        self._since_s[request] = time.monotonic()
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # the system gives no more threads
            self.shutdown_request(request)
            self._forget(request)

    def process_request_thread(self, request, client_address):
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._forget(request)

    def _forget(self, connection: socket.socket) -> None:
        del self._since_s[connection]
        self._room.release()

    def service_actions(self):
        last_s = time.monotonic() - _VISIT_S
        for connection, since_s in self._visits():
            if since_s < last_s:
                _hang_up(connection)

    def _visits(self) -> list[tuple[socket.socket, float]]:
        """The connections that are no client's, and since when they are there."""
        return [visit for visit in list(self._since_s.items()) if not self._broadcast.has(visit[0])]


def _hang_up(connection: socket.socket) -> None:
    """End a connection, whose thread then finds it so."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _of_another_site(request: Request) -> bool:
    """Whether a page that is not ours asks; to follow its link to the page is a person's wish.

    Browsers say so in Sec-Fetch-Site, those from before 2023 at least in Origin where the answer could be read.
    """
    if request.path == "/" and request.headers.get("Sec-Fetch-Mode") == "navigate":
        return False
    _, _, origin = request.headers.get("Origin", "").partition("://")
    site = request.headers.get("Sec-Fetch-Site", "none")
    return site not in ("same-origin", "none") or ("Origin" in request.headers and origin != request.host)


def make_app(broadcast: Broadcast):
    """The WSGI application: ``/`` is the page, ``/events`` its moments as Server-Sent Events."""
    page = _PAGE.read_bytes()

    def events(client: object) -> Iterator[bytes]:
        yield b":\n\n"  # the browser then knows at once that it is connected
        with contextlib.closing(broadcast.messages(client)) as messages:
            for message in messages:
                yield b"data: %b\n\n" % message if message else b":\n\n"

    @Request.application
    def app(request: Request) -> Response:
        # A name that an attacker's DNS server points to this machine would open it to the attacker's pages.
        if not host_is_trusted(request.headers.get("Host"), _HOSTS):
            raise Forbidden(f"call this page {HOST} or localhost")
        if _of_another_site(request):
            raise Forbidden("only this page may ask")
        if request.method != "GET":
            raise MethodNotAllowed(["GET"])
        if request.path == "/":
            return Response(page, mimetype="text/html", headers=_HEADERS)
        if request.path != "/events":
            raise NotFound
        if broadcast.full:
            raise ServiceUnavailable(f"{_MAX_CLIENTS} are watching already")
        return Response(events(request.environ["werkzeug.socket"]), mimetype="text/event-stream", headers=_HEADERS)

    return app


class Server:
    """Serves the page on a thread of its own, and each browser on another. A context manager."""

    def __init__(self, listener: socket.socket):
        """``listener`` is the server's from now on."""
        self.broadcast = Broadcast()
        self._server = _PageServer(listener, self.broadcast)
        listener.close()  # the server has a copy
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_SHUTDOWN_POLL_S,), name="watch", daemon=True
        )
        self._thread.start()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_):
        self.broadcast.close()
        self._server.shutdown()
        self._thread.join(_SHUTDOWN_TIMEOUT_S)


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
) -> Iterator[float]:
    """Play an episode after the other at the game's own speed, as long as somebody watches; yield their scores.

    Args:
        make_game: makes a game with ``render_mode="rgb_array"``; called for each episode.
        policy: acts greedily, with 1% random actions.
        broadcast: where each step goes.
        seed: of the games and the random actions.
        about: what else each message says.
        check_stop: called between steps; what it raises ends the show.
        every_steps: how many steps there are from one that is shown to the next.
    """
    seeds, pace, frames = Seeds(seed, Purpose.WATCH), Pace(), 0
    for episode in itertools.count(1):
        game, score = make_game(), 0.0
        actions = game.unwrapped.get_action_meanings()
        try:
            for number, step in enumerate(play_episode(game, policy, seeds.generator(episode), seeds.of_life(episode))):
                while not broadcast.wait_for_client(_POLL_S):
                    check_stop()
                check_stop()
                score, frames = score + step.reward, frames + step.emulator_frames
                pace.wait(step.emulator_frames)
                if number % every_steps:
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
    report: Callable[[str], None] = print,
    check_stop: Callable[[], None] = lambda: None,
) -> None:
    """Show the agent play on the page, until so many episodes are over or ``check_stop`` raises."""
    told = {"env": env_id, "episodes": episodes, **facts(policy.metadata)}
    with Server(listener) as server:
        scores = show(lambda: make_player(env_id, "rgb_array"), policy, server.broadcast, seed, lambda: told,
                      check_stop)  # fmt: skip
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
            server.broadcast.publish(json.dumps({"env": env_id, "waiting": "the first epoch's weights"}).encode())
            time.sleep(_POLL_S)
        for _ in show(
            lambda: make_player(env_id, "rgb_array"),
            policy,
            server.broadcast,
            seed,
            lambda: {"env": env_id, **policy.about()},
            every_steps=_TRAINING_EVERY_STEPS,
        ):
            pass


def _main(descriptor: str, model_path: str, env_id: str, seed: str) -> None:
    cv2.setNumThreads(1)
    with quiet_stderr():
        from a3c.weights import file_policy  # noqa: F401  takes seconds, which would be minutes at the lowest priority
    os.nice(_NICENESS)  # of this thread, and of all that it starts from here on
    with contextlib.suppress(OSError):  # it then takes what the training leaves, and never interrupts it
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    watch_training(socket.socket(fileno=int(descriptor)), model_path, env_id, int(seed))


if __name__ == "__main__":
    _main(*sys.argv[1:])
