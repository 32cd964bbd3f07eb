"""Draws the README's animation: a trained agent at play, at the game's own speed.

make bench-animation ARGS="models/Pong-v0.npz docs/pong.gif --skip-steps 100 --steps 250"
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

from a3c.system.machine import usable_cores
from a3c.weights.model_file import FilePolicy, check_model, read_model
from atari_wrapper import FRAMES_PER_S, get_protocol, make_player
from common import play_episode

import imageio_ffmpeg
import numpy as np

_GIF_FRAMES_PER_S = 20
_FILTER = f"fps={_GIF_FRAMES_PER_S},split[a][b];[a]palettegen[palette];[b][palette]paletteuse=dither=none"


def animate(model_path: str, path: Path, skip_steps: int, steps: int, seed: int) -> int:
    """Write a part of an episode as a GIF that repeats, 20 pictures a second of the game's time.

    Args:
        model_path: an ``.npz`` that says its game.
        path: the GIF.
        skip_steps: steps of the episode to leave out at its start.
        steps: steps to show, at most: fewer where the episode ends.
        seed: of the game and of the random actions.

    Returns:
        The number of steps shown.
    """
    model = read_model(model_path)
    env_id = model.metadata["env"]
    check_model(model, get_protocol(env_id), "auto")
    player = make_player(env_id, render_mode="rgb_array")
    height, width = player.unwrapped.observation_space.shape[:2]
    gif = imageio_ffmpeg.write_frames(
        str(path), (width, height), fps=FRAMES_PER_S, codec="gif", pix_fmt_out="pal8", macro_block_size=2,
        output_params=["-vf", _FILTER],
    )  # fmt: skip
    gif.send(None)
    try:
        episode = play_episode(player, FilePolicy(model, usable_cores()), np.random.default_rng(seed), seed)
        shown = 0
        for step in itertools.islice(episode, skip_steps, skip_steps + steps):
            frame = np.ascontiguousarray(player.render())
            for _ in range(step.emulator_frames):
                gif.send(frame)
            shown += 1
    finally:
        gif.close()
        player.close()
    return shown


def main() -> None:
    """Write the animation and say where."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("gif", type=Path)
    parser.add_argument("--skip-steps", type=int, default=0)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    pictures = animate(args.model, args.gif, args.skip_steps, args.steps, args.seed)
    print(f"{args.gif}: {pictures} steps, {args.gif.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
