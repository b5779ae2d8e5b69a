"""Run a program into whose memory no other process may look: ``python sealed.py PROGRAM``.

As a program does that holds secrets. It connects to its watchdog before.
"""

import ctypes
import runpy
import sys

import unhang

PR_SET_DUMPABLE = 4

unhang.configure()
ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
