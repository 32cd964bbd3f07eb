"""One Ray cluster for all tests that need one."""

from __future__ import annotations

import time

from bench.command_line import kill_started

import pytest
from ray_nodes import Nodes, of_hosts


@pytest.fixture(scope="module")  # a directory without __init__.py is no package to pytest
def nodes():
    """One cluster for all tests that need one."""
    cluster = Nodes()
    try:
        yield cluster
    finally:
        kill_started()
        cluster.close()
        deadline = time.monotonic() + 15
        while of_hosts() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert of_hosts() == []
