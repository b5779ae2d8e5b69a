"""Which processes are a worker's: the decision, over rows of a table of processes.

A number that a member has is the member's in three columns: as a parent, as a session, and as a process group. Only
the process that has the number can make a session or a group of that name, and the kernel gives the number to nobody
else before both are empty. So these columns say who comes from a member, also when all between the two are gone and
the orphan has another parent.

Nobody enters a session from outside. A group can be entered, by a process of the same session: a shell puts all
commands of a pipeline into the group of the first. The group therefore counts for orphans alone: rows whose parent is
one to whom the kernel gives orphans, and not the parent of the worker, who may have other children there. What cannot
be told from an orphan of the worker is an orphan that somebody outside put into the worker's group, and that was
never seen here while its parent lived.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from unhang._core.pid_circle import Mark, PidCircle

# Members that have exited and are remembered, for the orphans that they leave in sessions and groups of theirs; so
# many more again that are not known to have led any.
_MOST_DEAD = 256


@dataclass(frozen=True, slots=True)
class Row:
    """One process, as the table had it at one moment."""

    pid: int
    parent: int
    group: int
    session: int
    start_time: float  # since boot, only to be compared
    exited: bool = False  # a zombie: it still has its number


@dataclass(frozen=True, slots=True)
class Kin:
    """A member: who it is, and how many generations below the worker it stands, as far as that is known."""

    pid: int
    start_time: float
    depth: int
    exited: bool = False


@dataclass(frozen=True, slots=True)
class Reading:
    """Rows that were read one after the other, between two marks. None: there is no circle to tell by."""

    rows: list[Row]
    began: Mark | None
    ended: Mark | None
    whole: bool = True  # all processes; else only some


class Family:
    """The members that are known, dead ones included as long as their numbers are nobody else's.

    Args:
        worker: the worker's own row.
        circle: what is known of the numbers; None where they are not given out in a circle.
        outside: never members, and what is theirs is not the worker's: the watchdog and its ancestors.
        shared: the watchdog's own session and group: whoever is there may be the watchdog's.
        met: the worker had its number at this mark.
    """

    def __init__(
        self,
        worker: Row,
        circle: PidCircle | None = None,
        outside: Iterable[int] = (),
        shared: Iterable[int] = (),
        met: Mark | None = None,
    ) -> None:
        self._worker = worker
        self._circle = circle
        self._outside = {0, 1, *outside}
        self._shared = frozenset(shared)
        self._parents = {worker.parent}  # those that the worker has had
        self._reapers = {1}
        self._guests: set[tuple[int, float]] = set()  # others that are in a group of a member
        self._kin = {worker.pid: Kin(worker.pid, worker.start_time, 0)}
        self._leaders: set[int] = set()  # members in whose session or group others are
        self._dead: dict[int, None] = {}
        self._dead_leaders: dict[int, None] = {}
        self._met = met

    def meet(self, reading: Reading, lives: Callable[[int], bool]) -> list[Kin]:
        """The members among these rows that were not known, each behind the one that it comes from.

        Args:
            reading: the table, or a part of it.
            lives: whether the member known by this pid still runs; asked now, after the rows were read.
        """
        table = {row.pid: row for row in reading.rows}
        self._forget(table, reading, lives)
        self._met = reading.began
        self._see_ancestors(table)
        strangers = [row for row in table.values() if row.pid not in self._kin and row.pid not in self._outside]
        # Children start after their parents: one turn finds them all, but for those that start within one tick.
        strangers.sort(key=lambda row: (row.start_time, row.pid))
        found: dict[int, Kin] = {}
        while more := self._grow(strangers, reading):
            found |= more
            strangers = [row for row in strangers if row.pid not in more]
        if reading.whole:
            self._guests &= {(row.pid, row.start_time) for row in strangers}
        self._guests |= {(row.pid, row.start_time) for row in strangers if row.group in self._kin}
        return list(found.values())

    def died(self, pid: int) -> None:
        """A member has exited. Those are remembered that were the last to exit, or the last to be come from."""
        if pid in self._kin:
            (self._dead_leaders if pid in self._leaders else self._dead)[pid] = None
        for dead in (self._dead, self._dead_leaders):
            while len(dead) > _MOST_DEAD:
                self.forget(next(iter(dead)))

    def forget(self, pid: int) -> None:
        """Take a process for one that was never seen; if it is a member, it will be found again."""
        for known in (self._kin, self._dead, self._dead_leaders):
            known.pop(pid, None)
        self._leaders.discard(pid)

    def _forget(self, table: Mapping[int, Row], reading: Reading, lives: Callable[[int], bool]) -> None:
        """Drop the members whose numbers may be somebody else's by now."""
        for pid in table.keys() & self._kin.keys():
            if not _row_of(self._kin[pid], table):
                self.forget(pid)
        doubtful = [kin for kin in self._passed(reading.ended) if not lives(kin.pid)]
        used = self._numbers_in_use(table, lives) if doubtful else set()
        for kin in doubtful:
            if kin.pid not in used or self._may_be_anothers(kin, reading):
                self.forget(kin.pid)

    def _passed(self, now: Mark | None) -> list[Kin]:
        """Members whose numbers may have been given to others since the last meeting, if they are gone."""
        if self._circle is None or self._met is None or now is None:
            return list(self._kin.values())
        numbers = self._circle.given(self._met, now)
        if numbers is None:
            return list(self._kin.values())
        # The circle comes past the place of one that has started meanwhile to give it the number.
        since = self._met.ticks
        return [kin for number in numbers if (kin := self._kin.get(number)) and kin.start_time < since]

    def _may_be_anothers(self, kin: Kin, reading: Reading) -> bool:
        """Whether the number may have been given to another while the rows were read."""
        if self._circle is None or reading.began is None or reading.ended is None:
            return False
        numbers = self._circle.given(reading.began, reading.ended)
        return numbers is None or (kin.pid in numbers and kin.start_time < reading.began.ticks)

    def _numbers_in_use(self, table: Mapping[int, Row], lives: Callable[[int], bool]) -> set[int]:
        """Numbers that members have kept from being given again, and those of zombies."""
        rows = [row for kin in self._kin.values() if (row := _row_of(kin, table))]
        living = [row for row in rows if lives(row.pid)]
        return {row.pid for row in rows} | {row.session for row in living} | {row.group for row in living}

    def _see_ancestors(self, table: Mapping[int, Row]) -> None:
        """Note to whom the worker's orphans may go, and that these are not the worker's."""
        row = _row_of(self._worker, table)
        if row is not None:
            self._parents.add(row.parent)
        while row and (row := table.get(row.parent)) and row.pid not in {*self._reapers, self._worker.pid}:
            self._reapers.add(row.pid)
            self._outside.add(row.pid)

    def _grow(self, strangers: list[Row], reading: Reading) -> dict[int, Kin]:
        found = {}
        for row in strangers:
            head = self._head_of(row)
            if head is None:
                continue
            kin = found[row.pid] = Kin(row.pid, row.start_time, head.depth + 1, row.exited)
            # If its number may have become another's while the rows were read, nothing is concluded from it yet.
            if not self._may_be_anothers(kin, reading):
                self._kin[row.pid] = kin
        return found

    def _head_of(self, row: Row) -> Kin | None:
        """The member that a row comes from."""
        for number in self._origins(row):
            head = self._kin.get(number)
            if head is not None and number != row.pid and row.start_time >= head.start_time:
                self._note_leaders(row)
                return head
        return None

    def _note_leaders(self, row: Row) -> None:
        for number in {row.session, row.group} & self._kin.keys():
            self._leaders.add(number)
            if number in self._dead or number in self._dead_leaders:
                self._dead.pop(number, None)
                self._dead_leaders.pop(number, None)
                self._dead_leaders[number] = None  # at the end: the first are forgotten first

    def _origins(self, row: Row) -> Iterable[int]:
        yield row.parent
        if row.session not in self._shared:
            yield row.session
        is_orphan = row.parent in self._reapers and row.parent not in self._parents
        if is_orphan and row.group not in self._shared and (row.pid, row.start_time) not in self._guests:
            yield row.group


def _row_of(who: Kin | Row, table: Mapping[int, Row]) -> Row | None:
    """The row of this process, not of one that has its number."""
    row = table.get(who.pid)
    return row if row is not None and row.start_time == who.start_time else None
