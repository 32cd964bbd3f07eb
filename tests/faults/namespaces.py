"""Machines that are network namespaces of this one, joined by a bridge, and Ray on them. It takes root's rights."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from bench.command_line import ROOT
from tests.faults.trial import wait_for

import psutil

PROGRAMS = ("ip",) if os.geteuid() == 0 else ("ip (as root)",)  # what the trials need
_NETWORK = "10.213.77"
_PORT = 6391
_START_S = 60.0
_END_S = 15.0
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}


class Machines:
    """A bridge with Ray's head on this machine, and hosts behind it. A context manager.

    Attributes:
        ip: of this machine, behind the bridge.
        address: of Ray's head.
    """

    def __init__(self, directory: Path):
        self.ip = f"{_NETWORK}.1"
        self.address = f"{self.ip}:{_PORT}"
        self._directory = directory
        self._bridge = f"bench{os.getpid()}"[:15]
        self._nodes: dict[int, subprocess.Popen] = {}

    def __enter__(self) -> Machines:
        _ip("link", "add", self._bridge, "type", "bridge")
        try:
            _ip("addr", "add", f"{_NETWORK}.1/24", "dev", self._bridge)
            _ip("link", "set", self._bridge, "up")
            self._nodes[0] = self._ray("--head", f"--port={_PORT}", "--include-dashboard=false", number=0)
            wait_for(self._answers, _START_S, "Ray's head")
        except BaseException:
            self.__exit__()
            raise
        return self

    def _answers(self) -> bool:
        with socket.socket() as connection:
            return connection.connect_ex((self.ip, _PORT)) == 0

    def add(self, number: int) -> None:
        """Add a machine, with a node of one core; its number is from 1 to 9."""
        space, near, far = self._space(number), f"{self._bridge[-8:]}p{number}", f"{self._bridge[-8:]}v{number}"
        _ip("netns", "add", space)
        _ip("link", "add", far, "netns", space, "type", "veth", "peer", "name", near)
        _ip("link", "set", near, "master", self._bridge)
        _ip("link", "set", near, "up")
        for command in (["link", "set", "lo", "up"], ["link", "set", far, "up"],
                        ["addr", "add", f"{_NETWORK}.{10 + number}/24", "dev", far]):  # fmt: skip
            _ip("-n", space, *command)
        self.start(number)

    def start(self, number: int) -> None:
        """Start Ray on a machine, again if it has ended there."""
        self._nodes[number] = self._ray(f"--address={self.address}", number=number)

    def cut(self, number: int) -> None:
        """Cut the link to a machine, both ways."""
        _ip("link", "set", f"{self._bridge[-8:]}p{number}", "down")

    def join(self, number: int) -> None:
        """Mend the link."""
        _ip("link", "set", f"{self._bridge[-8:]}p{number}", "up")

    def processes(self, number: int, word: str = "") -> list[int]:
        """Those that run on a machine and have this word in their command."""
        done = subprocess.run(["ip", "netns", "pids", self._space(number)], capture_output=True, text=True, check=True)
        return [pid for pid in map(int, done.stdout.split()) if word in _command(pid)]

    def run(self, number: int, module: str, *args: str) -> None:
        """Run one of our modules on a machine, to its end."""
        inside = ["ip", "netns", "exec", self._space(number)]
        subprocess.run([*inside, sys.executable, "-m", module, *args], cwd=ROOT, check=True, timeout=_START_S)

    def switch_off(self, number: int) -> None:
        """Kill all that runs on a machine."""
        for pid in self.processes(number):
            _kill(pid)

    def kill_head(self) -> None:
        """Kill Ray's head, and all that it runs on this machine."""
        head = self._nodes[0]
        for process in psutil.Process(head.pid).children(recursive=True):
            _kill(process.pid)
        head.kill()
        head.wait(_END_S)

    def __exit__(self, *_) -> None:
        for number in list(self._nodes):
            if number:
                self.switch_off(number)
                _ip("netns", "del", self._space(number), check=False)
        if head := self._nodes.get(0):
            running = psutil.Process(head.pid).children(recursive=True) if head.poll() is None else []
            head.send_signal(signal.SIGTERM)
            try:
                head.wait(_END_S)
            except subprocess.TimeoutExpired:
                head.kill()
            for process in running:
                _kill(process.pid)
        _ip("link", "del", self._bridge, check=False)

    def _space(self, number: int) -> str:
        return f"{self._bridge}-{number}"

    def _ray(self, *flags: str, number: int) -> subprocess.Popen:
        inside = ["ip", "netns", "exec", self._space(number)] if number else []
        command = [Path(sys.executable).with_name("ray"), "start", "--block", f"--num-cpus={min(1, number)}",
                   f"--node-ip-address={_NETWORK}.{10 + number if number else 1}", "--object-store-memory=80000000",
                   "--include-log-monitor=false",
                   f"--temp-dir={self._directory}/r{number}", *flags]  # fmt: skip
        fakes = Path(__file__).resolve().parents[1] / "fakes"
        environment = {**os.environ, **_ENVIRONMENT, "PYTHONPATH": str(fakes)}
        with open(self._directory / f"ray-{number}.log", "a") as log:
            return subprocess.Popen([*inside, *map(str, command)], env=environment, stdout=log, stderr=log,
                                    start_new_session=True)  # fmt: skip


def _ip(*command: str, check: bool = True) -> None:
    subprocess.run(["ip", *command], check=check, capture_output=not check)


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ")
    except OSError:
        return ""


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
