"""Networks over the last four frames: their layers and variables. ``graph`` builds them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from atari_wrapper import FRAME_HISTORY, FRAME_SHAPE, STATE_SHAPE


class Conv(NamedTuple):
    """A convolution and its ReLU, then max-pooling over ``pool`` x ``pool`` (VALID) if that is above 1."""

    name: str
    kernel: int
    channels: int
    stride: int = 1
    padding: str = "SAME"
    pool: int = 1

    def output_size(self, size: int) -> int:
        size = -(-size // self.stride) if self.padding == "SAME" else (size - self.kernel) // self.stride + 1
        return size // self.pool


@dataclasses.dataclass(frozen=True)
class Network:
    """A network over the last four frames: convolutions, one hidden layer, a policy and a value.

    Attributes:
        convs: the convolutions, in order.
        hidden: units of the hidden layer ``fc0``.
        prelu: whether the hidden layer's activation is a PReLU with one learned slope (else a ReLU).
        policy_scale, value_scale: variance scaling of the heads' initial weights; 2 in all other layers.
        normalize_input: whether the game's mean frame is subtracted and the rest divided by four deviations;
            else pixels / 255.
    """

    convs: tuple[Conv, ...]
    hidden: int
    prelu: bool
    policy_scale: float
    value_scale: float
    normalize_input: bool

    def variable_shapes(self, num_actions: int) -> dict[str, tuple[int, ...]]:
        """Name and shape of each variable, in the order of the layers."""
        size, _, channels = STATE_SHAPE
        shapes = {"input/mean": FRAME_SHAPE, "input/scale": ()} if self.normalize_input else {}
        for conv in self.convs:
            shapes[f"{conv.name}/W"] = (conv.kernel, conv.kernel, channels, conv.channels)
            shapes[f"{conv.name}/b"] = (conv.channels,)
            size, channels = conv.output_size(size), conv.channels
        shapes["fc0/W"], shapes["fc0/b"] = (size * size * channels, self.hidden), (self.hidden,)
        if self.prelu:
            shapes["prelu/alpha"] = ()
        shapes["fc-pi/W"], shapes["fc-pi/b"] = (self.hidden, num_actions), (num_actions,)
        shapes["fc-v/W"], shapes["fc-v/b"] = (self.hidden, 1), (1,)
        return shapes


NETWORKS = {
    # The original's, larger than the A3C paper's.
    "batch-a3c": Network(
        convs=(
            Conv("conv0", 5, 32, pool=2),
            Conv("conv1", 5, 32, pool=2),
            Conv("conv2", 4, 64, pool=2),
            Conv("conv3", 3, 64),
        ),
        hidden=512,
        prelu=True,
        policy_scale=2.0,
        value_scale=2.0,
        normalize_input=False,
    ),
    # Mnih et al. 2016, "A3C", section 8, over colour frames. A policy that starts out uniform explores.
    "small": Network(
        convs=(
            Conv("conv0", 8, 16, stride=4, padding="VALID"),
            Conv("conv1", 4, 32, stride=2, padding="VALID"),
        ),
        hidden=256,
        prelu=False,
        policy_scale=1e-4,
        value_scale=1.0,
        normalize_input=True,
    ),
    # The convolutions of Mnih et al. 2015, "DQN", table of the methods, with half of the hidden units.
    "nature": Network(
        convs=(
            Conv("conv0", 8, 32, stride=4, padding="VALID"),
            Conv("conv1", 4, 64, stride=2, padding="VALID"),
            Conv("conv2", 3, 64, padding="VALID"),
        ),
        hidden=256,
        prelu=False,
        policy_scale=1e-4,
        value_scale=1.0,
        normalize_input=True,
    ),
}


def is_of_one_colour(shapes: dict[str, Sequence[int]]) -> bool:
    """Whether variables of these shapes are those of ``nature`` as it once was, over one colour."""
    return tuple(shapes.get("conv0/W", ())) == (8, 8, FRAME_HISTORY, 32)
