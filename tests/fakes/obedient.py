"""The command line of one that may not write where it says so, also if that is root. Run by the trials of faults."""

import ctypes
import os
import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
CAP_DAC_OVERRIDE, PR_CAPBSET_DROP = 1, 24
HEADER, NOTHING = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()  # of version 3: no capability at all

if os.geteuid() == 0:
    libc = ctypes.CDLL(None, use_errno=True)
    # First for the programs that it starts, then for itself.
    if libc.prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0) or libc.capset(HEADER, NOTHING):
        raise OSError(ctypes.get_errno(), "capabilities cannot be given up")
sys.argv[0] = str(ROOT / "train-atari.py")
runpy.run_path(sys.argv[0], run_name="__main__")
