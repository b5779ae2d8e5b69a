"""Time that is given back to timers whose deadlines stand where the watchdog cannot move them."""

from __future__ import annotations

import math

# A stretch of so many nanoseconds or more is a pause: a host was stopped, a virtual machine frozen. What is shorter may
# also come of a watchdog, or a worker, that gets little processor time, for as long as it gets little.
PAUSE = 5_000_000_000
# What shorter stretches may add up to, for a timer with a shorter timeout than this.
LEAST = 2_000_000_000
# So many pauses are given back to one timer.
MOST_PAUSES = 8
# More stretches than these are told apart no longer: the two oldest become one, which gives back more.
_MOST = 64
_SECOND = 1e9

_Stretch = tuple[int, int]  # until when, and how long


class Credits:
    """Stretches in which nobody looked, or a worker could not run. Instants and stretches in nanoseconds.

    A timer gets back the parts of them behind its arming, within bounds, so that a watchdog that is starved for as long
    as a worker hangs still ends it: what is shorter than `PAUSE` adds up to the timer's own timeout, or `LEAST`, at
    most, and besides that it gets back `MOST_PAUSES` longer ones.

    Args:
        others: those of all workers, for the credits of one: both count, within the same bounds.
    """

    def __init__(self, others: Credits | None = None) -> None:
        self._others = others
        self._short: list[_Stretch] = []
        self._pauses: list[_Stretch] = []

    def add(self, until: int, lost: int, *, is_pause: bool | None = None) -> None:
        """Another ``lost`` nanoseconds, which ended at ``until``; a pause if that is said, or it is as long as one."""
        stretches = self._pauses if (lost >= PAUSE if is_pause is None else is_pause) else self._short
        stretches.append((until, lost))
        if len(stretches) > _MOST:
            (_, first), (second_until, second) = stretches[:2]
            stretches[:2] = [(second_until, first + second)]

    def given(self, armed_at: int, timeout: float = math.inf) -> int:
        """What a timer that was armed at this instant, with this timeout, gets back."""
        bound = max(timeout, LEAST)
        short = paused = 0
        credit: Credits | None = self
        while credit is not None:
            # The latest come last, so that most timers are done with after one or two.
            for until, lost in reversed(credit._short):
                if until <= armed_at or short >= bound:
                    break
                short += min(lost, until - armed_at)
            pauses = [min(lost, until - armed_at) for until, lost in credit._pauses if until > armed_at]
            paused += sum(pauses[:MOST_PAUSES])
            credit = credit._others
        return int(min(short, bound)) + paused

    def moved(self, since: float, until: float) -> float:
        """The end of a time that began at ``since``, with what is given back to it. In seconds."""
        if until == math.inf:
            return until
        return until + self.given(round(since * _SECOND), max(0.0, until - since) * _SECOND) / _SECOND
