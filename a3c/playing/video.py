"""Videos of the agent at play: H.264, at the game's own size and speed. Each is whole or not there."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable
from pathlib import Path

from a3c.errors import RunError
from a3c.playing.episode import ChooseActions, Policy, greedy_actions, play_episode
from a3c.playing.overlay import Overlay
from a3c.playing.progress import EpisodeProgress
from a3c.run_files import file_name
from a3c.seeds import Seeds
from a3c.system.files import free_name
from atari_wrapper import FRAMES_PER_S, make_player

import imageio_ffmpeg
import numpy as np


class VideoFile:
    """A video that ffmpeg writes; ``path`` has it when ``finish`` is called, and nothing before. A context manager."""

    def __init__(self, unfinished: Path, size: tuple[int, int]):
        """``size``: width and height of the frames."""
        self._unfinished = unfinished
        width, height = size
        self._ffmpeg = subprocess.Popen(
            [
                imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y",
                "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(FRAMES_PER_S), "-i", "-",
                "-an", "-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-c:v", "libx264", "-pix_fmt", "yuv420p",
                "-crf", "18", "-preset", "veryfast", "-movflags", "+faststart",
                "-f", "mp4", f"file:{unfinished}",  # without "file:", a colon in the name makes it a protocol's
            ],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for us
        )  # fmt: skip

    def write(self, frame: np.ndarray) -> None:
        """Add a frame, uint8 ``[height, width, 3]``. Raises RunError: it cannot be written."""
        try:
            self._ffmpeg.stdin.write(frame)
        except BrokenPipeError:
            self._end()

    def finish(self, path: Path) -> None:
        """End the video and give it its name. Raises RunError: it cannot be written."""
        self._end()
        try:
            self._unfinished.replace(path)
        except OSError as error:
            raise RunError(f"{path} cannot be written: {error.strerror}") from None

    def _end(self) -> None:
        _, told = self._ffmpeg.communicate()
        if self._ffmpeg.returncode != 0:
            first = (told.decode(errors="replace").strip().splitlines() or [f"status {self._ffmpeg.returncode}"])[0]
            raise RunError(f"a video cannot be written in {self._unfinished.parent}: ffmpeg says {_reason(first)}")

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(self, *_):
        if self._ffmpeg.poll() is None:
            self._ffmpeg.kill()
            self._ffmpeg.communicate()
        self._unfinished.unlink(missing_ok=True)


def _reason(line: str) -> str:
    """Of ffmpeg's ``[mp4 @ 0x1] Error writing trailer: No space left on device``, the end."""
    return line.rpartition(": ")[2].rpartition("] ")[2]


def record(
    policy: Policy,
    env_id: str,
    episodes: int,
    directory: Path,
    seeds: Seeds,
    choose: ChooseActions = greedy_actions,
    overlay: bool = False,
    check_stop: Callable[[], None] = lambda: None,
) -> list[Path]:
    """Write one video for each episode into a directory, and tell of each.

    A video has the emulator's 60 frames a second; the frame of a step is shown for as long as the step took.
    With ``overlay`` the frames are larger, and have the policy and the value beside them.
    ``check_stop`` is called between steps; when it raises, the video of the episode at hand is given up.

    Returns:
        The files, named with environment, episode and score.

    Raises:
        RunError: a video cannot be written.
    """
    paths = []
    with EpisodeProgress(episodes) as progress:
        for episode in range(episodes):
            stem = f"{file_name(env_id)}-episode-{episode + 1:03d}"
            player = make_player(env_id, render_mode="rgb_array")
            height, width = player.unwrapped.observation_space.shape[:2]
            drawing = Overlay((height, width), player.unwrapped.get_action_meanings()) if overlay else None
            size = drawing.size if drawing else (width, height)
            score = 0.0
            with contextlib.closing(player), VideoFile(directory / f".{stem}.unfinished.mp4", size) as video:
                steps = play_episode(player, policy, seeds.generator(episode), seeds.of_life(episode), choose)
                for number, step in enumerate(steps):
                    check_stop()
                    progress.tick(f"episode {episode + 1}: step {number:,}, score {score:.10g}")
                    score += step.reward
                    frame = np.ascontiguousarray(player.render())
                    if drawing:
                        frame = drawing.draw(frame, step, score)
                    for _ in range(step.emulator_frames):
                        video.write(frame)
                paths.append(free_name(directory / f"{stem}-score-{score:.10g}.mp4"))
                video.finish(paths[-1])
            progress.add(score, f", {paths[-1]}")
    return paths
