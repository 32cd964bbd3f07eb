"""What changes when a simulator is on another machine: tcp in place of files, keys, packed frames.

The learner's end is a ``RemoteWire``; what it tells the simulators of itself is a ``RemoteAddress``. Messages are
encrypted and authenticated with CURVE: each host makes itself a pair of keys, and only hosts whose public key was
admitted get as far as a message.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import logging

from a3c.errors import UsageError
from a3c.simulation.messages import MessageError

import zmq
from zmq.auth.thread import ThreadAuthenticator

CODECS = ("lz4", "none")
# A connection on which nothing is heard is lost: a link that was cut, a machine switched off, a process paused.
_HEARTBEAT_EVERY_MS, _HEARTBEAT_TIMEOUT_MS = 2000, 6000
_CONNECT_TIMEOUT_MS = 5000
_HANDSHAKE_BYTES = 1024
_ANY_PORT = "*"


@dataclasses.dataclass(frozen=True)
class RemoteAddress:
    """Where a simulator on another machine connects to, and what it needs for it.

    Attributes:
        steps, actions: ZMQ's endpoints of the master's sockets.
        codec: how frames are packed, one of ``CODECS``.
        server_key: the learner's public key.
        public_key, secret_key: those of the simulator's host, which adds them; they never leave it.
    """

    steps: str
    actions: str
    codec: str
    server_key: str
    public_key: str = ""
    secret_key: str = ""

    def connect(self, socket: zmq.Socket, name: str) -> None:
        """Connect a simulator's socket, ``steps`` or ``actions``, once: none follows a connection that is lost."""
        if self.server_key:  # a benchmark goes without
            socket.curve_serverkey = self.server_key.encode()
            socket.curve_publickey, socket.curve_secretkey = self.public_key.encode(), self.secret_key.encode()
        socket.ipv6 = True
        socket.setsockopt(zmq.RECONNECT_IVL, -1)
        socket.setsockopt(zmq.CONNECT_TIMEOUT, _CONNECT_TIMEOUT_MS)
        watch_over(socket)
        socket.connect(getattr(self, name))


def watch_over(socket: zmq.Socket) -> None:
    """Have a socket find out that the other end is gone; both ends do."""
    socket.setsockopt(zmq.HEARTBEAT_IVL, _HEARTBEAT_EVERY_MS)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, _HEARTBEAT_TIMEOUT_MS)
    socket.setsockopt(zmq.HEARTBEAT_TTL, _HEARTBEAT_TIMEOUT_MS)


class RemoteWire:
    """The learner's end: listens on one address, admits the hosts' keys, unpacks their frames.

    The thread that makes it opens and closes it; the one that receives unpacks, and admits; others may read.

    Attributes:
        listen: the address that the hosts connect to.
        received_bytes: of frames as they came, packed.
    """

    def __init__(self, listen: str, codec: str):
        """
        Args:
            listen: the IP address of this machine that the hosts connect to.
            codec: one of ``CODECS``.
        """
        self.received_bytes = 0
        self.listen, self._codec = listen, codec
        self._decompress = _decompressor() if codec == "lz4" else None
        public, secret = zmq.curve_keypair()
        self._public_key, self._secret_key = public, secret
        self._admitted: frozenset[str] = frozenset()
        self._endpoints: dict[str, str] = {}
        self._authenticator: ThreadAuthenticator | None = None

    @property
    def address(self) -> dict:
        """The ``RemoteAddress`` of the sockets that were bound, as a spec has it."""
        return dataclasses.asdict(
            RemoteAddress(**self._endpoints, codec=self._codec, server_key=self._public_key.decode())
        )

    def admit(self, keys: frozenset[str]) -> None:
        """From now on admit connections of those who have one of these public keys, and nobody else's."""
        self._admitted = keys

    def callback(self, domain: str, key: bytes) -> bool:
        """Whether this public key is admitted; ZAP's thread asks."""
        return key.decode(errors="replace") in self._admitted

    def open(self, context: zmq.Context) -> None:
        """Let nobody in but those admitted, on all sockets of the context; to be called before ``bind``."""
        log = logging.getLogger("a3c.simulation.strangers")
        log.setLevel(logging.CRITICAL)  # who is refused is no news: it would be a line for each try
        self._authenticator = ThreadAuthenticator(context, log=log)
        self._authenticator.start()
        self._authenticator.configure_curve_callback(domain="*", credentials_provider=self)

    def bind(self, socket: zmq.Socket, name: str) -> None:
        """Bind a master's socket, ``steps`` or ``actions``, whose other options are set.

        Raises:
            UsageError: this machine has no such address.
        """
        limit = socket.getsockopt(zmq.MAXMSGSIZE)  # lz4 adds to what cannot be packed
        socket.setsockopt(zmq.MAXMSGSIZE, limit + limit // 255 + _HANDSHAKE_BYTES)
        self._encrypt(socket)
        watch_over(socket)
        host = f"[{self.listen}]" if ":" in self.listen else self.listen
        socket.ipv6 = ":" in self.listen
        try:
            socket.bind(f"tcp://{host}:{_ANY_PORT}")
        except zmq.ZMQError as error:
            raise UsageError(
                f"--listen {self.listen}: this machine cannot listen there ({error.strerror}): name one of its own "
                "addresses, that the hosts reach"
            ) from None
        self._endpoints[name] = socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def _encrypt(self, socket: zmq.Socket) -> None:
        socket.curve_server = True
        socket.curve_publickey, socket.curve_secretkey = self._public_key, self._secret_key

    def unpack(self, part, size_bytes: int):
        """Unpack frames, which are ``size_bytes`` long, whatever the message says of itself.

        Raises:
            MessageError: they are not.
        """
        self.received_bytes += len(part)
        return part if self._decompress is None else self._decompress(part, size_bytes)

    def close(self) -> None:
        """Stop admitting; the sockets are closed by whose they are."""
        if self._authenticator is not None:
            self._authenticator.stop()
            self._authenticator = None


def compressor(codec: str):
    """The function that packs a simulator's frames, a contiguous array; None if they are sent as they are."""
    if codec == "none":
        return None
    import lz4.block

    return lambda frames: lz4.block.compress(frames, store_size=False)


def _decompressor():
    import lz4.block

    def decompress(part, size_bytes: int) -> bytes:
        try:
            return lz4.block.decompress(part, uncompressed_size=size_bytes)
        except lz4.block.LZ4BlockError as error:
            raise MessageError(f"frames cannot be unpacked: {error}") from None

    return decompress


def missing_packages() -> list[str]:
    """Those that a cluster needs beside what one machine does, and that are not installed."""
    return [name for name in ("ray", "lz4") if importlib.util.find_spec(name) is None]
