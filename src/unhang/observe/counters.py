"""What has happened at a watchdog since its viewer came, as numbers that only grow.

Nothing a worker says decides how many numbers there are: kinds of events, signals and classes are from fixed sets, and
what is in none of them is ``other``.
"""

from __future__ import annotations

import bisect
import itertools
import math
import signal
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from unhang.observe.labels import OTHER, label_of
from unhang.observe.picture import Picture, Row
from unhang.report.live import Event, Watchdog
from unhang.report.model import HangClass

EVENTS = (
    "started", "stopped", "connect", "disconnect", "lost watchdog", "report", "killed", "ended", "unkillable",
    "expired", "pretimeout", "near miss", "held", "refused", "failed", "died", "overslept",
)  # fmt: skip
# What became of a worker that was found behind its deadline, by the event that says so.
OUTCOMES = {
    "killed": "killed",
    "expired": "observed",
    "near miss": "spared",
    "held": "held",
    "refused": "refused",
    "failed": "failed",
}
SIGNALS = tuple(each.name for each in signal.Signals)
CLASSES = tuple(each.value for each in HangClass)
# What workers are usually sent: counted from 0 on, so that the first kill is an increase of something that was there.
_USUAL = ("SIGTERM", "SIGKILL")
ENDINGS = ("ended", "unkillable")
# What a watchdog says that it has dropped; from 0 on as well.
DROPPED = (
    "bad message", "connections to close", "damaged page", "descriptors", "messages", "refused", "silent connections",
    "worker not identified",
)  # fmt: skip
# Kinds of what the watchdog drops that are told apart, besides ``other``.
_MOST_KINDS = 32

# Seconds. A watchdog is late by a millisecond, or by hundreds when its host is.
LATENESS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
# Evidence lies between the deadline and the first signal, two seconds at most by default.
DELAY = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Spread:
    """How many values lie below each of some bounds.

    Attributes:
        bounds: the upper bounds, growing; a value that equals one lies below it.
        total: the sum of all values.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.total = 0.0
        self._counts = [0] * (len(self.bounds) + 1)

    def add(self, value: float) -> None:
        """One more; a negative one counts as 0."""
        value = max(0.0, value)
        self._counts[bisect.bisect_left(self.bounds, value)] += 1
        self.total += value

    def cumulative(self) -> list[tuple[str, int]]:
        """For each bound, as text, how many lie below it, and last of all how many there are."""
        found, below = [], 0
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self._counts, strict=True):
            below += count
            found.append((bound, below))
        return found


class Counters:
    """Counts what pictures show. Not thread-safe.

    Attributes:
        events: by kind.
        expirations: by outcome.
        kills: by the signal that was sent first, and class.
        endings: by ``ended`` or ``unkillable``, the signal that was sent last, and class.
        near_misses: how many there were.
        lateness: seconds from deadlines until they were judged.
        delay: seconds from deadlines until the first signal.
        armings: how often timers were armed or restarted; of a worker that had another watchdog before, from when it
            was seen first.
        missed: events that were forgotten before they could be counted.
    """

    def __init__(self) -> None:
        self.events: Counter[str] = Counter(dict.fromkeys(EVENTS, 0))
        self.expirations: Counter[str] = Counter(dict.fromkeys(OUTCOMES.values(), 0))
        self.kills: Counter[tuple[str, str]] = Counter(dict.fromkeys(itertools.product(_USUAL, CLASSES), 0))
        self.endings: Counter[tuple[str, str, str]] = Counter(
            dict.fromkeys(itertools.product(ENDINGS, _USUAL, CLASSES), 0)
        )
        self.near_misses = 0
        self.lateness = Spread(LATENESS)
        self.delay = Spread(DELAY)
        self.armings = 0
        self.missed = 0
        self._missed_before = 0
        # Of each worker: how often its timers were armed, and how often of that before this watchdog came to watch it.
        self._sequences: dict[int, tuple[int, int]] = {}
        # Which watchdog was seen; the instant of the last event that was counted, and how many were of that instant.
        self._watchdog: tuple[int, float] | None = None
        self._counted_to = -math.inf
        self._at_once = 0
        self._is_retold = False

    def begin_anew(self) -> None:
        """The next picture is of a new view, which is told again what was counted before: only the rest is new."""
        self._is_retold = True
        self._missed_before = self.missed

    def see(self, picture: Picture) -> None:
        """Count what is new in a picture."""
        self._meet(picture.watchdog)
        self.missed = self._missed_before + picture.missed
        for event in self._new(picture.events) if self._is_retold else picture.events:
            self._count(event)
        self._count_armings(picture.rows)
        self._is_retold = False

    def _meet(self, watchdog: Watchdog) -> None:
        """All that another watchdog tells is news, and its workers have other numbers."""
        identity = (watchdog.pid, watchdog.started)
        if identity != self._watchdog:
            self._watchdog = identity
            self._sequences = {}
            self._counted_to = -math.inf

    def _new(self, events: Iterable[Event]) -> Iterator[Event]:
        """Those behind the last one that was counted. They come in the order in which they happened."""
        to, again = self._counted_to, self._at_once
        for event in events:
            if event.at == to and again > 0:
                again -= 1
            elif event.at >= to:
                yield event

    def _count(self, event: Event) -> None:
        self._at_once = self._at_once + 1 if event.at == self._counted_to else 1
        self._counted_to = event.at
        kind = one_of(event.event, EVENTS)
        self.events[kind] += 1
        outcome = OUTCOMES.get(kind)
        if outcome is not None:
            self.expirations[outcome] += 1
            if event.late is not None and kind != "held":
                self.lateness.add(event.late)
        if kind == "near miss":
            self.near_misses += 1
        if kind == "killed":
            self.kills[one_of(event.signal, SIGNALS), _class_of(event)] += 1
            if event.waited is not None:
                self.delay.add(event.waited)
        if kind in ENDINGS:
            self.endings[kind, one_of(event.signal, SIGNALS), _class_of(event)] += 1

    def _count_armings(self, rows: Iterable[Row]) -> None:
        """Count what timers were armed since the look before; of one who had another watchdog before, from here on."""
        # A worker may write any number into its page: one that falls is taken as new, as a counter's reset would be.
        self.armings += sum(max(0, row.sequence - self._begin(row)) for row in rows)
        self._sequences = {row.info.number: (row.sequence, row.inherited) for row in rows}

    def _begin(self, row: Row) -> int:
        """How often the timers of a worker had been armed when they were counted last."""
        sequence, inherited = self._sequences.get(row.info.number, (0, 0))
        if self._is_retold and row.info.number in self._sequences:
            return sequence  # what a new view inherits was counted before
        return sequence + max(0, row.inherited - inherited)


def one_of(value: str, known: Iterable[str]) -> str:
    """The value, if it is known, else ``other``."""
    return value if value in known else OTHER


def by_kind(dropped: dict[str, int]) -> dict[str, int]:
    """What was dropped, in a bounded number of kinds: their names are the watchdog's, but may have details in them.

    Those that are known are always there.
    """
    found: Counter[str] = Counter()
    for place, (kind, count) in enumerate((dict.fromkeys(DROPPED, 0) | dropped).items()):
        found[label_of(kind) if place < _MOST_KINDS else OTHER] += count
    return found


def _class_of(event: Event) -> str:
    return one_of(event.hang or HangClass.UNKNOWN.value, CLASSES)
