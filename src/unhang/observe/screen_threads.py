"""How many threads processes have."""

from __future__ import annotations

from collections.abc import Iterable

import psutil


def count_threads(pids: Iterable[int]) -> dict[int, int]:
    """The number of threads of each process, by pid, without those that are gone or may not be seen.

    Reads a file of procfs for each: ask for those only that somebody looks at.
    """
    counts: dict[int, int] = {}
    for pid in pids:
        try:
            counts[pid] = psutil.Process(pid).num_threads()
        except (psutil.Error, OSError, ValueError, OverflowError):
            continue
    return counts
