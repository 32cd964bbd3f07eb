"""One Ray cluster for all tests that need one."""

from __future__ import annotations

import os
import time

from bench.command_line import kill_started

import pytest
from ray_nodes import ENVIRONMENT, Nodes, of_hosts


@pytest.fixture(scope="module")  # a directory without __init__.py is no package to pytest
def nodes():
    """One cluster for all tests that need one."""
    before = {name: os.environ.get(name) for name in (*ENVIRONMENT, "PYTHONPATH")}
    fakes = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "fakes")
    os.environ |= ENVIRONMENT | {"PYTHONPATH": fakes}  # its nodes find the fake games
    cluster = Nodes()
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value
    try:
        yield cluster
    finally:
        kill_started()
        cluster.close()
        deadline = time.monotonic() + 15
        while of_hosts() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert of_hosts() == []
