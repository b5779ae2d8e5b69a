"""Whether the watchdog was there all the time, or has to give time back."""

from __future__ import annotations

import threading

from unhang._core.clock import Clock
from unhang._core.oversleep import Oversleep

# Seconds without work in the middle of a turn: the watchdog was stopped there.
_STALL = 0.25


class Presence:
    """Measures, in the loop's thread, the stretches in which it was not there, without those of its own work."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._loop = 0
        self._begin()

    def waits(self, seconds: float) -> None:
        """The loop is about to wait, for so many seconds at most."""
        self._begin()
        idle = self._idle()
        self._oversleep.plan(idle, idle + seconds)

    def is_back(self) -> float:
        """The loop looks again; returns the seconds to give back to every deadline, or 0."""
        self._begin()
        self._back = self._idle()
        return self._oversleep.looked(self._back)

    def was_there(self) -> bool:
        """Whether it has been there since `is_back`: if not, what it has seen since then may be old."""
        return self._idle() - self._back < _STALL

    def _begin(self) -> None:
        """Measure from now on, if another thread turns the loop: the processor time is a thread's own."""
        # The native id: the other one is soon given to the next thread.
        if self._loop != threading.get_native_id():
            self._loop = threading.get_native_id()
            self._back = self._idle()
            self._oversleep = Oversleep(self._back)

    def _idle(self) -> float:
        return self._clock.now() - self._clock.worked()
