"""The command line with games that tell which life they are of; each batch that the learner takes is checked.

Run by the trials of faults. A batch that mixes two lives ends the run with its traceback. On a cluster, where a trial
mostly waits, games are slow; and a head is given up sooner.
"""

import functools
import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

from a3c import config  # noqa: E402, F401  before tensorpack: it prepares the environment
from a3c.acting.actor import Actor  # noqa: E402
from a3c.acting.batches import UnrollBatch  # noqa: E402
from a3c.cluster import cluster  # noqa: E402
from a3c.simulation.master import SimulatorMaster  # noqa: E402

from fake_lives import LIFE, check_transitions, check_unrolls  # noqa: E402

cluster._HEAD_GONE_S = 8.0
PLAYER_ARGS = {"step_s": 0.004} if "--ray" in sys.argv else {}
make, take_batch = SimulatorMaster.__init__, Actor.take_batch
transitions, followed, lives = 0, 0, set()


@functools.wraps(make)
def make_life_telling(master, nursery, envs_per_simulator, player_args, **options) -> None:
    make(master, nursery, envs_per_simulator, PLAYER_ARGS, player=LIFE, **options)


@functools.wraps(take_batch)
def take_checked(actor):
    global transitions, followed
    batch = take_batch(actor)
    if isinstance(batch, UnrollBatch):
        checked = check_unrolls(batch)
    else:
        checked = check_transitions(batch, actor._config.gamma, actor._config.gae_lambda)
    transitions, followed = transitions + checked.transitions, followed + checked.followed
    lives.update(checked.lives)
    return batch


SimulatorMaster.__init__, Actor.take_batch = make_life_telling, take_checked
sys.argv[0] = str(ROOT / "train-atari.py")
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print(f"checked {transitions} transitions, {followed} with their successors, of {len(lives)} lives", flush=True)
