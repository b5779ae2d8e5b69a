"""Which ends of processes were asked for: by a signal that reached `unhang run`, or by `unhang run` itself."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from unhang._platform import exits

# Signals by which people, shells and launchers end a job.
_ENDING = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT})
# Seconds for which whatever ends after one of these may have ended because of it: launchers pass it on, and wait.
_LONGEST_END = 30.0


class RequestedEnd:
    """Remembers the signals that COMMAND was sent. `explains` may be called from any thread.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._passed: set[int] = set()
        self._until = 0.0
        self.by_us = False

    def add(self, number: int) -> None:
        """COMMAND, or the whole group in the foreground, got a signal from outside."""
        self._passed.add(number)
        if number in _ENDING:
            self._until = self._clock() + _LONGEST_END

    def has(self, number: int) -> bool:
        """Whether this signal came from outside."""
        return number in self._passed

    def explains(self, exit_: str) -> bool:
        """Whether it is no news that a process has ended so (``SIGINT``, ``exit code 1``)."""
        if self.by_us:
            return True
        # What has come, and waits for the thread that takes signals, counts as well.
        waiting = signal.sigpending()
        name = exit_.partition(" ")[0]
        if any(name == exits.text(number) for number in self._passed | waiting):
            return True
        asked = self._clock() < self._until or bool(waiting & _ENDING)
        return asked and (name == "exit" or name in {number.name for number in _ENDING})
