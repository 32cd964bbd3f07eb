"""A way over tcp that can be cut: what connects to it is passed on, until it is closed or falls silent."""

from __future__ import annotations

import contextlib
import socket
import threading

_CHUNK_BYTES = 1 << 16


class Proxy:
    """Passes connections on to ``tcp://HOST:PORT``. Threads of its own copy; they end with it."""

    def __init__(self, target: str):
        host, _, port = target.removeprefix("tcp://").rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = [self._listener]
        self._passes = threading.Event()
        self._passes.set()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def endpoint(self) -> str:
        return "tcp://{}:{}".format(*self._listener.getsockname())

    def silence(self) -> None:
        """Pass nothing on from now on, as a link that was cut."""
        self._passes.clear()

    def close(self) -> None:
        """Close all connections, as a machine does whose process has died."""
        self._passes.set()
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
                self._sockets += [near, far]
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._copy, args=(source, sink), daemon=True).start()

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_CHUNK_BYTES):
                self._passes.wait()
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
