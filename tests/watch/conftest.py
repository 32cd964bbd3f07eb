from __future__ import annotations

from a3c.watch.server import Server, listen

import pytest


@pytest.fixture
def page():
    """A server whose page is up."""
    listener = listen(0)
    with Server(listener) as server:
        server.port = server._server.port
        yield server
