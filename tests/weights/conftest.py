from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "Pong-v0.npz"
