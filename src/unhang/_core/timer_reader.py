"""All timers of one worker as its readers see them: the watchdog's parts, and the viewers.

A worker has a page for some hundred timers, more pages for more, and others again for each of its clients. Which page a
timer is in concerns this module alone: the rest of the package asks for timers, never for pages.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from unhang._core.page import NEVER
from unhang._core.page_reader import Credited, PageReader, Snapshot, not_credited

# Slots beyond which the scopes of a worker are not counted: each text has to be read for that, a microsecond or less.
_MOST_COUNTED = 4096
_TRIES = 3


class Arming(NamedTuple):
    """A slot whose deadline is over or near. It names this arming: its next one has another deadline."""

    page: PageReader
    slot: int
    deadline: int


class TimerReader:
    """The timers in some pages of one process. Instants in nanoseconds of the monotonic clock. Not thread-safe."""

    def __init__(self, pages: Iterable[PageReader] = ()) -> None:
        self._pages = list(pages)

    def add(self, page: PageReader) -> None:
        """Read this page as well, from now on; it is taken over."""
        self._pages.append(page)

    def remove(self, pages: Iterable[PageReader]) -> None:
        """Read these pages no more, and let go of their memory. Those that are not here are left alone."""
        for page in pages:
            if page in self._pages:
                self._pages.remove(page)
                page.close()

    def close(self) -> None:
        """Let go of all memory: no timer is left."""
        self.remove(list(self._pages))

    def __len__(self) -> int:
        """How many pages there are."""
        return len(self._pages)

    @property
    def was_armed(self) -> bool:
        """Whether any of the timers was ever armed."""
        return any(page.used for page in self._pages)

    @property
    def sequence(self) -> int:
        """How often they have been armed or restarted, all together."""
        return sum(page.sequence for page in self._pages)

    @property
    def deadlines(self) -> list[list[int]]:
        """Those of all slots, as they were read last: others when a timer was armed or disarmed since."""
        return [page.deadlines for page in self._pages]

    def has_pretimeouts(self) -> bool:
        """Whether any timer has ever had a pretimeout of its own."""
        return any(page.has_pretimeouts() for page in self._pages)

    @property
    def pretimeout(self) -> int:
        """The longest pretimeout, in nanoseconds; 0: there is none."""
        return max((page.pretimeout for page in self._pages), default=0)

    def look(self, beat: int, now: int, credited: Credited, *, again_soon: bool) -> tuple[list[Arming], int]:
        """Promise the worker the next look, and return what has expired, and when that look has to be.

        Args:
            beat: when the watchdog looks at the latest.
            now: this instant.
            credited: as for `due`.
            again_soon: look again when a timer that was disarmed would have expired.
        """
        due: list[Arming] = []
        next_look = NEVER
        for page in self._pages:
            expired, earliest = _look(page, beat, now, credited, again_soon=again_soon)
            due += [Arming(page, index, deadline) for index, deadline in expired]
            next_look = min(next_look, earliest)
        return due, next_look

    def due(
        self, now: int, credited: Credited = not_credited, *, observed_too: bool = True
    ) -> tuple[list[Arming], int]:
        """What has expired, and the earliest deadline of the others.

        Args:
            now: this instant.
            credited: the deadline with what a timer gets back, from its deadline and its timeout: it decides.
            observed_too: also those for which the worker is never to be killed.
        """
        due: list[Arming] = []
        next_one = NEVER
        for page in self._pages:
            if page.observed and not observed_too:
                continue
            expired, earliest = page.due(now, credited)
            due += [Arming(page, index, deadline) for index, deadline in expired]
            next_one = min(next_one, earliest)
        return due, next_one

    def earliest(self) -> int:
        """The earliest deadline; `NEVER` or more when no timer is armed; 0 or less if there is nonsense."""
        return min((page.earliest() for page in self._pages), default=NEVER)

    def live(self) -> Iterator[Snapshot]:
        """The timers that are armed."""
        for page in self._pages:
            yield from page.live()

    def nearest(self, most: int) -> tuple[list[Snapshot], int]:
        """The timers that are armed, the nearest to expiry first, so many at most; and how many there are."""
        columns = [[deadline if deadline > 0 else NEVER for deadline, _ in page.slots()] for page in self._pages]
        found, count = self._least(columns, most)
        return [seen for seen in found if seen.armed], count

    def latest(self, most: int, *, armed: bool) -> list[Snapshot]:
        """The timers that were armed last and still are, or are not any more; the latest first, so many at most."""
        least, end = (0, NEVER) if armed else (NEVER, 2 * NEVER)
        # The smallest numbers are those of the latest: what is looked for is the instant of arming below zero.
        columns = [
            [timeout - (deadline & ~NEVER) if least < deadline < end else NEVER for deadline, timeout in page.slots()]
            for page in self._pages
        ]
        return [seen for seen in self._least(columns, most)[0] if seen.armed is armed]

    def _least(self, columns: list[list[int]], most: int) -> tuple[list[Snapshot], int]:
        """The slots with the smallest numbers below `NEVER`, the smallest first; and how many have one.

        Sorting numbers alone is several times as fast as a heap of tuples, when there are thousands.
        """
        numbers = sorted(number for column in columns for number in column if number < NEVER)
        if not numbers:
            return [], 0
        limit = numbers[:most][-1]
        found = [
            (number, place, index)
            for place, column in enumerate(columns)
            for index, number in enumerate(column)
            if number <= limit
        ]
        seen = (self._pages[place].last(index) for _, place, index in sorted(found)[:most])
        return [each for each in seen if each is not None], len(numbers)

    def counts(self) -> dict[str, int]:
        """How often each scope was armed or restarted.

        Empty when that is not known: a slot was given to another scope, or there are too many to count.
        """
        if sum(page.used for page in self._pages) > _MOST_COUNTED or any(page.relabelled for page in self._pages):
            return {}
        counts: collections.Counter[str] = collections.Counter()
        for page in self._pages:
            tries = (page.counts() for _ in range(_TRIES))
            found = next((counted for counted in tries if counted is not None), None)
            if found is None:  # it changes all the time: its worker makes progress
                return {}
            counts += found
        return dict(counts)


def _look(
    page: PageReader, beat: int, now: int, credited: Credited, *, again_soon: bool
) -> tuple[list[tuple[int, int]], int]:
    # Raised before the deadlines are read: see the facts in unhang._core.page.
    look = min(beat, page.soon(now)) if again_soon else beat
    page.promise(look, now)
    earliest = page.look(now)
    expired: list[tuple[int, int]] = []
    if earliest <= now:
        expired, earliest = page.due(now, credited)
    if earliest < look:
        page.promise(earliest, now)
    elif look < beat:
        earliest = look
    return expired, earliest
