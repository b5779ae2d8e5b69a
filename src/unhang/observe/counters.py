"""What has happened at a watchdog since its viewer came, as numbers that only grow.

Nothing a worker says decides how many numbers there are: kinds of events, signals and classes are from fixed sets, and
what is in none of them is ``other``.
"""

from __future__ import annotations

import bisect
import signal
from collections import Counter
from collections.abc import Iterable, Sequence

from unhang.observe.labels import OTHER, label_of
from unhang.observe.picture import Picture
from unhang.report.live import Event
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
        armings: how often timers were armed or restarted, from when a worker was seen first.
        missed: events that were forgotten before they could be counted.
    """

    def __init__(self) -> None:
        self.events: Counter[str] = Counter(dict.fromkeys(EVENTS, 0))
        self.expirations: Counter[str] = Counter(dict.fromkeys(OUTCOMES.values(), 0))
        self.kills: Counter[tuple[str, str]] = Counter()
        self.endings: Counter[tuple[str, str, str]] = Counter()
        self.near_misses = 0
        self.lateness = Spread(LATENESS)
        self.delay = Spread(DELAY)
        self.armings = 0
        self.missed = 0
        self._sequences: dict[int, int] = {}

    def see(self, picture: Picture) -> None:
        """Count what is new in a picture."""
        self.missed = picture.missed
        for event in picture.events:
            self._count(event)
        self._count_armings({row.info.number: row.sequence for row in picture.rows})

    def _count(self, event: Event) -> None:
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
        if kind in ("ended", "unkillable"):
            self.endings[kind, one_of(event.signal, SIGNALS), _class_of(event)] += 1

    def _count_armings(self, sequences: dict[int, int]) -> None:
        # A worker may write any number into its page: one that falls is taken as new, as a counter's reset would be.
        self.armings += sum(max(0, now - self._sequences.get(number, 0)) for number, now in sequences.items())
        self._sequences = sequences


def one_of(value: str, known: Iterable[str]) -> str:
    """The value, if it is known, else ``other``."""
    return value if value in known else OTHER


def by_kind(dropped: dict[str, int]) -> dict[str, int]:
    """What was dropped, in a bounded number of kinds: their names are the watchdog's, but may have details in them."""
    found: Counter[str] = Counter()
    for place, (kind, count) in enumerate(dropped.items()):
        found[label_of(kind) if place < _MOST_KINDS else OTHER] += count
    return found


def _class_of(event: Event) -> str:
    return one_of(event.hang or HangClass.UNKNOWN.value, CLASSES)
