"""What is measured of a watchdog and its workers: the names of the metrics, what they mean, and where they come from.

Pure; how they are written for Prometheus is in `unhang.observe.metrics`.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from unhang._core.durations import SHORTEST_OCTAVE, bounds_of
from unhang._core.histogram import Durations, Histogram
from unhang.observe import health
from unhang.observe.counters import Counters, Spread, by_kind
from unhang.observe.labels import ScopeLabels, label_of
from unhang.observe.picture import Picture

# Every second power of two of nanoseconds, from 1 ms to 73 min: the buckets of durations end there, so none is split.
_DURATION_ENDS = range(20, 43, 2)
# The durations in a bucket are taken as its middle.
_MIDDLE = 0.5
_SECOND = 1e9


@dataclass
class State:
    """What there is to measure. Not thread-safe.

    Attributes:
        limits: what is well.
        counters: what has happened.
        picture: the last look; None while the watchdog does not answer.
        durations: how long blocks took, by scope, if that is learned.
        labels: of the scopes.
    """

    limits: health.Limits = health.DEFAULT
    counters: Counters = field(default_factory=Counters)
    picture: Picture | None = None
    durations: Mapping[str, Durations] = field(default_factory=dict)
    labels: ScopeLabels = field(default_factory=ScopeLabels)

    @functools.cached_property
    def by_label(self) -> dict[str, list[Durations]]:
        """What was learned, by the labels of the scopes."""
        counts = {scope: each.count for scope, each in self.durations.items()}
        found: dict[str, list[Durations]] = {}
        for scope, label in self.labels.of(counts).items():
            found.setdefault(label, []).append(self.durations[scope])
        return found


@dataclass(frozen=True)
class Cumulated:
    """The sample of a histogram.

    Attributes:
        buckets: upper bound → how many lie below it; the last bound is ``+Inf``.
        total: the sum of all.
    """

    buckets: list[tuple[str, int]]
    total: float


Sample = tuple[tuple[str, ...], float | Cumulated]


@dataclass(frozen=True)
class Measure:
    """One metric.

    Attributes:
        name: as Prometheus has it.
        kind: ``gauge``, ``counter`` or ``histogram``.
        help: what it means.
        labels: the names of its labels.
        read: its samples: the values of the labels, and the value.
    """

    name: str
    kind: str
    help: str
    labels: tuple[str, ...]
    read: Callable[[State], Iterable[Sample]]


def _one(value: float | Cumulated) -> list[Sample]:
    return [((), value)]


def _seen(read: Callable[[Picture], float]) -> Callable[[State], list[Sample]]:
    """A number that can be read from a picture, if there is one."""
    return lambda state: [] if state.picture is None else _one(read(state.picture))


def _cumulated(spread: Spread) -> list[Sample]:
    return _one(Cumulated(spread.cumulative(), spread.total))


def _counted(counts: Mapping[str, int]) -> list[Sample]:
    return [((label,), count) for label, count in counts.items()]


def _is_ready(state: State) -> bool:
    return state.picture is not None and not health.why_not(state.picture, state.limits)


def _longest_stall(state: State) -> list[Sample]:
    if state.picture is None:
        return []
    return _one(max((health.stall(row, state.limits) for row in state.picture.rows), default=0.0))


def _nearest_deadline(state: State) -> list[Sample]:
    rows = () if state.picture is None else state.picture.rows
    left = [row.left for row in rows if row.armed]
    return _one(min(left)) if left else []


def _stalled(state: State) -> list[Sample]:
    return [] if state.picture is None else _one(len(health.stalled(state.picture, state.limits)))


def _dropped(state: State) -> list[Sample]:
    return [] if state.picture is None else _counted(by_kind(state.picture.watchdog.dropped))


def _info(state: State) -> list[Sample]:
    if state.picture is None:
        return []
    watchdog = state.picture.watchdog
    return [((label_of(watchdog.version), label_of(watchdog.host)), 1)]


def _durations(state: State) -> list[Sample]:
    return [((label,), _of_steady(each)) for label, each in state.by_label.items()]


def _of_steady(known: list[Durations]) -> Cumulated:
    counts = functools.reduce(Histogram.merge, (each.steady for each in known)).counts
    buckets = [(str((1 << end) / _SECOND), sum(counts[: (end - SHORTEST_OCTAVE) * 4])) for end in _DURATION_ENDS]
    total = sum(count * _MIDDLE * sum(bounds_of(bucket)) for bucket, count in enumerate(counts) if count)
    return Cumulated([*buckets, ("+Inf", sum(counts))], total / _SECOND)


def _longest(state: State) -> list[Sample]:
    return [((label,), max(each.steady.longest for each in known) / _SECOND) for label, known in state.by_label.items()]


def _budgets(state: State) -> list[Sample]:
    budgets = {label: max(each.budget for each in known) for label, known in state.by_label.items()}
    return [((label,), budget / _SECOND) for label, budget in budgets.items() if budget]


MEASURES = (
    Measure(
        "unhang_watchdog_up", "gauge", "1 while the watchdog answers.", (),
        lambda state: _one(state.picture is not None),
    ),
    Measure("unhang_ready", "gauge", "1 while all is well, as /readyz says.", (), lambda state: _one(_is_ready(state))),
    Measure("unhang_watchdog_info", "gauge", "1; the version and the host.", ("version", "host"), _info),
    Measure(
        "unhang_watchdog_start_time_seconds", "gauge", "When the watchdog was started, seconds of Unix time.", (),
        _seen(lambda picture: time.time() - time.monotonic() + picture.watchdog.started),
    ),
    Measure("unhang_workers", "gauge", "Workers that are connected.", (), _seen(lambda picture: len(picture.rows))),
    Measure(
        "unhang_workers_wanted", "gauge", "Workers that have to be connected: --min-workers.", (),
        lambda state: _one(state.limits.min_workers),
    ),
    Measure(
        "unhang_workers_stalled", "gauge", "Workers without progress for longer than --max-stall.", (), _stalled,
    ),
    Measure(
        "unhang_longest_stall_seconds", "gauge", "The longest time that a worker has been without progress in a block.",
        (), _longest_stall,
    ),
    Measure(
        "unhang_timers", "gauge", "Timers that are armed.", (),
        _seen(lambda picture: sum(row.timers for row in picture.rows)),
    ),
    Measure(
        "unhang_nearest_deadline_seconds", "gauge",
        "Time until the first armed timer expires; not there when none is armed.", (), _nearest_deadline,
    ),
    Measure(
        "unhang_armings_total", "counter", "How often timers were armed or restarted.", (),
        lambda state: _one(state.counters.armings),
    ),
    Measure(
        "unhang_expirations_total", "counter", "Workers that were found behind a deadline, by what became of it.",
        ("outcome",), lambda state: _counted(state.counters.expirations),
    ),
    Measure(
        "unhang_near_misses_total", "counter",
        "Workers that left a block behind its deadline, just before the first signal.", (),
        lambda state: _one(state.counters.near_misses),
    ),
    Measure(
        "unhang_kills_total", "counter", "Workers that were asked to end, by the first signal and how they hung.",
        ("signal", "class"), lambda state: list(state.counters.kills.items()),
    ),
    Measure(
        "unhang_kill_endings_total", "counter",
        "How that ended: ended or unkillable, by the last signal and how they hung.",
        ("outcome", "signal", "class"), lambda state: list(state.counters.endings.items()),
    ),
    Measure(
        "unhang_expiry_lateness_seconds", "histogram", "Time from a deadline until the watchdog judged it.", (),
        lambda state: _cumulated(state.counters.lateness),
    ),
    Measure(
        "unhang_kill_delay_seconds", "histogram", "Time from a deadline until the first signal, evidence included.", (),
        lambda state: _cumulated(state.counters.delay),
    ),
    Measure(
        "unhang_block_duration_seconds", "histogram",
        "How long blocks took, by scope, without the first one of each process; with --learn.", ("scope",), _durations,
    ),
    Measure(
        "unhang_block_longest_seconds", "gauge", "The longest of these blocks; with --learn.", ("scope",), _longest,
    ),
    Measure(
        "unhang_block_budget_seconds", "gauge", "The timeout that these blocks had last; with --learn.", ("scope",),
        _budgets,
    ),
    Measure(
        "unhang_learned_scopes", "gauge", "Scopes whose durations are known; with --learn.", (),
        lambda state: _one(len(state.durations)),
    ),
    Measure(
        "unhang_events_total", "counter", "Events, by kind.", ("event",), lambda state: _counted(state.counters.events)
    ),
    Measure(
        "unhang_events_missed_total", "counter", "Events that were forgotten before they could be counted.", (),
        lambda state: _one(state.counters.missed),
    ),
    Measure(
        "unhang_watchdog_turns_total", "counter", "Turns of the watchdog's loop.", (),
        _seen(lambda picture: picture.watchdog.turns),
    ),
    Measure(
        "unhang_watchdog_busy_seconds_total", "counter", "Time that the watchdog's loop has worked.", (),
        _seen(lambda picture: picture.watchdog.busy),
    ),
    Measure(
        "unhang_watchdog_longest_turn_seconds", "gauge", "The longest turn in the last minute or two.", (),
        _seen(lambda picture: picture.watchdog.longest),
    ),
    Measure(
        "unhang_watchdog_look_age_seconds", "gauge", "Time since the watchdog's loop turned last.", (),
        _seen(lambda picture: max(0.0, picture.at - picture.watchdog.looked)),
    ),
    Measure(
        "unhang_watchdog_oversleeps_total", "counter", "How often the watchdog was away when it should have looked.",
        (), _seen(lambda picture: picture.watchdog.overslept),
    ),
    Measure(
        "unhang_watchdog_overslept_seconds_total", "counter", "Time that was given back to deadlines for that.", (),
        _seen(lambda picture: picture.watchdog.overslept_time),
    ),
    Measure(
        "unhang_watchdog_dropped_total", "counter", "What the watchdog refused or left out, by kind.", ("kind",),
        _dropped,
    ),
)  # fmt: skip
