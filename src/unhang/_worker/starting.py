"""Scopes whose budget is learned: the first block of a process has another one than those behind it."""

from __future__ import annotations

from unhang._worker.slot import STALE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from unhang._worker.heart import HeartbeatBase
    from unhang._worker.learned import Learned
    from unhang._worker.slot import SiteBase, SlotBase


class Left(list["SlotBase"]):
    """Where the slots of first blocks are given back, with the timeout that these blocks keep, in nanoseconds."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after


class _Start:
    """Where a site is: ``left`` has the slots of its first blocks once these were left."""

    def __init__(self, learned: Learned, first: int, steady: int) -> None:
        self.learned = learned
        self.first = first
        self.steady = steady
        self.left = Left(first)
        self.is_over = False


class Starting:
    """The sites of a client whose budgets are learned. Called with the lock of the slots held, or in a forked child.

    As long as a site starts up, its slots are not given back to it, so each of its blocks asks `free_of`.
    """

    def __init__(self) -> None:
        self._starts: dict[SiteBase, _Start] = {}

    def begin(self, site: SiteBase, learned: Learned, first: int, steady: int) -> None:
        """A new site, with its two timeouts in nanoseconds; it has the first one already."""
        self._starts[site] = _Start(learned, first, steady)

    def free_of(self, site: SiteBase) -> list[SlotBase]:
        """Where a slot of this site is given back. The first block is over: from now on the other timeout holds."""
        start = self._starts.get(site)
        if start is None:
            return site.free
        if start.is_over:
            start.left.clear()  # of those that were still in their first block
            return site.free
        if not start.left:
            return start.left
        start.is_over = True
        start.left.clear()  # they hold it, too: nobody else would let their places go
        _set_timeout(site, start.steady)
        return site.free

    def learned_of(self, site: SiteBase) -> Learned | None:
        """What was asked for; None if the site has one timeout."""
        start = self._starts.get(site)
        return None if start is None else start.learned

    def forget(self) -> None:
        """The slots have forgotten all sites: timers that are left of them keep the timeout that they have."""
        for start in self._starts.values():
            start.left.clear()
        self._starts.clear()

    def start_over(self) -> None:
        """A forked child starts up too."""
        for site, start in self._starts.items():
            start.is_over = False
            start.left = Left(start.first)
            _set_timeout(site, start.first)


def _set_timeout(site: SiteBase, after: int) -> None:
    site.after = after
    site.slack = after + STALE


class FirstLap:
    """The timer of a heartbeat from its first beat to its second one. It has the names of `Timer` that are used."""

    def __init__(self, heart: HeartbeatBase, timer: Any) -> None:
        self._heart = heart
        self._timer = timer

    @property
    def _slot(self) -> Any:
        return getattr(self._timer, "_slot", True)

    @property
    def state(self) -> str:
        """As `Timer.state`."""
        return str(self._timer.state)

    def restart(self) -> None:
        """The second beat: from here on the heartbeat has an ordinary timer, and the other timeout."""
        from unhang._worker.choose import expires

        if self._slot:  # not one that could not be armed anew
            self.__exit__()
        timer: Any = expires(*self._heart._args, **self._heart._options)
        timer.__enter__()
        if self._heart._timer is not self:  # a signal handler has closed it, or has beaten, meanwhile
            timer.__exit__(None, None, None)
        else:
            # In a forked child it was the first block of all.
            is_first = isinstance(getattr(getattr(timer, "_slot", None), "free", None), Left)
            self._heart._timer = FirstLap(self._heart, timer) if is_first else timer

    def __exit__(self, *_: object) -> None:
        self._timer.__exit__(None, None, None)
