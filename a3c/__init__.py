"""A3C on Atari games: simulators, actor, learner and what is shown of them."""

import os

# The libraries read these when they are first imported: whatever of this package comes first sets them.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")  # tensorpack 0.11 needs Keras 2
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's own notes on the machine
os.environ["MPLBACKEND"] = "Agg"  # all pictures are files; a notebook's backend is not there for us
