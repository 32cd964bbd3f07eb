"""Networks over the last four frames: their layers and variables. ``graph`` builds them."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

from atari_wrapper import FRAME_HISTORY, FRAME_SHAPE, IMAGE_SIZE


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
        one_colour: with ``normalize_input``: whether a frame's three colours are mixed to one, by the game's principal
            colour axis. That is done once for each frame, so that all that follows has a third of the bytes.
        normalize_layers: whether what goes into a ReLU is normalised first, for each state over all of the layer's
            units: layer normalisation (Ba et al. 2016) without gain and bias.
    """

    convs: tuple[Conv, ...]
    hidden: int
    prelu: bool
    policy_scale: float
    value_scale: float
    normalize_input: bool
    one_colour: bool = False
    normalize_layers: bool = False

    @property
    def state_shape(self) -> tuple[int, int, int]:
        """Of what the training graph takes: 84, 84 and four frames of one or three colours."""
        return (*IMAGE_SIZE, FRAME_HISTORY * (1 if self.one_colour else 3))

    def variable_shapes(self, num_actions: int) -> dict[str, tuple[int, ...]]:
        """Name and shape of each variable, in the order of the layers."""
        size, _, channels = self.state_shape
        shapes = {"input/mean": FRAME_SHAPE, "input/scale": ()} if self.normalize_input else {}
        if self.one_colour:
            shapes["input/axis"] = (3,)
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

    def axes(self, num_actions: int) -> dict[str, tuple[int, ...]]:
        """Of each layer's weights, but the value's, the axes along which their gradients are correlated.

        What it takes in and what it gives out; the hidden layer takes in so much that its places and its channels are
        apart.
        """
        shapes = self.variable_shapes(num_actions)
        layers = [*(conv.name for conv in self.convs), "fc0", "fc-pi"]
        axes = {f"{layer}/W": (math.prod(shapes[f"{layer}/W"][:-1]), shapes[f"{layer}/W"][-1]) for layer in layers}
        inputs, channels = axes["fc0/W"][0], self.convs[-1].channels
        axes["fc0/W"] = (inputs // channels, channels, self.hidden)
        return axes


# Mnih et al. 2016, "A3C", section 8, over colour frames. A policy that starts out uniform explores.
_SMALL = Network(
    convs=(
        Conv("conv0", 8, 16, stride=4, padding="VALID"),
        Conv("conv1", 4, 32, stride=2, padding="VALID"),
    ),
    hidden=256,
    prelu=False,
    policy_scale=1e-4,
    value_scale=1.0,
    normalize_input=True,
)
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
    "small": _SMALL,
    "small-ln": dataclasses.replace(_SMALL, normalize_layers=True),
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
        one_colour=True,
    ),
}
