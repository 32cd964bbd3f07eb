"""Put the suite and the tests' fakes and helpers on the path, also for the simulators that tests start."""

import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent
sys.path[:0] = [str(TESTS.parent), str(TESTS / "fakes"), str(TESTS / "helpers")]

from bench import command_line  # noqa: E402
from bench.zygote import Zygote  # noqa: E402

command_line.launch = Zygote().start
