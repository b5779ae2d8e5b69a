"""Whether the watchdog was there all the time, or has to give time back."""

from __future__ import annotations

import os
import threading

from unhang._core.clock import Clock
from unhang._core.oversleep import Oversleep


class _Here(threading.local):
    """Tells threads apart, also of forked processes: an id is soon given to the next thread, or is a system call."""

    def __init__(self) -> None:
        self.thread = object()


_here = _Here()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_here.__init__)  # type: ignore[misc] # of the one thread that is there


class Presence:
    """Measures, in the loop's thread, the stretches in which it was not there, without those of its own work."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._begin()

    def waits(self, seconds: float) -> None:
        """The loop is about to wait, for so many seconds at most."""
        if self._loop is not _here.thread:
            self._begin()
        idle = self._idle()
        self._oversleep.plan(idle, idle + seconds)

    def is_back(self) -> float:
        """The loop looks again, or goes on; returns the seconds to give back to every deadline, or 0."""
        return self._oversleep.looked(self._idle())

    def _begin(self) -> None:
        """Measure from now on, since another thread turns the loop: the processor time is a thread's own."""
        self._loop = _here.thread
        self._oversleep = Oversleep(self._idle())

    def _idle(self) -> float:
        return self._clock.now() - self._clock.worked()
