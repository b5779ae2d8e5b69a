"""Rank 2 has one batch less than the others: it skips their last all_reduce."""

from collective import Star

import unhang

with unhang.expires(after=60, scope="start-up"):
    group = Star()
    group.barrier("start")

for _ in range(4 if group.rank == 2 else 5):
    with unhang.expires(after=2, scope="step"):
        group.all_reduce(1.0)  # WAITS HERE
with unhang.expires(after=2, scope="finish"):
    group.barrier("finish")  # HANGS HERE
