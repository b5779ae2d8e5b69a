"""A worker's timers, taken down at one moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unhang._core.page_reader import PageReader, Snapshot
from unhang._watchdog.watched import Expired, Watched
from unhang.report.model import Block

_SECOND = 1e9
# Timers of one worker in a report: those that it is about, those nearest to their deadlines, those
# that were armed last, and those that were left last. However many there are, the first ones are among them.
_MOST_DUE = 8
_MOST_NEAR = 32
_MOST_LATEST = 8
_MOST_FINISHED = 16


@dataclass(frozen=True)
class Armed:
    """An armed timer.

    Attributes:
        seen: its slot.
        deadline: with what was given back to it.
        is_due: whether it has expired, or its pretimeout has come, as the watch has found.
    """

    seen: Snapshot
    deadline: int
    is_due: bool = False


@dataclass(frozen=True)
class Timers:
    """A worker's timers at one moment; instants in nanoseconds of the monotonic clock.

    Attributes:
        at: the moment.
        armed: some of them, the earliest armed first.
        finished: the last that were left, the latest armed first.
        counts: how often each scope was armed; empty if that is not known.
        sequence: how often all of them were.
        quiet_since: when one was armed or disarmed last; a beat late at most.
        total: how many are armed.
    """

    at: int
    armed: tuple[Armed, ...]
    finished: tuple[Snapshot, ...]
    counts: dict[str, int]
    sequence: int
    quiet_since: int
    total: int = 0

    @classmethod
    def of(cls, worker: Watched, now: int, due: Sequence[Expired] = ()) -> Timers:
        """Read the timers of a worker.

        Args:
            worker: whose.
            now: this instant.
            due: those that the watch has just found to have expired, or to be near, the earliest first.
        """
        timers = worker.timers
        judged = [timer.seen for timer in due[:_MOST_DUE] if timer.seen is not None]
        near, total = timers.nearest(_MOST_NEAR)
        latest = timers.latest(_MOST_LATEST, armed=True)
        finished = timers.latest(_MOST_FINISHED, armed=False)
        # One that was left since it was judged is in it as it was then: it is what the report is about.
        armed: dict[tuple[PageReader, int, int], Armed] = {}
        for seen in (*judged, *near, *latest):
            armed.setdefault(seen.arming, Armed(seen, worker.deadline_of(seen), is_due=len(armed) < len(judged)))
        last = latest[0].armed_at if latest else 0
        is_last_armed = bool(latest) and (not finished or last >= finished[0].armed_at)
        return cls(
            now,
            tuple(sorted(armed.values(), key=lambda each: each.seen.armed_at)),
            tuple(finished),
            timers.counts(),
            timers.sequence,
            last if is_last_armed else worker.changed_at,
            max(total, len(armed)),
        )

    def blocks(self, began: float) -> tuple[Block, ...]:
        """Those that are armed as a report has them, counting from ``began`` (monotonic seconds)."""
        return tuple(
            self._block(each.seen, each.deadline, began, expired=each.deadline <= self.at, due=each.is_due)
            for each in self.armed
        )

    def left_blocks(self, began: float) -> tuple[Block, ...]:
        """Those that were left, likewise."""
        return tuple(self._block(seen, seen.deadline, began, finished=True) for seen in self.finished)

    def _block(
        self,
        seen: Snapshot,
        deadline: int,
        began: float,
        *,
        expired: bool = False,
        finished: bool = False,
        due: bool = False,
    ) -> Block:
        return Block(
            scope=seen.scope,
            after=seen.timeout / _SECOND,
            started=seen.armed_at / _SECOND - began,
            expired=expired,
            finished=finished,
            due=due,
            count=self.counts.get(seen.scope, 0),
            deadline=deadline / _SECOND - began,
        )
