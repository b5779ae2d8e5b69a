"""Rank 3 is killed in a step, as one that needs too much memory is."""

import os
import signal

from collective import Star

import unhang

with unhang.expires(after=60, scope="start-up"):
    group = Star()
    group.barrier("start")

for step in range(10):
    with unhang.expires(after=2, scope="step"):
        if (group.rank, step) == (3, 3):
            os.kill(os.getpid(), signal.SIGKILL)
        group.all_reduce(1.0)  # WAITS HERE
