"""The command line with a learner that takes ten times as long for each step but the first. A test runs it."""

import runpy
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from a3c import config  # noqa: E402, F401  before tensorpack: it prepares the environment

from tensorpack import SimpleTrainer  # noqa: E402

run_step = SimpleTrainer.run_step


def slow_step(trainer) -> None:
    start = time.perf_counter()
    run_step(trainer)
    if trainer.loop.global_step >= 2:  # in the first, TensorFlow prepares itself
        time.sleep(9 * (time.perf_counter() - start))


SimpleTrainer.run_step = slow_step
runpy.run_path(str(ROOT / "train-atari.py"), run_name="__main__")
