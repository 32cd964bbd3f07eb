"""Clients of the page of ``--watch``."""

from __future__ import annotations

import base64
import contextlib
import http.client
import itertools
import threading

from bench.watch import events

import cv2
import numpy as np


def get(port: int, path: str = "/", method: str = "GET", **headers) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection):
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        endless = response.getheader("Content-Length") is None
        return response.status, response.headers, b"" if endless else response.read()


def read(port: int, messages: int) -> list[dict]:
    """So many messages of a client, which then leaves."""
    with contextlib.closing(events(port)) as stream:
        return list(itertools.islice(stream, messages))


class Reader:
    """A client that reads all messages, on a thread of its own, until the server ends."""

    def __init__(self, port: int):
        self.seen: list[dict] = []
        self.thread = threading.Thread(target=self._read, args=(port,), daemon=True)
        self.thread.start()

    def _read(self, port: int) -> None:
        for message in events(port):
            self.seen.append(message)


def picture(base64_png: str) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(base64.b64decode(base64_png), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
