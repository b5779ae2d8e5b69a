"""Has the kernel given a number to another process meanwhile?

Linux gives out pids in a circle: a number that comes free is given again only when the circle comes past it. So who
knows the number given out last, then and now, can tell that a number elsewhere on the circle was not given again,
though its process is gone.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mark:
    """How far the circle was at one moment."""

    last: int  # the number given out last
    ticks: float  # when: in the unit and on the clock of start times
    used: int = 0  # numbers in use: the circle leaves them out


@dataclass(frozen=True, slots=True)
class PidCircle:
    """The circle of one pid namespace.

    Args:
        first: the circle begins again here.
        size: numbers are below this.
        rate: no more numbers than this are given out in one tick, however many processes fork.
    """

    first: int
    size: int
    rate: float

    def given(self, since: Mark, now: Mark) -> list[int] | None:
        """The numbers that may have been given out between two marks, the newest first.

        None when that may be all of them: the circle may have come past one place twice.
        """
        free = self.size - self.first - max(since.used, now.used)
        if (now.ticks - since.ticks) * self.rate >= free:
            return None
        if since.last <= now.last:
            return list(range(now.last, since.last, -1))
        return [*range(now.last, self.first - 1, -1), *range(self.size - 1, since.last, -1)]
