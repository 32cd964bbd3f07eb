"""Which devices train and which infer, and the trainer and the session that run on them."""

from __future__ import annotations

import dataclasses
import math
import os

from a3c.config import NO_GPU, Config
from a3c.policy.session import session_config
from a3c.system.machine import PIP, named_gpus

import tensorflow as tf
from tensorpack import AsyncMultiGPUTrainer, SimpleTrainer
from tensorpack.graph_builder.training import AsyncMultiGPUBuilder, DataParallelBuilder
from tensorpack.graph_builder.utils import LeastLoadedDeviceSetter
from tensorpack.tfutils.sesscreate import NewSessionCreator
from tensorpack.utils import logger

_CUDA_VISIBLE_DEVICES = os.environ.get("CUDA_VISIBLE_DEVICES")  # as it was given


@dataclasses.dataclass(frozen=True)
class Devices:
    """Which devices train and which infer, by tensorpack's numbers; -1 is the CPU.

    Attributes:
        train: one tower each.
        infer: one predictor graph each.
    """

    train: tuple[int, ...]
    infer: tuple[int, ...]

    @property
    def updates_per_step(self) -> int:
        """Learner updates in one step of the trainer: each training tower makes one."""
        return len(self.train)

    @classmethod
    def split(cls, num_devices: int) -> Devices:
        """One device trains and infers; of n > 1 the last ceil(n/2) infer and the rest train. 0 stands for the CPU."""
        if num_devices == 0:
            return cls((0,), (-1,))
        if num_devices == 1:
            return cls((0,), (0,))
        training = num_devices - math.ceil(num_devices / 2)
        return cls(tuple(range(training)), tuple(range(training, num_devices)))


class _AsyncBuilder(AsyncMultiGPUBuilder):
    """tensorpack's, whose way of placing variables for four and more towers is gone from TensorFlow 2."""

    def call_for_each_tower(self, tower_fn):
        devices = [f"/gpu:{tower}" for tower in self.towers]
        variables = ["/cpu:0"] if len(devices) >= 4 else devices
        setters = [LeastLoadedDeviceSetter(device, variables) for device in devices]
        return DataParallelBuilder.build_on_towers(self.towers, tower_fn, setters)


def make_trainer(towers: tuple[int, ...]):
    if len(towers) == 1:
        return SimpleTrainer()
    trainer = AsyncMultiGPUTrainer(list(towers))
    trainer._builder = _AsyncBuilder(list(towers))
    return trainer


def session_creator(cores: int) -> NewSessionCreator:
    creator = NewSessionCreator()
    creator.config = session_config(cores)  # given to the constructor, it warns of GPUs that were used before
    return creator


def visible_gpus(gpu: str | None) -> int:
    """Show TensorFlow the GPUs of ``--gpu``, by default the first one, and count those it finds.

    Where CUDA_VISIBLE_DEVICES is set already, its GPUs are all there are: they are numbered from 0 on.
    """
    asked = () if gpu == NO_GPU else Config(gpu=gpu).gpu_ids or (0,)
    if (named := named_gpus(_CUDA_VISIBLE_DEVICES)) is not None:
        asked = [named[number] for number in asked if number < len(named)]
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, asked))
    return len(tf.config.list_physical_devices("GPU"))


def usable_gpus(config: Config) -> int:
    """Count the GPUs that there are of those asked for; warns loudly if some are not."""
    num_gpus = visible_gpus(config.gpu)
    if len(config.gpu_ids) > num_gpus:
        within = "" if _CUDA_VISIBLE_DEVICES is None else f" within CUDA_VISIBLE_DEVICES={_CUDA_VISIBLE_DEVICES}"
        logger.warn(
            f"--gpu {config.gpu}: TensorFlow sees {num_gpus} GPU(s){within}. It goes on, on the CPU where GPUs are "
            "missing, far slower. Check that nvidia-smi works, and install TensorFlow with CUDA: "
            f"{PIP} 'tensorflow[and-cuda]'"
        )
    return num_gpus
