"""A simulator's end of the transport: the socket for its steps and the socket for its actions.

To another machine a life is one connection. If it is lost, the simulator ends: a step that was on its way could be
lost, and what followed would join an unroll with a hole in it.
"""

from __future__ import annotations

import os
import time

from a3c.simulation.messages import SimulatorSpec, identity
from a3c.simulation.nursery import LOST
from a3c.simulation.remote import RemoteAddress, compressor

import zmq
from zmq.utils.monitor import recv_monitor_message

_LOOK_MS = 1000
_HANDSHAKE_S = 15.0
_LAST_WORDS_MS = 2000
_SOCKET_BUFFER_BYTES = 1 << 20  # a message is written at once, as far as the system allows


class Connection:
    """Sends a simulator's steps and receives its actions. The process ends where there is nobody to play for."""

    def __init__(self, spec: SimulatorSpec):
        self._directory = spec.address
        self._remote = RemoteAddress(**spec.address) if isinstance(spec.address, dict) else None
        self._pack = compressor(self._remote.codec) if self._remote else None
        self._parent_pid = os.getppid()
        self._monitors: list[zmq.Socket] = []
        self._context = zmq.Context()
        self._dealer = self._context.socket(zmq.DEALER)
        self._dealer.setsockopt(zmq.IDENTITY, identity(spec.index, spec.life))
        self._dealer.setsockopt(zmq.RCVTIMEO, _LOOK_MS)
        self._push = self._context.socket(zmq.PUSH)
        self._push.setsockopt(zmq.SNDHWM, 2)
        self._push.setsockopt(zmq.SNDTIMEO, _LOOK_MS)
        self._push.setsockopt(zmq.SNDBUF, _SOCKET_BUFFER_BYTES)
        self._connect(self._dealer, "actions")  # before the first step is sent, or its actions would find nobody
        self._connect(self._push, "steps")

    def _connect(self, socket: zmq.Socket, name: str) -> None:
        if self._remote is None:
            socket.connect(f"ipc://{self._directory}/{name}")
            return
        monitor = socket.get_monitor_socket(zmq.EVENT_ALL & ~zmq.EVENT_CONNECTED & ~zmq.EVENT_CONNECT_DELAYED)
        self._monitors.append(monitor)
        self._remote.connect(socket, name)
        deadline = time.monotonic() + _HANDSHAKE_S
        while True:
            self._end_if_orphan()
            if monitor.poll(_LOOK_MS):
                if recv_monitor_message(monitor)["event"] != zmq.EVENT_HANDSHAKE_SUCCEEDED:
                    os._exit(LOST)
                return
            if time.monotonic() > deadline:
                os._exit(LOST)

    def send(self, parts: list) -> None:
        """Send the two parts of a step."""
        if self._pack is not None:
            parts = [parts[0], self._pack(parts[1])]
        while True:
            try:
                return self._push.send_multipart(parts)
            except zmq.Again:  # nothing of it was sent
                self._look()

    def receive(self) -> bytes:
        """Wait for the actions of the step that was sent last."""
        while True:
            try:
                return self._dealer.recv()
            except zmq.Again:
                self._look()

    def _look(self) -> None:
        """End if the learner, the nursery or the connection is gone."""
        self._end_if_orphan()
        if any(monitor.poll(0) for monitor in self._monitors):  # whatever there is to tell, it is the end
            os._exit(LOST)

    def _end_if_orphan(self) -> None:
        if os.getppid() != self._parent_pid:
            os._exit(1)

    def close_with(self, last_words: list) -> None:
        """Send last words, and wait for a while until they are on their way."""
        self._push.send_multipart(last_words)
        for monitor in self._monitors:
            monitor.close(linger=0)
        self._dealer.close(linger=0)
        self._push.close(linger=_LAST_WORDS_MS)
        self._context.term()  # os._exit would not wait for them
