"""The page's server, on 127.0.0.1: one thread that listens, one for each browser.

    player's thread                                  the server's threads
    show() plays -> Broadcast.publish(message) ----> a short queue each -> Server-Sent Events -> page.html

A browser that is slow misses moments and never blocks the player.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from a3c.errors import UsageError

from werkzeug.exceptions import Forbidden, MethodNotAllowed, NotFound, ServiceUnavailable
from werkzeug.sansio.utils import host_is_trusted
from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler
from werkzeug.wrappers import Request, Response

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
_UNSENT_BYTES = 1 << 16  # that the system holds for a client: what is there is as late as it takes to send it
_SILENCE_S = 5.0  # after which a client is sent a comment, to find out whether it is still there
_SEND_TIMEOUT_S = 30.0
_SHUTDOWN_POLL_S, _SHUTDOWN_TIMEOUT_S = 0.1, 5.0


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
        listener = socket.create_server((HOST, port))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _UNSENT_BYTES)  # its connections inherit it
        return listener
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

    def handle_error(self, *_):
        """Say nothing of a request that is none: whoever connects could fill the terminal."""

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
