"""The slots of this process: taken by a block as it is entered, given back behind it."""

from __future__ import annotations

import atexit
import os
import sys
import weakref
from _thread import RLock, get_ident, get_native_id

from unhang._core.page import (
    DEADLINE,
    LARGEST_PAGE,
    MOST_TIMERS,
    NEVER,
    SLOT_BYTES,
    SMALLEST_PAGE,
    THREAD,
    PageWriter,
    label,
)
from unhang._worker import implementation
from unhang._worker.slot import UNWATCHED
from unhang.errors import TooManyTimersError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, Protocol

    from unhang._core.duration_pages import DurationWriter
    from unhang._worker.learned import Learned
    from unhang._worker.plain import Timer
    from unhang._worker.pupils import Pupils
    from unhang._worker.slot import Place, SiteBase, SlotBase
    from unhang._worker.starting import Starting

    class Channel(Protocol):
        """How pages reach the watchdog, and how it is told to look."""

        def new_page(self, size: int) -> PageWriter:
            """Shared memory, which the watchdog gets to see at once, or as soon as there is one."""

        def attend(self, watched: memoryview, deadline: int) -> bool | None:
            """The watchdog may not look in time for this deadline: notify it, without waiting.

            Returns None when the watchdog has to be found, which takes time: see `find`. Returns False when pages
            cannot be handed over: those that are not shared, or if there is none, any of them. New ones are needed in
            their place.

            Raises:
                WatchdogLostError: nobody is watching, and the client was told to raise.
            """

        def find(self) -> None:
            """Find the watchdog, in bounded time; raises as `attend`."""

        def connect(self) -> str | None:
            """Make sure that somebody watches; returns why nobody does, or None."""

        def abandon(self) -> None:
            """Leave the watchdog, or, in a forked child, what is the parent's; pages are not used any more."""

        def tell(self) -> None:
            """Say in the log what has become of the watchdog. Called without a lock: loggers may use timers."""

        def new_durations(self, size: int) -> DurationWriter | None:
            """As `new_page`, for durations, if this process learns them; None if there is no memory to be had."""


# Seconds that the end of the interpreter waits for a thread that is finding a watchdog.
_LAST_PATIENCE = 1.0
# Scopes that a program makes up as it goes are forgotten when there are so many.
_MOST_SITES = 4096


class Slots:
    """All slots of one client in this process, by the sites that use them. Thread-safe; starts over after a fork.

    Arming takes a slot from the list of its site and nothing else, as long as there is one. What is here is for
    when there is none.

    Args:
        channel: how pages reach the watchdog.
        clock: nanoseconds of the monotonic clock.
        made_of: the implementation of a block.
        learn: whether workers write down how long their blocks take.
    """

    def __init__(
        self, channel: Channel, clock: Callable[[], int], made_of: Any = implementation.CHOSEN, *, learn: bool = False
    ) -> None:
        self.channel = channel
        self.clock = clock
        self._made_of = made_of
        self._pupils = _pupils(self, made_of) if learn else None
        self._starting: Starting | None = None
        self._ends_in: int | None = None  # the thread that ends the interpreter, as soon as it does
        self.sites: dict[object, SiteBase] = {}
        self._lock = RLock()
        self._begin()
        _all_slots.add(self)

    def _begin(self) -> None:
        self._pages: list[PageWriter] = []
        self._spare: list[Place] = []
        self._retired: list[SlotBase] = []
        self._living: weakref.WeakSet[SlotBase] = weakref.WeakSet()

    def site(
        self, key: object, scope: str, after: int, source: object = None, *, ending: int = 0, pretimeout: int = 0
    ) -> SiteBase:
        """The site that is known by ``key``, made if there is none."""
        with self._lock:
            site = self.sites.get(key)
            if site is None:
                if len(self.sites) >= _MOST_SITES:
                    self._forget_sites()
                make = self._made_of.Site
                site = make(self, scope, after, source, ending=ending, pretimeout=pretimeout)
                site = self.sites.setdefault(key, site)  # a signal handler may have been faster
            return site

    def _forget_sites(self) -> None:
        self._idle()
        self.sites.clear()
        for learning in (self._pupils, self._starting):
            if learning is not None:
                learning.forget()

    def learned_site(
        self, key: object, scope: str, learned: Learned, source: object = None, *, ending: int = 0, pretimeout: int = 0
    ) -> SiteBase:
        """As `site`, for one whose timeouts are learned."""
        from unhang._worker.starting import Starting  # for those who want it

        first, steady = learned.budgets(scope)  # without the lock: this may read a file, and log what is wrong with it
        with self._lock:
            site = self.site(key, scope, first, source, ending=ending, pretimeout=pretimeout)
            self._starting = self._starting or Starting()
            if self._starting.learned_of(site) is None:
                self._starting.begin(site, learned, first, steady)
            return site

    def called(self, site: SiteBase, scope: str) -> SiteBase:
        """The site of this name whose timers are otherwise like those of ``site``, made if there is none."""
        if scope == site.scope:
            return site
        learned = self.learned_of(site)
        key = ("called", scope, site.after, site.ending, site.pretimeout, learned)
        options = {"ending": site.ending, "pretimeout": site.pretimeout}
        if learned is None:
            return self.site(key, scope, site.after, **options)
        return self.learned_site(key, scope, learned, **options)

    def learned_of(self, site: SiteBase) -> Learned | None:
        """What the timeouts of a site are learned with; None if it has one that is given."""
        return None if self._starting is None else self._starting.learned_of(site)

    def timer(self, site: SiteBase) -> Timer:
        """A timer for a site."""
        timer: Timer = self._made_of.Timer(site)
        return timer

    def take(self, site: SiteBase) -> SlotBase:
        """A slot for a site that has no idle one."""
        try:
            return self._take(site)
        finally:
            self.channel.tell()

    def _take(self, site: SiteBase) -> SlotBase:
        while True:
            with self._lock:
                if self._ends_in not in (None, get_ident()):
                    return self._unwatched(site)
                pages = self._pages
                free = site.free if self._starting is None else self._starting.free_of(site)
                if self._ends_in is not None:
                    free = self._retired  # no other thread is to find it where it is given back
                slot: SlotBase = self._made_of.Slot(free, self._spare)
                self._living.add(slot)
                # From here on no place is without an owner: a signal handler that raises loses none.
                place = self._place()
                if pages is not self._pages:  # started over meanwhile: this place is in a page of before
                    continue
                try:
                    slot.put(*place)
                except BaseException:
                    if not hasattr(slot, "cell"):
                        self._spare.append(place)
                    raise
                self._label(slot.cell, site)
                if self._pupils is not None:
                    self._pupils.add(site)
                if pages is self._pages:
                    return slot

    def _unwatched(self, site: SiteBase) -> SlotBase:
        """A slot for one block of a thread that may stop at any instruction."""
        slot: SlotBase = self._made_of.Slot([], [])
        slot.put(memoryview(bytearray(SLOT_BYTES)).cast("q"), UNWATCHED)
        slot.cell[DEADLINE] = NEVER
        label(slot.cell, site.label, site.after, ending=site.ending, pretimeout=site.pretimeout)
        return slot

    def _label(self, cell: memoryview, site: SiteBase) -> None:
        """Give a slot to a site. Which thread will use it is not known, but it is mostly the one that asks."""
        thread = get_native_id()
        self._made_of.fence()  # that it is marked as not armed comes before what is written now
        if label(cell, site.label, site.after, ending=site.ending, pretimeout=site.pretimeout, thread=thread):
            for page in self._pages[:1]:
                page.count_relabelled()
        if site.pretimeout:
            for page in self._pages:
                page.raise_pretimeout(site.pretimeout)

    def attend(self, watched: memoryview, deadline: int) -> bool:
        """See `Channel.attend`. Returns whether the watchdog has to be found."""
        try:
            is_done = self.channel.attend(watched, deadline)
            if is_done is False:
                self._give_up_pages()
            return is_done is None
        finally:
            self.channel.tell()

    def find(self) -> None:
        """See `Channel.find`."""
        try:
            self.channel.find()
        finally:
            self.channel.tell()

    def _give_up_pages(self) -> None:
        """Those that nobody can get to see are given up; if there is none, all of them are."""
        with self._lock:
            given_up = [page.watched for page in self._pages if not page.shared]
            if not given_up:
                self.start_over()
                return
            self._pages = [page for page in self._pages if page.shared]
            self._idle()
            for slot in list(self._living):
                if hasattr(slot, "cell") and _is_any(slot.watched, given_up):
                    slot.cut_off(is_ours=True)
            spare = self._spare  # the slots hold it, too
            for index in reversed(range(len(spare))):
                if _is_any(spare[index][1], given_up):
                    del spare[index]

    def retire(self, slot: SlotBase) -> None:
        """Let the slot, once it is given back, be labelled anew."""
        slot.free = self._retired

    def _place(self) -> Place:
        self._retired.clear()
        return self._spare_place() or self._unused_place() or self._idle_place() or self._new_place()

    def _spare_place(self) -> Place | None:
        if not self._spare:
            return None
        place = self._spare[-1]
        del self._spare[-1]  # no call, see take()
        return place

    def _unused_place(self) -> Place | None:
        if not self._pages:
            return None
        page = self._pages[-1]
        cell = page.add_slot()
        return None if cell is None else (cell, page.watched)

    def _idle_place(self) -> Place | None:
        self._idle()
        return self._spare_place()

    def _idle(self) -> None:
        """Take all idle slots from their sites."""
        for site in list(self.sites.values()):
            while site.free:
                try:
                    site.free.pop()
                except IndexError:  # another thread took the last one
                    break

    def _new_place(self) -> Place:
        # Each page twice as large as the one before: a few pages hold as many timers as anybody arms.
        pages = self._pages  # a signal handler may leave them
        size = SMALLEST_PAGE << len(pages)
        if size > LARGEST_PAGE:
            raise TooManyTimersError(MOST_TIMERS)
        page = self.channel.new_page(size)
        pages.append(page)
        cell = page.add_slot()
        assert cell is not None  # noqa: S101 - for the type checker: the page is new
        return cell, page.watched

    def close(self) -> None:
        """Leave the watchdog, while other threads may arm timers."""
        with self._lock:
            self.start_over()

    def leave(self) -> None:
        """Nobody makes timers here any more: leave the watchdog, if none is armed."""
        if not self._lock.acquire(blocking=False):
            return  # a thread is about to arm one
        try:
            living = list(self._living)
            idle = {id(slot) for free in {id(slot.free): slot.free for slot in living}.values() for slot in free}
            if all(id(slot) in idle for slot in living if hasattr(slot, "cell")):
                self.start_over()
        finally:
            self._lock.release()

    def end(self) -> None:
        """The interpreter ends: from here on timers of other threads than this one are not watched.

        These are daemons, which Python stops wherever they are, so that they can never leave their blocks. Their armed
        timers go on unwatched, and so do those that they arm as long as they still run. This thread, in which exit
        handlers and finalizers run, goes on as before. In plain Python it is not known which thread has armed a timer:
        timers that this one has armed before go on unwatched, too, but not those that it arms from here on.
        """
        if len(sys._current_frames()) == 1 or not self._lock.acquire(timeout=_LAST_PATIENCE):
            return
        try:
            self._ends_in = get_ident()
            is_known = hasattr(self._made_of, "LAYOUT")  # see `unhang._core.page`: the compiled one says which thread
            ours = get_native_id()
            for slot in list(self._living):
                if not hasattr(slot, "cell"):
                    continue
                if not (is_known and slot.cell[DEADLINE] < NEVER and slot.cell[THREAD] == ours):
                    slot.cut_off(is_ours=True)
            for site in list(self.sites.values()):
                site.free = []
        finally:
            self._lock.release()

    def after_fork(self) -> None:
        """In a forked child: nothing of the parent's is touched."""
        self._lock = RLock()  # a thread may hold the old one that is not there any more
        self.start_over(is_ours=False)

    def start_over(self, *, is_ours: bool = True) -> None:
        """With the lock: what is armed goes on unwatched, the next arming begins anew.

        Args:
            is_ours: whether the pages are this process's, and not those of the one that has forked it.
        """
        living = self._living
        self._begin()
        for slot in list(living):
            if hasattr(slot, "cell"):  # else it is about to get one
                slot.cut_off(is_ours=is_ours)
        for site in list(self.sites.values()):
            site.free = []
        for learning in (self._pupils, self._starting):
            if learning is not None:
                learning.start_over()
        self.channel.abandon()


def _is_any(one: memoryview, others: list[memoryview]) -> bool:
    """Whether it is one of these objects: memory that looks alike is not the same."""
    return any(one is other for other in others)


def _pupils(slots: Slots, made_of: Any) -> Pupils:
    from unhang._worker.pupils import Pupils  # for those who want it

    return Pupils(slots, made_of)


_all_slots: weakref.WeakSet[Slots] = weakref.WeakSet()


def _after_fork(all_slots: Iterable[Slots]) -> None:
    for slots in list(all_slots):
        slots.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _after_fork(_all_slots))


def _end(all_slots: Iterable[Slots]) -> None:
    for slots in list(all_slots):
        slots.end()


# Threads that are no daemons have been waited for by then. Exit handlers run in the reverse of the order in which they
# were registered: those of modules that came later run before this one, when daemons still run.
atexit.register(_end, _all_slots)
