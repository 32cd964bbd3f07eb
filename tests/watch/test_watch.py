"""The page of ``--watch`` beside real runs, and what a browser makes of it."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
from pathlib import Path

from a3c.watch import player as play_module
from a3c.watch import watcher as watcher_module
from a3c.watch.server import listen
from bench import browser
from bench.command_line import SHORT, Run, run, start
from bench.screenshot import free_port, playing
from bench.watch import events

import cv2
import numpy as np
import pytest
from pages import get, picture, read

pytestmark = pytest.mark.long

MODEL = str(Path(__file__).resolve().parents[2] / "models" / "Pong-v0.npz")


def test_play_serves_the_live_game_until_ctrl_c():
    with playing(MODEL) as (game, url):
        port = int(url.rpartition(":")[2])
        messages = read(port, 40)
        assert get(port)[0] == 200
        assert get(port, Host="attacker.example")[0] == 403
        game.process.send_signal(signal.SIGINT)
        game.finish(30)
        assert game.process.returncode == 130
        assert game.wait_all_gone(3)
    assert messages[0]["env"] == "Pong-v0"
    assert messages[0]["updates"] > 0
    assert messages[0]["actions"][1] == "FIRE"
    screens = [picture(message["screen"]) for message in messages]
    assert screens[0].shape == (210, 160, 3)
    assert len({screen.tobytes() for screen in screens}) > 20
    assert len(np.unique(screens[-1].reshape(-1, 3), axis=0)) >= 4  # court, lines and two paddles
    assert len({message["value"] for message in messages}) > 20


@pytest.mark.parametrize("task", ["play", "train"])
def test_a_taken_port_is_told_before_anything_is_done(task, tmp_path):
    flags = ["--task", "play", "--load", MODEL] if task == "play" else ["--output", str(tmp_path / "run")]
    with listen(0) as taken:
        port = str(taken.getsockname()[1])
        out = run(*flags, "--watch", port, status=2)
    assert [line for line in out.splitlines() if line.startswith("train-atari.py: ")] == [
        f"train-atari.py: --watch {port}: the port is taken; name another port, for example --watch {int(port) + 1}"
    ]
    assert "Traceback" not in out
    assert list(tmp_path.iterdir()) == []


def start_watched(output: Path, *flags: str) -> tuple[Run, int]:
    """Start a short training with a page, whose one game leaves the page its time; returns it and the page's port."""
    port = free_port()
    return start(
        *SHORT, "--num-envs", "1", "--simulator-proc", "1", "--output", str(output), "--watch", str(port), *flags
    ), port


def wait_for_game(training: Run, port: int, messages: int) -> list[dict]:
    """Wait until a training's page shows the game; returns so many messages of it."""
    training.read_until("watch it at")
    with contextlib.closing(events(port)) as stream:
        return list(itertools.islice(itertools.dropwhile(lambda message: "waiting" in message, stream), messages))


def watcher_of(training: Run) -> int:
    """The process that serves a training's page."""
    (pid,) = [pid for pid in training.alive() if b"a3c.watch.player" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return pid


def test_a_training_shows_the_game_and_goes_on_without_its_page(tmp_path):
    training, port = start_watched(tmp_path / "run", "--steps-per-epoch", "8", "--max-epoch", "1000")
    try:
        shown = wait_for_game(training, port, 30)
        assert shown[0]["updates"] % 8 == 0
        assert len({message["screen"] for message in shown}) > 10
        watcher = watcher_of(training)
        assert os.getpriority(os.PRIO_PROCESS, watcher) == play_module._NICENESS
        assert os.getsid(watcher) == watcher  # Ctrl-C does not reach it
        assert b"CUDA_VISIBLE_DEVICES=" in Path(f"/proc/{watcher}/environ").read_bytes().split(b"\0")
        os.kill(watcher, signal.SIGKILL)
        training.discard()
        training.read_until("the watcher ended with status -9: training goes on without its page")
        training.read_until("Start Epoch")
        said = training.read_until("Start Epoch")
        assert "watcher" not in said  # once is enough
    finally:
        training.process.send_signal(signal.SIGINT)
        training.finish()
    assert training.process.returncode == 130
    assert training.wait_all_gone(3)


def test_a_training_goes_on_without_its_page_if_no_process_can_be_started(monkeypatch):
    def refuse(*_, **__):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    warnings = []
    monkeypatch.setattr(watcher_module, "start_program", refuse)
    monkeypatch.setattr(watcher_module.logger, "warn", warnings.append)
    listener = listen(0)
    watcher = watcher_module.Watcher(listener, Path("Pong-v0.npz"), "Pong-v0", 0)
    for call in (watcher._before_train, watcher._trigger_epoch, watcher._after_train):
        call()
    assert warnings == [
        "the watcher cannot be started (Resource temporarily unavailable): training goes on without its page"
    ]
    assert listener.fileno() == -1


def test_nobody_is_left_when_a_watched_learner_is_killed(tmp_path):
    training, port = start_watched(tmp_path / "run", "--steps-per-epoch", "8", "--max-epoch", "1000")
    try:
        wait_for_game(training, port, 1)
        watcher_of(training)
    finally:
        training.process.kill()
    assert training.wait_all_gone(5)
    training.finish()


# In a browser


@pytest.fixture(scope="module")
def chromium() -> str:
    executable = browser.find()
    if executable is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no Chromium is installed: apt-get install chromium")
    return executable


def crop(page: browser.Browser, selector: str) -> np.ndarray:
    """What an element looks like now."""
    shot = cv2.imdecode(np.frombuffer(page.screenshot(), np.uint8), cv2.IMREAD_COLOR)
    box = f"document.querySelector({selector!r}).getBoundingClientRect()"
    left, top, right, bottom = (int(page.evaluate(f"{box}.{side}")) for side in ("left", "top", "right", "bottom"))
    return shot[max(0, top) : bottom, max(0, left) : right]


def test_a_browser_shows_the_game_move_on_any_screen(chromium):
    grounds = []
    with playing(MODEL) as (_, url):
        for width, height, dark in ((1000, 900, False), (360, 1200, True)):
            with browser.Browser(chromium, width, height, dark) as page:
                page.open(url)
                page.wait_for("values.length > 20")
                pictures = []
                for _ in range(2):
                    shown = page.evaluate("moments.at(-1).frames")
                    page.wait_for(f"moments.at(-1).frames > {shown + 30}")
                    pictures.append({name: crop(page, name) for name in ("#screen", "#input", "#policy", "#curve")})
                one, two = pictures
                for name in one:
                    assert len(np.unique(one[name].reshape(-1, 3), axis=0)) > 3, name
                    assert (one[name] != two[name]).any(), name
                assert one["#screen"].shape[1] > 200
                assert page.evaluate("document.documentElement.scrollWidth") <= width
                assert page.evaluate("document.querySelectorAll('.chosen').length") == 1
                assert page.evaluate("[...document.querySelectorAll('.action')].map(row => row.textContent)")[1]
                assert "weights of update" in page.evaluate("document.getElementById('status').textContent")
                ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
                grounds.append(int(ground.removeprefix("rgb(").partition(",")[0]))
    assert grounds[0] > 200 > 60 > grounds[1]
