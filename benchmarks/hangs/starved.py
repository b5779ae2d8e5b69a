"""Computes only when nobody else wants its processor; somebody always does."""

import os
import subprocess
import sys

import unhang

os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
subprocess.Popen([sys.executable, "-c", "while True: pass"])

with unhang.expires(after=1.5, scope="background job"):
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    print(sum(number * number for number in range(10**12)))  # HANGS HERE
