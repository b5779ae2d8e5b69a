"""How long a server of the timer contract lets requests gather before it reads them all at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

# Seconds. A wake-up costs a server as much as some tens of requests.
SHORTEST = 0.001
LONGEST = 0.05
# A nap is at most this part of the shortest timeout seen lately, so that it does not delay the kill of such a worker.
_PART = 8
# By how much a nap may be longer than the one before.
_GROWTH = 1.25
# Bytes read at once beyond which naps get shorter: the pipe holds 1 MiB at most, and a full one keeps workers waiting.
_MUCH = 1 << 17


class Waits(Protocol):
    """What a loop waits with: a `unhang._platform.waiter.Waiter`, or a `unhang._platform.fifo.FifoReader`."""

    def wait(self, timeout: float) -> bool:
        """Wait for so many seconds at most; returns whether there was something."""

    def poll(self) -> bool:
        """Look after what is ready, without waiting."""


class Naps:
    """Waits and naps of a loop that reads a pipe; not thread-safe.

    A nap follows the shortest timeout of the last requests, at once when that gets shorter, and slowly when it gets
    longer. A first block with a timeout under `LONGEST` among long ones may so be noticed `LONGEST` seconds late.

    Attributes:
        flowing: whether the last look at the pipe found something: then the next wait is a nap, which saves the wake-up
            by the first request.
    """

    def __init__(self, sleep: Callable[[float], None] = time.sleep) -> None:
        self.flowing = False
        self._sleep = sleep
        self._seconds = SHORTEST

    def take(self, remaining: float, waits: Waits) -> None:
        """Wait for a request, for ``remaining`` seconds at most; once there may be one, nap."""
        nap = min(self._seconds, remaining / 2) if remaining > 2 * SHORTEST else 0.0
        if nap and self.flowing:
            self._sleep(nap)
            waits.poll()
        elif waits.wait(remaining) and nap:
            self._sleep(nap)

    def saw(self, size: int, shortest: float) -> None:
        """Learn from what was read.

        Args:
            size: in bytes.
            shortest: seconds to the earliest deadline among the requests; infinite if none was armed.
        """
        if not size:
            return
        wanted = min(LONGEST, shortest / _PART, _GROWTH * self._seconds)
        if size > _MUCH:
            wanted = min(wanted, self._seconds / 2)
        self._seconds = max(SHORTEST, wanted)
