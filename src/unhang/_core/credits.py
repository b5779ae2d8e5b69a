"""Time that is given back to timers whose deadlines stand where the watchdog cannot move them."""

from __future__ import annotations

# More stretches than these are told apart no longer: the two oldest become one, which gives back more.
_MOST = 64


class Credits:
    """Stretches in which nobody looked, as `Oversleep` measures them. Instants and stretches in nanoseconds."""

    def __init__(self) -> None:
        self._stretches: list[tuple[int, int]] = []

    def add(self, until: int, lost: int) -> None:
        """Nobody looked for ``lost`` nanoseconds, until ``until``."""
        self._stretches.append((until, lost))
        if len(self._stretches) > _MOST:
            (_, first), (second_until, second) = self._stretches[:2]
            self._stretches[:2] = [(second_until, first + second)]

    def given(self, armed_at: int) -> int:
        """What a timer that was armed at this instant gets back: the parts of the stretches behind it."""
        return sum(min(lost, until - armed_at) for until, lost in self._stretches if until > armed_at)
