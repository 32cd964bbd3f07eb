"""The command line with a doctor that measures each speed for a moment only. Run as a script by tests."""

import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from a3c.doctor import report as doctor  # noqa: E402

doctor.SECONDS = 0.2
runpy.run_path(str(ROOT / "train-atari.py"), run_name="__main__")
