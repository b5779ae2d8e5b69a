"""Processes below a worker. None of them outlives its time: each has an alarm, and who forks on has a last moment."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from types import FrameType
from typing import NoReturn

import psutil

_LIFE = 25  # seconds
# Processes below a worker: so many children, each with so many of its own.
_CHILDREN, _GRANDCHILDREN = 20, 9
BELOW = _CHILDREN * (1 + _GRANDCHILDREN)
# Every so many-th of them ignores SIGTERM.
_DEAF = 3
# Processes of a worker that forks without end, at any moment; seconds between two forks of each, and until the end.
MOST = 40
_PAUSE = 0.05
_RAGE = 12.0


def grow() -> None:
    """Have `BELOW` processes below this one, all there when it returns."""
    reading, writing = os.pipe()
    for child in range(_CHILDREN):
        if os.fork():
            continue
        for grandchild in range(_GRANDCHILDREN):
            if os.fork() == 0:
                _live(writing, grandchild)
        _live(writing, child)
    for _ in range(BELOW):
        os.read(reading, 1)


def _live(writing: int, number: int) -> NoReturn:
    signal.alarm(_LIFE)
    if number % _DEAF == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.write(writing, b"!")
    while True:
        time.sleep(_LIFE)


def count_in(session: int) -> int:
    """How many processes of this session run."""
    count = 0
    for process in psutil.process_iter():
        with contextlib.suppress(OSError, psutil.Error):
            count += os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE
    return count


def rage_when_asked() -> None:
    """On SIGTERM become `MOST` processes that ignore it, and of which half fork when the others exit, again and again.

    This process is one of them, so that most of the others are orphans soon.
    """
    taking, giving = os.pipe()
    os.set_blocking(taking, False)
    os.write(giving, bytes(MOST - 1))

    def rage(_number: int, _frame: FrameType | None) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        last_moment = time.monotonic() + _RAGE
        while time.monotonic() < last_moment:
            try:
                os.read(taking, 1)
            except BlockingIOError:
                os.write(giving, b"!")
                os._exit(0)
            with contextlib.suppress(OSError):
                if os.fork() == 0:
                    signal.alarm(_LIFE)
            time.sleep(_PAUSE)
        os._exit(0)

    signal.signal(signal.SIGTERM, rage)
