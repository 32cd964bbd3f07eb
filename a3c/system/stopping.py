"""Signals that ask a run to stop: SIGINT (Ctrl-C), SIGTERM and SIGHUP (the terminal was closed).

Before there is anything to lose, a signal ends the process at once. From ``defer`` on the first one is only noted:
the work in hand reads it where it can stop, and tidies up. A second one ends the process at once in any case. A thread
hears both, which also does so while the main thread is in native code: it may wait there for a batch that never comes.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import threading

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StoppedError(Exception):
    """Raised by ``StopRequest.check``: the work in hand ends here, because a signal asked for it."""


class StopRequest:
    """Whether the run was asked to stop. The main thread makes it; any thread may read it.

    Attributes:
        signal: what was heard; None until then.
        reason: why the run stops, in words.
    """

    def __init__(self):
        self.signal: signal.Signals | None = None
        self.reason = ""
        self._deferred = False

    def listen(self) -> None:
        """Hear the signals from now on; those that were ignored so far (nohup, a shell's background) stay so."""
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._end_at_once)

    def defer(self) -> None:
        """Only note the first signal from now on, and take it on a stack of its own; the main thread calls it, once."""
        # The kernels that oneDNN (before 3.11.2) makes for matrix products use the stack pointer for an address in the
        # heap: a signal that comes then would overwrite what lies below it. faulthandler gives this thread a stack for
        # signals, and Python's handlers run there. https://github.com/uxlfoundation/oneDNN/issues/4845
        # It also tells the place of a crash in native code, as it comes after TensorFlow, which tells none of Python's.
        faulthandler.enable(2)
        heard, wake = os.pipe()
        os.set_blocking(wake, False)
        threading.Thread(target=self._hear_all, args=(heard,), name="signals", daemon=True).start()
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)  # Python's C handler writes each signal's number there
        self._deferred = True

    def ask(self, reason: str) -> None:
        """Have the run stop as at a signal: what there is will be saved. Any thread may call it."""
        if self.signal is None:
            self.reason, self.signal = reason, signal.SIGTERM

    def check(self) -> None:
        """Raise StoppedError if a signal was noted."""
        if self.signal is not None:
            raise StoppedError(f"{self.signal.name} asked for it")

    @property
    def exit_status(self) -> int:
        """What a shell expects of a process that a signal ended: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP."""
        return 128 + self.signal if self.signal else 0

    def _end_at_once(self, number: int, _) -> None:
        if not self._deferred:
            os._exit(128 + number)

    # On a thread of its own.

    def _hear_all(self, heard: int) -> None:
        while True:
            for number in os.read(heard, 64):
                if number in _SIGNALS:
                    self._hear(number)

    def _hear(self, number: int) -> None:
        if self.signal is not None:
            os._exit(128 + number)
        self.signal = signal.Signals(number)
        self.reason = f"{self.signal.name} asked for it"
        text = f"\n{self.signal.name}: stopping, what there is will be saved (a second signal ends it at once)\n"
        try:
            os.write(2, text.encode())  # not print: the signal may have come amid one, which has its lock
        except OSError:  # the terminal is gone, and whoever writes to it would fail
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), 1)
                os.dup2(nowhere.fileno(), 2)
