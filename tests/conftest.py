"""Put the suite's modules and the tests' fakes on the path, also for the simulators that tests start."""

import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent
sys.path[:0] = [str(TESTS.parent), str(TESTS)]
