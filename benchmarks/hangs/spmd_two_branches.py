"""Half of the ranks evaluate, half of them train on, and each half waits for the other."""

from collective import Star

import unhang

with unhang.expires(after=60, scope="start-up"):
    group = Star()
    group.barrier("start")

for step in range(10):
    if step == 3 and group.rank < 2:
        with unhang.expires(after=2, scope="evaluate"):
            group.barrier("evaluate")  # HANGS HERE
    with unhang.expires(after=2, scope="step"):
        group.all_reduce(1.0)  # HANGS HERE
