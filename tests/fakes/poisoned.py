"""The command line with a number that is not finite. Run by the trials of faults.

The last two arguments say which and when: ``prediction N``, the N-th call of the predictor; ``weights N``, before the
update after N; ``reward VALUE:N``, the N-th step of a game.
"""

import functools
import itertools
import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

from a3c import config  # noqa: E402, F401  before tensorpack: it prepares the environment
from a3c.learning import acting  # noqa: E402
from a3c.simulation.master import SimulatorMaster  # noqa: E402

import numpy as np  # noqa: E402
from tensorpack import SimpleTrainer, tfv1  # noqa: E402

make_policy, run_step, make_master = acting.make_policy, SimpleTrainer.run_step, SimulatorMaster.__init__
calls = itertools.count(1)
*sys.argv, what, when = sys.argv


def make_poisoned_policy(*args):
    policy = make_policy(*args)

    def poisoned_policy(states):
        probabilities, values = policy(states)
        if next(calls) == int(when):
            probabilities = probabilities.copy()
            probabilities[0] = np.nan
        return probabilities, values

    return poisoned_policy


def run_poisoned_step(trainer) -> None:
    if trainer.global_step == int(when):
        (bias,) = (variable for variable in tfv1.trainable_variables() if variable.op.name == "fc-pi/b")
        bias.load(np.full(bias.shape, np.nan, np.float32), trainer.sess)
    run_step(trainer)


@functools.wraps(make_master)
def make_poisoned_games(master, nursery, envs_per_simulator, player_args, **options) -> None:
    reward, _, step = when.partition(":")
    script = {"reward": reward, "step": int(step)}
    make_master(master, nursery, envs_per_simulator, script, player="fake_games:make_fake_poisoned_game", **options)


if what == "prediction":
    acting.make_policy = make_poisoned_policy
elif what == "weights":
    SimpleTrainer.run_step = run_poisoned_step
else:
    SimulatorMaster.__init__ = make_poisoned_games
sys.argv[0] = str(ROOT / "train-atari.py")
runpy.run_path(sys.argv[0], run_name="__main__")
