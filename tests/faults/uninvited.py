"""A stranger on another machine: it has no key that anybody knows, and writes to each port of a learner.

As a program: ``uninvited IP PORT ...``.
"""

from __future__ import annotations

import socket
import sys
import time

import zmq

_MESSAGES = 100  # to each port, of each kind
_S = 1.0  # for what is sent to arrive


def main(ip: str, *ports: str) -> None:
    """Write to each port, in the clear and encrypted with keys made now, with both kinds of socket.

    Raises:
        OSError: a port cannot be reached from here.
    """
    context, sockets = zmq.Context(), []
    for port in ports:
        socket.create_connection((ip, int(port)), _S).close()
        for kind in (zmq.PUSH, zmq.DEALER):
            for encrypted in (False, True):
                sockets.append(end := context.socket(kind))
                if encrypted:
                    end.curve_serverkey, _ = zmq.curve_keypair()  # the learner's is not known to it
                    end.curve_publickey, end.curve_secretkey = zmq.curve_keypair()
                end.connect(f"tcp://{ip}:{port}")
                for _ in range(_MESSAGES):
                    end.send_multipart([b"let me in", b""], zmq.DONTWAIT)
    time.sleep(_S)
    context.destroy(linger=0)


if __name__ == "__main__":
    main(*sys.argv[1:])
