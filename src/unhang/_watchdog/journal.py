"""What has happened, as documents: the last of them for viewers, and each for those who observe."""

from __future__ import annotations

import collections
import itertools
import logging
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from unhang._core.clock import Clock, SystemClock
from unhang._watchdog.watched import Expired, Watched
from unhang.report.live import Event

logger = logging.getLogger("unhang.watchdog")

# Events that are kept for viewers; one that asks twice a second misses none.
_MOST = 4096
# Characters of a detail: a headline has fewer.
_LONGEST_DETAIL = 400

# Those that are about workers and reports, and not about timers that were due.
NOT_OF_TIMERS = frozenset({"started", "stopped", "connect", "disconnect", "lost watchdog", "report"})

Observer = Callable[[Event], None]


def event_of(event: str, worker: Watched | None, timers: list[Expired], now: float, **more: Any) -> Event:
    """An event about a worker and some of its timers, the earliest first, at a monotonic instant."""
    if worker is not None:
        identity = worker.origin.identity
        more |= {
            "pid": worker.pid,
            "number": worker.number,
            "rank": identity.rank,
            "host": identity.host,
            "job": identity.job,
            "attempt": identity.attempt,
        }
    if timers:
        first = timers[0]
        more = {"late": first.late} | more
        if worker is not None:
            more |= {"scope": first.scope, "timers": len(timers), "after": first.after, "running": first.running}
    more["detail"] = more.get("detail", "")[:_LONGEST_DETAIL]
    time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Event(time=time, event=event, at=now, **more)


class Journal:
    """The last events of a server, numbered from 0 on. It belongs to the server's loop.

    Args:
        observers: called with each event, in the loop; what they raise is logged.
        clock: monotonic time.
    """

    def __init__(self, observers: Iterable[Observer] = (), clock: Clock | None = None) -> None:
        self._observers = tuple(observers)
        self._clock = clock or SystemClock()
        self._events: collections.deque[Event] = collections.deque(maxlen=_MOST)
        self._next = 0

    def add(self, event: str, worker: Watched | None = None, timers: Iterable[Expired] = (), **more: Any) -> Event:
        """Write an event down, and tell the observers."""
        written = event_of(event, worker, list(timers), self._clock.now(), **more)
        self._events.append(written)
        self._next += 1
        for observer in self._observers:
            try:
                observer(written)
            except Exception:
                logger.exception("Error in an observer of the event %r", event)
        return written

    def since(self, serial: int, most: int) -> tuple[tuple[Event, ...], int, int]:
        """Events from a number on, so many at most; the number behind them; how many were forgotten before them.

        A number below 0 counts from the end.
        """
        oldest = self._next - len(self._events)
        if serial < 0:
            serial = max(oldest, self._next + serial)
        begin = min(max(serial, oldest), self._next)
        events = tuple(itertools.islice(self._events, begin - oldest, begin - oldest + most))
        return events, begin + len(events), max(0, begin - serial)

    @property
    def next(self) -> int:
        """The number that the next event will have."""
        return self._next
