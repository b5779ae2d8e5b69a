"""A block in plain Python: the reference for what ``_block.c`` does, and what is used where that is not.

Entering stores the deadline into a slot of the page (`unhang._core.page`), and compares it with the instant at which
the watchdog will look; leaving marks the slot as not armed. Nothing is sent, locked or waited for, unless the
watchdog would look too late, or has not looked for too long.
"""

from __future__ import annotations

from os import getpid
from sys import is_finalizing

from unhang._core.durations import BUCKET_COUNT, BUCKETS, FIRST, LONGEST, RECORD_BYTES, SHORTEST_OCTAVE, bucket_of
from unhang._core.page import DEADLINE, NEVER, SEQUENCE, TIMEOUT
from unhang._worker.bases import HeartbeatBase, SiteBase, SlotBase, TimerBase
from unhang._worker.slot import STALE, UNWATCHED, warn_of_dropped_timer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any, Self, TypeVar

    from unhang._worker.slot import Place

    F = TypeVar("F", bound=Callable[..., Any])


# Takes what threads still write down while their site is told to keep nothing any more.
_NOWHERE = memoryview(bytearray(RECORD_BYTES)).cast("q")


class Slot(SlotBase):
    """See `SlotBase`."""

    __slots__ = ("__weakref__", "cell", "count", "free", "pid", "spare", "watched")

    def _place(self, cell: memoryview, watched: memoryview) -> None:
        self.pid = getpid()
        self.watched = watched
        self.cell = cell

    def _take_along(self, copy: memoryview) -> None:
        pid = getpid()
        copy[:] = self.cell
        self.pid = pid
        self.watched = UNWATCHED
        self.cell = copy

    # Globals as arguments: as the interpreter ends, those of this module may be gone.
    def __del__(
        self,
        getpid: Callable[[], int] = getpid,
        is_finalizing: Callable[[], bool] = is_finalizing,
        index: int = DEADLINE,
        never: int = NEVER,
    ) -> None:
        # In a forked child, what threads of the parent held goes before it could be cut off: it is the parent's.
        if not hasattr(self, "cell") or self.pid != getpid():
            return
        cell = self.cell
        is_armed = cell[index] < never
        cell[index] |= never
        if is_finalizing():
            return
        back = _Return()
        back.place = (cell, self.watched)
        back.spare, self.spare = self.spare, back  # type: ignore[assignment]
        if is_armed:
            warn_of_dropped_timer(cell)


class _Return:
    """Gives a place back when its slot is gone: that may live on behind ``__del__``, in a generator that is closed."""

    __slots__ = ("place", "spare")

    place: Place
    spare: list[Place]

    def __del__(self) -> None:
        if hasattr(self, "spare"):
            self.spare.append(self.place)


class Site(SiteBase):
    """See `SiteBase`."""

    __slots__ = (
        "after", "clock", "durations", "ending", "free", "label", "longest", "pretimeout", "scope", "slack", "slots",
        "source",
    )  # fmt: skip

    durations: memoryview
    longest: int  # of them, as far as they came from here, and below the last bucket; -1 before there was one

    def keep(self, durations: memoryview | None) -> None:
        self.durations = _NOWHERE if durations is None else durations
        self.longest = -1


class Timer(TimerBase):
    __doc__ = TimerBase.__doc__

    __slots__ = ("_left", "_site", "_slot")  # _slot is None before the first block, and False behind each

    def __init__(self, site: SiteBase) -> None:
        self._site = site
        self._slot = None

    @property
    def _was_entered(self) -> bool:  # type: ignore[override]
        return self._slot is not None

    def __enter__(self) -> Self:
        site = self._site
        if self._slot:
            self._refuse("enter")
        try:
            slot = site.free.pop()
        except IndexError:
            slot = site.slots.take(site)
        deadline = site.clock() + site.after
        slot.count = count = slot.count + 1
        cell = slot.cell
        cell[SEQUENCE] = count
        cell[DEADLINE] = deadline
        # No call between arming and here: a signal handler that raises leaves no timer armed.
        self._slot = slot
        wake = slot.watched[0]
        if not wake <= deadline <= wake + site.slack:
            try:
                self._attend(slot, deadline)
            except BaseException:
                if self._slot:
                    _exit(self, None, None, None)
                raise
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        slot = self._slot
        if not slot:
            if exc_type is None:
                self._refuse("leave")
            return  # an exception of the block comes out as it went in
        slot.cell[DEADLINE] |= NEVER
        self._slot = False
        slot.free.append(slot)

    def restart(self) -> None:
        slot, site = self._slot, self._site
        if slot and slot.free is not site.free:
            self._restart_apart()
            return
        slot = self._armed("restart")
        deadline = site.clock() + site.after
        if slot is self._slot:
            slot.count += 1
        self._move(slot, deadline, site.after)

    def _move(self, slot: SlotBase, deadline: int, timeout: int) -> None:
        if slot is not self._slot:
            return  # a signal handler has left its block meanwhile
        cell = slot.cell
        # As if it were disarmed and armed again: nobody takes the old half of it and the new one for a whole.
        cell[DEADLINE] |= NEVER
        cell[TIMEOUT] = timeout
        cell[SEQUENCE] = slot.count
        cell[DEADLINE] = deadline
        wake = slot.watched[0]
        if not wake <= deadline <= wake + timeout + STALE:
            self._notify(slot, deadline)


class Heartbeat(HeartbeatBase):
    __doc__ = HeartbeatBase.__doc__

    __slots__ = ("_args", "_closed", "_options", "_timer")

    def beat(self) -> None:
        timer = self._timer
        if timer is None or (type(timer) is Timer and not timer._slot):
            self._begin()
        else:
            timer.restart()


def learn() -> None:
    """From now on, timers write down how long their blocks take, if their site says where.

    Before, none of them even asks: whoever learns nothing pays nothing for it.
    """
    Timer.__exit__ = _Learning.__exit__  # type: ignore[method-assign, assignment]
    Timer.restart = _Learning.restart  # type: ignore[method-assign, assignment]


_exit, _restart = Timer.__exit__, Timer.restart


class _Learning(Timer):
    """What timers do that write down how long their blocks take."""

    __slots__ = ()

    _site: Site

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        slot = self._slot
        if not slot:
            _exit(self, exc_type, exc, traceback)
            return
        site = self._site
        cell, free = slot.cell, slot.free
        deadline = cell[DEADLINE]
        # What was extended, suspended or inherited goes back elsewhere. No call before it is disarmed: see __enter__.
        is_ordinary = free is site.free or (cell[TIMEOUT] == site.after and slot.watched is not UNWATCHED)
        cell[DEADLINE] = deadline | NEVER
        self._slot = False
        free.append(slot)
        took = site.clock() - deadline + site.after
        if 0 <= took <= site.longest and is_ordinary:  # as _write_down, without a call
            bits = took.bit_length()
            site.durations[4 * bits + (took >> bits - 3) + _NO_BITS if bits > SHORTEST_OCTAVE else BUCKETS] += 1
        elif is_ordinary and deadline < NEVER:
            _write_down(site, took)

    def restart(self) -> None:
        slot, site = self._slot, self._site
        if slot and slot.free is site.free:
            took = site.clock() - slot.cell[DEADLINE] + site.after
            if 0 <= took <= site.longest:
                bits = took.bit_length()
                site.durations[4 * bits + (took >> bits - 3) + _NO_BITS if bits > SHORTEST_OCTAVE else BUCKETS] += 1
            elif slot.cell[DEADLINE] < NEVER:
                _write_down(site, took)
        _restart(self)


def _write_down(site: Site, took: int) -> None:
    durations = site.durations
    if durations is _NOWHERE:
        return
    if took > site.longest:
        if not durations[FIRST]:
            durations[FIRST] = took or 1
            return
        site.longest = min(took, _LONG)
        durations[LONGEST] = max(took, durations[LONGEST])
    durations[BUCKETS + bucket_of(took)] += 1


# The bucket of a duration is 4 times the number of its bits, plus the first three of them, plus this.
_NO_BITS = BUCKETS - 4 * SHORTEST_OCTAVE - 8
# Nanoseconds from which on a block is in the last bucket.
_LONG = 7 << (SHORTEST_OCTAVE + BUCKET_COUNT // 4 - 3)


def accelerate(
    expires: F,
    client_type: type,  # noqa: ARG001 - the compiled one needs it
    text: str,  # noqa: ARG001
    module: str,  # noqa: ARG001
) -> F:
    """A faster function that does what ``expires`` does for the clients of a type; here there is none.

    Args:
        expires: what it does, and is called for what is new. Not kept alive by it.
        client_type: the type of clients.
        text: its signature and docstring.
        module: where it is to be found.
    """
    return expires


def use(sites: object) -> None:
    """Tell it the sites of the client that is the default from now on, or None."""


def fence() -> None:
    """Order what was stored before this call and what is read after it: Python cannot."""
