"""Takes the README's picture of the page that --watch serves: the command line plays, a headless Chromium looks on.

make bench-screenshot ARGS="models/Pong-v0.npz docs/pictures/watch.png --seconds 30"
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import socket
import time
from pathlib import Path

from bench import browser
from bench.command_line import start


def free_port() -> int:
    """A port of 127.0.0.1 that nobody had a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@contextlib.contextmanager
def playing(model: str, *flags: str):
    """The command line at ``--task play --watch``; gives the run and the page's address. Ctrl-C ends it."""
    run = start("--task", "play", "--load", model, "--watch", str(free_port()), *flags)
    try:
        yield run, run.read_until("watch it at").split()[-1]
    finally:
        run.process.send_signal(signal.SIGINT)
        run.finish()


def main() -> None:
    """Write the picture and say where."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("png", type=Path)
    parser.add_argument("--seconds", type=float, default=30.0, help="of the game before the picture")
    parser.add_argument("--width", type=int, default=900)
    parser.add_argument("--height", type=int, default=650)
    parser.add_argument("--dark", action="store_true")
    args = parser.parse_args()
    executable = browser.find()
    if executable is None:
        parser.error("no Chromium is installed: apt-get install chromium")
    with (
        playing(args.model) as (_, address),
        browser.Browser(executable, args.width, args.height, args.dark, scale=1.5) as page,
    ):
        page.open(address)
        page.wait_for("values.length > 0")
        time.sleep(args.seconds)
        args.png.write_bytes(page.screenshot())
    print(f"{args.png}: {args.png.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
