"""The two clocks, and the one place where wall-clock time becomes monotonic."""

from __future__ import annotations

from typing import Protocol

from unhang._core import real_time as time


class Clock(Protocol):
    """What the servers ask about time. All instants are seconds."""

    def now(self) -> float:
        """The monotonic clock: never steps, and is the same in all processes of a host."""

    def wall(self) -> float:
        """Seconds since the epoch: what the timer contract calls ``expiration_time``; it may step."""

    def worked(self) -> float:
        """Seconds of processor time that the calling thread has used."""


class SystemClock:
    """``CLOCK_MONOTONIC`` and the wall clock."""

    # Not methods of ours: a turn of a loop that finds nothing is little more than these.
    now = staticmethod(time.monotonic)
    worked = staticmethod(time.thread_time)

    def wall(self) -> float:
        """See `Clock.wall`."""
        return time.time()


class WallTime:
    """Turns instants of the wall clock into instants of the monotonic clock.

    A request is converted when it is received, so that a later step of the wall clock changes nothing.
    The loop that judges asks for "now" with `read` and gets that very instant back from `monotonic`,
    even if the wall clock stepped in between. Not thread-safe: it belongs to one loop.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._read = (clock.wall(), clock.now())
        self._offset = 0.0
        self.start()

    def read(self) -> float:
        """The wall clock now, remembered together with the monotonic clock."""
        self._read = (self._clock.wall(), self._clock.now())
        return self._read[0]

    @property
    def read_at(self) -> float:
        """The monotonic instant of the last `read`."""
        return self._read[1]

    def offset(self) -> float:
        """What to add to expiration times to have instants of the monotonic clock.

        To be called after each look for requests, for those that were sent since the last one, or since `start`. If the
        wall clock stepped since then, a request may have been sent on either side of the step: it gets the later
        deadline of the two, since a late kill is better than a false one.
        """
        before = self._offset
        self._offset = now = self._clock.now() - self._clock.wall()
        return max(now, before)

    def start(self) -> None:
        """Begin to look for requests: how the clocks differed earlier does not matter."""
        self._offset = self._clock.now() - self._clock.wall()

    def monotonic(self, wall: float) -> float:
        """The monotonic instant at which the wall clock, if it does not step, shows ``wall``."""
        read_wall, read_now = self._read
        if wall == read_wall:
            return read_now
        return wall - self._clock.wall() + self._clock.now()
