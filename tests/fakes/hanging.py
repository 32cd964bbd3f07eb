"""The command line with a predictor or a learner that does not come back from its 51st call. Run by a test.

The last argument says which: ``predictors`` or ``learner``.
"""

import itertools
import runpy
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from a3c import config  # noqa: E402, F401  before tensorpack: it prepares the environment
from a3c.learning import acting  # noqa: E402

from tensorpack import SimpleTrainer  # noqa: E402

stage = sys.argv.pop()
calls = itertools.count()


def hang_at_50(function):
    def hanging(*args):
        if next(calls) == 50:
            threading.Event().wait()
        return function(*args)

    return hanging


if stage == "learner":
    SimpleTrainer.run_step = hang_at_50(SimpleTrainer.run_step)
else:
    make_policy = acting.make_policy
    acting.make_policy = lambda *args: hang_at_50(make_policy(*args))
sys.argv[0] = str(ROOT / "train-atari.py")
runpy.run_path(str(ROOT / "train-atari.py"), run_name="__main__")
