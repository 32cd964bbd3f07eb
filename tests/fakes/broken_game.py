"""The command line with games that cannot be made. Run as a script by a test."""

import functools
import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

from a3c.simulation import master as simulator_master  # noqa: E402

make = simulator_master.SimulatorMaster.__init__


@functools.wraps(make)
def make_broken(master, nursery, envs_per_simulator, player_args, **options) -> None:
    make(master, nursery, envs_per_simulator, {}, player="fake_games:make_fake_raising_game", **options)


simulator_master.SimulatorMaster.__init__ = make_broken
runpy.run_path(str(ROOT / "train-atari.py"), run_name="__main__")
