"""How a watchdog's loop is: how often it turns, and how long that takes."""

from __future__ import annotations

from unhang._core import real_time as time

# Seconds of which the longest turn is remembered, at least; twice as many at most.
_WINDOW = 60.0


class Meter:
    """Counts the turns of a loop. Instants are monotonic seconds. It belongs to the loop.

    Attributes:
        started: when this was made.
        looked: when the last turn ended.
        turns: how many there were.
        overslept: how often the loop was away when it should have looked.
        overslept_time: for how many seconds altogether.
    """

    def __init__(self) -> None:
        self.started = self.looked = self._since = time.monotonic()
        self.turns = 0
        self.overslept = 0
        self.overslept_time = 0.0
        self._longest = self._longest_before = 0.0

    def turned(self, began: float, ended: float) -> None:
        """A turn has ended."""
        self.turns += 1
        self.looked = ended
        self._longest = max(self._longest, ended - began)
        if ended - self._since > _WINDOW:
            self._longest_before, self._longest, self._since = self._longest, 0.0, ended

    @property
    def longest(self) -> float:
        """Seconds of the longest turn in the last minute or two."""
        return max(self._longest, self._longest_before)
