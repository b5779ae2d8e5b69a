"""A worker's timers, taken down at one moment."""

from __future__ import annotations

import collections
from dataclasses import dataclass

from unhang._core.page import Snapshot
from unhang._watchdog.watched import Watched
from unhang.report.model import Block

_SECOND = 1e9
# Timers of one worker in a report: armed, and left.
_MOST_ARMED = 32
_MOST_FINISHED = 16


@dataclass(frozen=True)
class Timers:
    """A worker's timers at one moment; instants in nanoseconds of the monotonic clock.

    Attributes:
        at: the moment.
        armed: the earliest armed first.
        finished: the last that were left, the latest armed first.
        counts: how often each scope was armed; empty if that is not known.
        sequence: how often all of them were.
        quiet_since: when one was armed or disarmed last; a beat late at most.
    """

    at: int
    armed: tuple[Snapshot, ...]
    finished: tuple[Snapshot, ...]
    counts: dict[str, int]
    sequence: int
    quiet_since: int

    @classmethod
    def of(cls, worker: Watched, now: int) -> Timers:
        """Read the pages of a worker."""
        slots = [seen for page in worker.pages for seen in page.latest(_MOST_ARMED + _MOST_FINISHED)]
        slots.sort(key=lambda seen: seen.armed_at, reverse=True)
        armed = [seen for seen in slots if seen.armed][:_MOST_ARMED]
        counts: collections.Counter[str] = collections.Counter()
        if not any(page.relabelled for page in worker.pages):
            for seen in slots:
                counts[seen.scope] += seen.count
        quiet_since = slots[0].armed_at if slots and slots[0].armed else worker.changed_at
        return cls(
            now,
            tuple(reversed(armed)),
            tuple(seen for seen in slots if not seen.armed)[:_MOST_FINISHED],
            dict(counts),
            sum(page.sequence for page in worker.pages),
            quiet_since,
        )

    def blocks(self, began: float, *, finished: bool) -> tuple[Block, ...]:
        """As a report has them, counting from ``began`` (monotonic seconds)."""
        return tuple(
            Block(
                scope=seen.scope,
                after=seen.timeout / _SECOND,
                started=seen.armed_at / _SECOND - began,
                expired=seen.armed and seen.deadline <= self.at,
                finished=not seen.armed,
                count=self.counts.get(seen.scope, 0),
                deadline=seen.deadline / _SECOND - began,
            )
            for seen in (self.finished if finished else self.armed)
        )
