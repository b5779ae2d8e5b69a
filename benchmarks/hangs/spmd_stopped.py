"""Rank 2 is stopped by another process, and the others wait for it in a ring."""

import os
import subprocess
import time

from collective import Ring

import unhang

with unhang.expires(after=60, scope="start-up"):
    group = Ring()
    group.all_reduce(0.0)
if group.rank == 2:
    subprocess.Popen(["/bin/sh", "-c", f"sleep 0.5; kill -STOP {os.getpid()}"])

while True:  # HANGS HERE
    with unhang.expires(after=2, scope="step"):  # HANGS HERE
        time.sleep(0.02)  # HANGS HERE
        group.all_reduce(1.0)  # HANGS HERE  # WAITS HERE
