"""Rank 0 finds that it is time for a checkpoint, and waits there for the others; they go on."""

from collective import Star

import unhang

with unhang.expires(after=60, scope="start-up"):
    group = Star()
    group.barrier("start")

for step in range(10):
    if (group.rank, step) == (0, 3):
        with unhang.expires(after=2, scope="checkpoint"):
            group.barrier("checkpoint")  # HANGS HERE
    with unhang.expires(after=2, scope="step"):
        group.all_reduce(1.0)  # WAITS HERE
