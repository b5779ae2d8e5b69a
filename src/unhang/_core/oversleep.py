"""Did the watchdog itself oversleep? Then nobody is judged by the time it lost."""

from __future__ import annotations


class Oversleep:
    """Measures stretches in which the watchdog was not looking.

    A host that is paused, a VM that is frozen, a SIGSTOP, a starved process: the watchdog comes back
    later than it planned, and cannot know whether the workers had that time. `looked` returns the stretch
    since the last look, to be given back to every deadline, when the watchdog is more than ``tolerance``
    seconds behind its plan. It returns the whole stretch, not only what exceeds the plan, since the pause
    may have begun right after the last look: a late kill is better than a false one.

    Instants are seconds of a clock that does not count the watchdog's own work: a watchdog that is kept busy was
    not away.
    """

    def __init__(self, now: float, tolerance: float = 0.25) -> None:
        self._tolerance = tolerance
        self._looked = now
        self._planned = now

    def plan(self, now: float, next_look: float) -> None:
        """The watchdog is about to wait, until ``next_look`` at the latest.

        If it has been away since its last look, `looked` will say so: a plan does not make up for it.
        """
        if now - self._planned <= self._tolerance:
            self._planned = max(self._planned, next_look)

    def looked(self, now: float) -> float:
        """The watchdog looks at the deadlines; returns the seconds to give back, or 0."""
        stretch = now - self._looked if now - self._planned > self._tolerance else 0.0
        self._looked = self._planned = now
        return stretch
