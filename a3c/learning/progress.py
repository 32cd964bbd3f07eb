"""How far a run has come: what its checkpoint says, and whether it goes on with these flags."""

from __future__ import annotations

import dataclasses

from a3c.config import REMOVED, Config
from a3c.errors import UsageError
from a3c.policy.networks import NETWORKS, is_of_one_colour
from a3c.run_files import CONFIG_FILE

import tensorflow as tf

COUNTS = ("steps", "emulator_frames", "simulator_lives", "updates")  # kept in checkpoints, under progress/


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where a run begins or goes on.

    Attributes:
        step: of the trainer.
        epoch: the next one, from 1 on.
        lives: how many its simulators have had.
    """

    step: int = 0
    epoch: int = 1
    lives: int = 0


def read_progress(checkpoint: str | None, config: Config, num_actions: int, updates_per_step: int) -> Progress:
    """Where a run goes on that was saved so; without a checkpoint, where it begins.

    Raises:
        UsageError: the checkpoint is of another network, or of another number of training devices; or no epoch is left.
    """
    if checkpoint is None:
        return Progress()
    reader = tf.train.load_checkpoint(checkpoint)
    _check_network(reader.get_variable_to_shape_map(), config, num_actions)
    keys = {name: f"progress/{name}" for name in COUNTS}  # some are missing in checkpoints of earlier versions
    counts = {name: int(reader.get_tensor(key)) if reader.has_tensor(key) else 0 for name, key in keys.items()}
    step = int(reader.get_tensor("global_step"))
    if counts["updates"] not in (0, step * updates_per_step):
        raise UsageError(
            f"the run in {config.directory} makes {counts['updates'] // step} updates in a step, with as many "
            f"training GPUs, and not {updates_per_step}: name as many with --gpu as it had"
        )
    done = step // config.steps_per_epoch
    if done >= config.max_epoch:
        raise UsageError(
            f"{config.directory} has finished: {done} epochs are done, --max-epoch is {config.max_epoch}; to train on "
            f"type --resume --max-epoch {done + config.max_epoch}"
        )
    return Progress(step, done + 1, counts["simulator_lives"])


def _check_network(shapes: dict[str, list[int]], config: Config, num_actions: int) -> None:
    if is_of_one_colour(shapes):
        raise UsageError(f"the run in {config.directory} is of nature over one colour, which {REMOVED}")
    for name, shape in NETWORKS[config.network].variable_shapes(num_actions).items():
        if name not in shapes or tuple(shapes[name]) != shape:
            raise UsageError(
                f"the run in {config.directory} is not of network {config.network} on {config.env}: its {name} is "
                f"{shapes.get(name, 'missing')} and not {list(shape)}; has its {CONFIG_FILE} been changed?"
            )
