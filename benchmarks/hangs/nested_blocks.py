"""An epoch of many batches: each batch would have time enough, the epoch has not."""

import time

import unhang


def work(batch: int) -> None:
    """Get slower and slower."""
    time.sleep(0.01 if batch < 3 else 600)  # HANGS HERE


with unhang.expires(after=1.5, scope="epoch"):
    for batch in range(10):
        with unhang.expires(after=60, scope="batch"):
            work(batch)
