"""Draws the README's pictures of what the command line shows on a terminal.

make bench-pictures                                  # docs/pictures/status.png and doctor.png
make bench-pictures ARGS="--only doctor --columns 90"
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import re
import signal
import struct
import tempfile
import termios
import time
from pathlib import Path

from bench.command_line import start

_DOCS = Path("docs/pictures")
_TIMEOUT_S = 600.0
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# What is typed, the text at whose coming the picture is taken (none: the end), and how many of the last lines it has.
SHOTS = {
    "status": (("--env", "Pong-v0", "--steps-per-epoch", "96", "--max-epoch", "100", "--eval-every", "0"),
               r"epoch 4/100 \| 0:0[1-4] left", 14),
    "doctor": (("--task", "doctor"), None, 60),
}  # fmt: skip


def screen(shown: str) -> list[str]:
    """The lines of a terminal after it was sent this: of what was overwritten only the last."""
    lines = _CONTROL.sub("", shown).replace("\r\n", "\n").split("\n")
    return [line.rstrip("\r").rpartition("\r")[2].rstrip() for line in lines]


def capture(args: tuple[str, ...], until: str | None, columns: int) -> list[str]:
    """Run the command line on a terminal so wide, until a text comes or it ends; the lines on its screen."""
    terminal, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    run = start(*args, stdin=theirs, stdout=theirs, stderr=theirs, env={"NO_COLOR": "1", "COLUMNS": str(columns)})
    os.close(theirs)
    shown, deadline = "", time.monotonic() + _TIMEOUT_S
    try:
        while (until is None or not re.search(until, shown)) and time.monotonic() < deadline:
            if not (part := os.read(terminal, 1 << 16)):
                break
            shown += part.decode(errors="replace")
    except OSError:  # it has ended
        pass
    finally:
        run.process.send_signal(signal.SIGTERM)
        os.close(terminal)
        run.finish()
    return screen(shown)


def draw(lines: list[str], path: Path) -> None:
    """Draw lines of text as a PNG, dark on light, in a font of fixed width."""
    from matplotlib.figure import Figure

    width, height = 0.0775 * max(map(len, lines)) + 0.3, 0.18 * len(lines) + 0.3
    figure = Figure(figsize=(width, height), facecolor="#fbfbf8")
    for number, line in enumerate(lines):
        y = 1 - (0.15 + 0.18 * (number + 0.5)) / height
        figure.text(0.15 / width, y, line, family="DejaVu Sans Mono", fontsize=9, color="#1b1b1b", va="center",
                    parse_math=False)  # fmt: skip
    figure.savefig(path, dpi=120)


def main() -> None:
    """Draw the pictures and say where."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=SHOTS, nargs="+", default=list(SHOTS))
    parser.add_argument("--columns", type=int, default=120)
    args = parser.parse_args()
    for name in args.only:
        typed, until, count = SHOTS[name]
        with tempfile.TemporaryDirectory() as directory:
            output = ("--output", f"{directory}/run") if name == "status" else ()
            lines = capture((*typed, *output), until, args.columns)
        text = [line for line in lines if line][-count:]
        draw([f"$ ./train-atari.py {' '.join(typed)}", *text], _DOCS / f"{name}.png")
        print(f"{_DOCS}/{name}.png")


if __name__ == "__main__":
    main()
