"""A headless Chromium, for what only a browser can tell: whether a page's scripts run, and what it looks like.

It is spoken to with its DevTools protocol, as JSON that ends in a zero byte, over two pipes that nobody else has.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
          "--no-first-run", "--remote-debugging-pipe")  # fmt: skip
# Chromium reads commands from descriptor 3 and answers on 4, which in this process may be others.
_EXEC = (
    "import os; from sys import argv; os.dup2(int(argv[1]), 3); os.dup2(int(argv[2]), 4); os.execv(argv[3], argv[3:])"
)
_TIMEOUT_S = 60.0
_POLL_S = 0.1


def find() -> str | None:
    """Where a Chromium is, if there is one."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


class Browser:
    """One page of a headless Chromium. A context manager; one thread uses it. Each wait ends after a minute."""

    def __init__(self, executable: str, width: int, height: int, dark: bool = False, scale: float = 1.0):
        self._profile = tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True)
        profile = f"--user-data-dir={self._profile.name}"
        (theirs_in, self._commands), (self._answers, theirs_out) = os.pipe(), os.pipe()
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (theirs_in, theirs_out)]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _EXEC, *map(str, ends), executable, *_FLAGS, profile],
            pass_fds=ends,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for end in (theirs_in, theirs_out, *ends):
            os.close(end)
        self._received, self._number, self._session = b"", 0, None
        try:
            target = self.call("Target.createTarget", url="about:blank")["targetId"]
            self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            self.call(
                "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=False
            )
            scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
            self.call("Emulation.setEmulatedMedia", features=[scheme])
        except BaseException:
            self.close()
            raise

    def call(self, method: str, **parameters) -> dict:
        """Send a command; return its result. Raises RuntimeError when it fails, TimeoutError when nothing comes."""
        self._number += 1
        command = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            command["sessionId"] = self._session
        os.write(self._commands, json.dumps(command).encode() + b"\0")
        deadline = time.monotonic() + _TIMEOUT_S
        while True:
            answer = self._receive(deadline)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]

    def _receive(self, deadline: float) -> dict:
        while b"\0" not in self._received:
            if not select.select([self._answers], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError("the browser does not answer")
            part = os.read(self._answers, 1 << 20)
            if not part:
                raise RuntimeError("the browser has ended")
            self._received += part
        message, _, self._received = self._received.partition(b"\0")
        return json.loads(message)

    def open(self, url: str) -> None:
        """Go to a page, and wait until its scripts have run. Raises RuntimeError if there is none."""
        if reason := self.call("Page.navigate", url=url).get("errorText"):
            raise RuntimeError(f"{url}: {reason}")
        self.wait_for(f"location.href.startsWith({url!r}) && document.readyState === 'complete'")

    def evaluate(self, expression: str):
        """The value of a JavaScript expression in the page."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{expression}: {result['result'].get('description', 'failed')}")
        return result["result"].get("value")

    def wait_for(self, expression: str, timeout_s: float = _TIMEOUT_S):
        """Wait until a JavaScript expression holds; return its value. Raises TimeoutError."""
        deadline = time.monotonic() + timeout_s
        while not (value := self.evaluate(expression)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{expression} does not hold")
            time.sleep(_POLL_S)
        return value

    def screenshot(self) -> bytes:
        """A PNG of what the page looks like now."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def close(self) -> None:
        """End the browser and all its processes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._commands)
        os.close(self._answers)
        self._profile.cleanup()

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_):
        self.close()
