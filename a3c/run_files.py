"""Names of the files in a run's directory."""

from __future__ import annotations

CONFIG_FILE = "config.json"
CURVE_FILE = "learning_curve.png"
STATS_FILE = "stats.json"


def file_name(env_id: str) -> str:
    """The environment id as part of a file's name: ``ALE/Pong-v5`` -> ``ALE-Pong-v5``."""
    return env_id.replace("/", "-").replace(":", "-")
