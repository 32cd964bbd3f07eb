"""The window of ``play`` is closed, or the task is stopped, on a display that nobody sees."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.command_line import ROOT, start
from tests.faults.trial import STOP_S, Trials, expect_end, wait_for, without_traceback

PROGRAMS = ("Xvfb",)  # Debian's package xvfb
_START_S = 60.0
_SETTLED_S = 2.0  # SDL makes windows of some 10 ms to try the display, and loading a game twice makes one of 0.1 s
_CLIENT_MESSAGE = 33


def closed_windows(directory: Path, trials: int, rng: random.Random) -> Trials:
    """Close the window as a window manager does, which is no failure, or stop ``play`` by a signal: it ends cleanly."""
    model = str(ROOT / "models" / "Pong-v0.npz")
    with display(directory) as name, _Screen(name) as screen:
        for trial in range(trials):
            number = (None, signal.SIGINT, None, signal.SIGTERM)[trial % 4]
            run = start("--task", "play", "--load", model, env={"DISPLAY": name, "WAYLAND_DISPLAY": ""})
            wait_for(screen.windows, _START_S, "a window", run)
            if number is None:
                wait_for(_settled(screen), _START_S, "a window that stays", run)
                time.sleep(rng.uniform(0, 1))
                screen.close(screen.windows()[0])
            else:
                time.sleep(rng.uniform(0, 3))
                run.process.send_signal(number)
            out = expect_end(run, 128 + number if number else 0, STOP_S)
            without_traceback(out)
            wait_for(lambda: not screen.windows(), 1, "no window any more")
            yield number.name if number else "window closed"


@contextlib.contextmanager
def display(directory: Path, *options: str) -> Iterator[str]:
    """An X server without a screen or a window manager; yields the name of its display."""
    read, write = os.pipe()
    with open(directory / "Xvfb.log", "wb") as log:
        server = subprocess.Popen(
            ["Xvfb", "-displayfd", str(write), "-nolisten", "tcp", *options], pass_fds=[write], stdout=log, stderr=log
        )
    os.close(write)
    try:
        assert select.select([read], [], [], _START_S)[0], "Xvfb does not start"
        number = os.read(read, 20).decode().strip()
        assert number, f"Xvfb ended: {(directory / 'Xvfb.log').read_text()[-1000:]}"
        yield f":{number}"
    finally:
        os.close(read)
        server.terminate()
        server.wait(STOP_S)


class _ClientMessage(ctypes.Structure):
    """Xlib's ``XClientMessageEvent``, as long as an ``XEvent``."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("serial", ctypes.c_ulong),
        ("send_event", ctypes.c_int),
        ("display", ctypes.c_void_p),
        ("window", ctypes.c_ulong),
        ("message_type", ctypes.c_ulong),
        ("format", ctypes.c_int),
        ("data", ctypes.c_long * 5),
        ("padding", ctypes.c_long * 12),
    )


class _Screen:
    """A display as its window manager sees it, by Xlib."""

    def __init__(self, name: str):
        xlib = self._xlib = ctypes.CDLL("libX11.so.6")
        xlib.XOpenDisplay.restype = ctypes.c_void_p
        for function in (xlib.XDefaultRootWindow, xlib.XInternAtom):
            function.restype = ctypes.c_ulong
        self._display = ctypes.c_void_p(xlib.XOpenDisplay(name.encode()))
        assert self._display, f"no display {name}"
        self._root = ctypes.c_ulong(xlib.XDefaultRootWindow(self._display))

    def __enter__(self) -> _Screen:
        return self

    def __exit__(self, *_):
        self._xlib.XCloseDisplay(self._display)

    def windows(self) -> list[int]:
        """The windows that programs have made."""
        root, parent, count = ctypes.c_ulong(), ctypes.c_ulong(), ctypes.c_uint()
        children = ctypes.POINTER(ctypes.c_ulong)()
        self._xlib.XQueryTree(
            self._display,
            self._root,
            ctypes.byref(root),
            ctypes.byref(parent),
            ctypes.byref(children),
            ctypes.byref(count),
        )
        found = children[: count.value]
        if children:
            self._xlib.XFree(children)
        return found

    def close(self, window: int) -> None:
        """Ask the window's program to close it (ICCCM 4.2.8.1, ``WM_DELETE_WINDOW``)."""
        protocols, delete = (
            self._xlib.XInternAtom(self._display, name, False) for name in (b"WM_PROTOCOLS", b"WM_DELETE_WINDOW")
        )
        event = _ClientMessage(type=_CLIENT_MESSAGE, window=window, message_type=protocols, format=32)
        event.data[0] = delete
        self._xlib.XSendEvent(self._display, ctypes.c_ulong(window), False, ctypes.c_long(0), ctypes.byref(event))
        self._xlib.XFlush(self._display)


def _settled(screen: _Screen) -> Callable[[], bool]:
    """Return a condition: there is a window, and its calls have seen no other for 2 s."""
    seen, since = screen.windows(), time.monotonic()

    def settled() -> bool:
        nonlocal seen, since
        windows = screen.windows()
        if windows != seen:
            seen, since = windows, time.monotonic()
        return bool(windows) and time.monotonic() - since >= _SETTLED_S

    return settled
