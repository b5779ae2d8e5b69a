"""Processes below a worker. None of them outlives its time: each has an alarm, and who forks on has a last moment."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from types import FrameType
from typing import NoReturn

_LIFE = 25  # seconds
# Processes below a worker: so many children, each with so many of its own.
_CHILDREN, _GRANDCHILDREN = 20, 9
BELOW = _CHILDREN * (1 + _GRANDCHILDREN)
# Processes of a worker that forks without end, at any moment; and seconds between two forks of each.
MOST = 40
_PAUSE = 0.05


def grow() -> None:
    """Have `BELOW` processes below this one, all there when it returns; every third ignores SIGTERM."""
    reading, writing = os.pipe()
    for child in range(_CHILDREN):
        if os.fork() == 0:
            below = [os.fork() for _ in range(_GRANDCHILDREN)] if _is_first(child) else []
            _live(writing, child + len([pid for pid in below if pid == 0]))
    for _ in range(BELOW):
        os.read(reading, 1)


def _is_first(child: int) -> bool:
    return child >= 0


def _live(writing: int, number: int) -> NoReturn:
    signal.alarm(_LIFE)
    if number % 3 == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.write(writing, b"!")
    while True:
        time.sleep(_LIFE)


def rage_when_asked() -> None:
    pass
