"""Where everything of a timeline of workers goes: pure geometry, in the units of an SVG picture.

Some facts about the picture:

- One row a worker, in the order of their ranks, with the departed in between. Blocks that overlap have lanes of it.
- Time goes to the right, to scale. It begins with the earliest block, unless that is far before those that expired.
- When a block was left is not known. It is drawn up to the next block of the same worker, which is when it had been
  left at the latest.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import msgspec

from unhang.report import about, words
from unhang.report.model import Block, Departed, Report, Worker

WIDTH = 1120.0
LEFT = 132.0
RIGHT = WIDTH - 20.0
TOP = 30.0
MOST_ENLARGED = 16
MOST_ROWS = 256
MOST_GONE = 16
_MOST_LANES = 4
_GAP = 3.0
# So many times as far back as the first block that expired; what was before is cut off.
_BACK = 3.0
# Seconds a tick apart; from a day on, days.
_STEPS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800)
_STEPS_LONG = (3600, 7200, 14400, 28800, 86400)
_FARTHEST = 1e9
# Of a letter in a bar, about.
_LETTER = 6.6
# Of a mark.
_MARK = 6.0
_MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Bar:
    """A block. ``kind`` is ``expired``, ``armed`` or ``finished``; ``cut`` if it began before the picture does."""

    x: float
    y: float
    width: float
    height: float
    kind: str
    label: str
    title: str
    deadline: float | None
    cut: bool


@dataclass(frozen=True)
class Mark:
    """Something that was done about a worker, or its end: ``kind`` names its shape."""

    x: float
    y: float
    kind: str
    title: str


@dataclass(frozen=True)
class Row:
    """One worker: ``role`` is ``culprit``, ``victim``, ``departed`` or empty; ``more`` blocks had no room."""

    y: float
    height: float
    label: str
    note: str
    role: str
    bars: tuple[Bar, ...]
    marks: tuple[Mark, ...]
    more: int

    @property
    def middle(self) -> float:
        """The y of its middle."""
        return self.y + self.height / 2


@dataclass(frozen=True)
class Tick:
    """A line across all rows, and what stands over it."""

    x: float
    label: str


@dataclass(frozen=True)
class Timeline:
    """The picture; ``zero`` is the x of the first expiry, None if it is outside."""

    height: float
    bottom: float
    zero: float | None
    ticks: tuple[Tick, ...]
    rows: tuple[Row, ...]
    start: float
    end: float

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of marks and bars that are in it, for a legend; ``culprit`` is a bar of one."""
        bars = {
            "culprit" if row.role == "culprit" and bar.kind != "finished" else bar.kind
            for row in self.rows
            for bar in row.bars
        }
        deadline = {"deadline" for row in self.rows for bar in row.bars if bar.deadline is not None}
        return frozenset(bars | deadline | {mark.kind for row in self.rows for mark in row.marks})


def timelines(report: Report) -> tuple[Timeline, ...]:
    """The whole picture; if what happened after the expiry is a small part of it, that again by itself.

    The second one has the first sixteen workers that something was done about.
    """
    start, end = span(report)
    whole = timeline(report, start, end)
    touched = tuple(worker for worker in report.workers if worker.steps)[:MOST_ENLARGED]
    if touched and 0.02 < end < 0.12 * (end - start):
        return whole, timeline(msgspec.structs.replace(report, workers=touched, departed=()), -0.15 * end, end)
    return (whole,)


def span(report: Report) -> tuple[float, float]:
    """The instants at which the picture begins and ends."""
    end = max([at for at in _ends(report) if _usual(at)], default=0.0)
    end = max(end, 0.0)
    armed = [block for worker in report.workers for block in worker.blocks if _usual(block.started)]
    first = min([block.started for block in armed if block.expired] or [block.started for block in armed] or [end - 1])
    starts = [block.started for worker in report.workers for block in (*worker.blocks, *worker.finished)]
    starts += [worker.at for worker in report.departed]
    length = max(end - first, 1e-3)
    start = max(min((at for at in starts if _usual(at)), default=first), end - _BACK * length)
    start = min(start, end - 1e-3)
    room = 0.02 * (end - start)
    return start - room, end + room


def _ends(report: Report) -> Iterator[float]:
    """What the picture shows at its end."""
    for worker in report.workers:
        yield from (step.at for step in worker.steps)
        if worker.evidence:
            yield worker.evidence.at
        soon = report.kind == "pretimeout" and worker.evidence is not None
        yield from (about.deadline(block) for block in worker.blocks if block.expired or soon)
    yield from (worker.at for worker in report.departed)


def _usual(at: float) -> bool:
    return math.isfinite(at) and abs(at) < _FARTHEST


@dataclass(frozen=True)
class _Scale:
    start: float
    end: float

    def x(self, at: float) -> float:
        share = (at - self.start) / (self.end - self.start) if math.isfinite(at) else 0.0
        return round(LEFT + min(max(share, 0.0), 1.0) * (RIGHT - LEFT), 2)

    def has(self, at: float) -> bool:
        return self.start <= at <= self.end


def timeline(report: Report, start: float, end: float) -> Timeline:
    """The picture of what was between two instants, ``start`` before ``end``."""
    scale = _Scale(start, end)
    y = TOP
    rows = []
    workers = _in_order(report)
    height = _lane_height(len(workers))
    for worker in workers:
        row = _row(report, worker, scale, y, height)
        rows.append(row)
        y += row.height + _GAP
    ticks = tuple(Tick(scale.x(at), label) for at, label in _ticks(start, end))
    zero = scale.x(0.0) if scale.has(0.0) else None
    return Timeline(y + 4, y, zero, ticks, tuple(rows), start, end)


def _in_order(report: Report) -> list[Worker | Departed]:
    everybody: list[Worker | Departed] = [*report.workers[:MOST_ROWS], *report.departed[:MOST_GONE]]
    return sorted(everybody, key=lambda worker: (worker.rank is None, worker.rank or 0))


def _lane_height(rows: int) -> float:
    return 22.0 if rows <= 12 else 16.0 if rows <= 32 else 12.0


def _row(report: Report, worker: Worker | Departed, scale: _Scale, y: float, height: float) -> Row:
    lanes, more = _lanes(worker, scale)
    shown = max(1, len(lanes))
    step = height if shown == 1 else max(10.0, height * 0.75)
    bars = [
        _bar(block, until, scale, y + index * step, step - 1)
        for index, lane in enumerate(lanes)
        for block, until in lane
    ]
    total = step * shown
    return Row(
        y=y,
        height=total,
        label=words.who([worker]),
        note="" if worker.rank is None else f"pid {worker.pid}",
        role=_role(report, worker),
        bars=tuple(bars),
        marks=tuple(_marks(worker, scale, y + total / 2)),
        more=more,
    )


def _role(report: Report, worker: Worker | Departed) -> str:
    if worker.pid in report.verdict.culprits:
        return "culprit"
    if isinstance(worker, Departed):
        return "departed"
    return "victim" if worker.pid in report.verdict.victims else "stuck" if worker.expired else ""


def _end(worker: Worker | Departed, scale: _Scale) -> float:
    """When a worker stopped, if it did."""
    if isinstance(worker, Departed):
        return worker.at
    ends = [step.at for step in worker.steps if step.what in ("dead", "SIGKILL")]
    return max(ends, default=scale.end)


def _lanes(worker: Worker | Departed, scale: _Scale) -> tuple[list[list[tuple[Block, float]]], int]:
    """The blocks with their ends, those that overlap in lanes of their own; and how many had no lane left."""
    finished = worker.finished if isinstance(worker, Worker) else ()
    blocks = sorted((*worker.blocks, *finished), key=lambda block: (block.started, -block.after))
    end = _end(worker, scale)
    lanes: list[list[tuple[Block, float]]] = []
    more = 0
    # A lane is kept for the one that the report is about.
    awaited = about.block_of(worker)
    for block, following in itertools.zip_longest(blocks, blocks[1:]):
        if block is awaited:
            awaited = None
        until = min(following.started, end) if block.finished and following else end
        if until < scale.start or block.started > scale.end:
            continue
        free = next((lane for lane in lanes if lane[-1][1] <= block.started), None)
        if free is not None:
            free.append((block, until))
        elif len(lanes) < _MOST_LANES - (awaited is not None):
            lanes.append([(block, until)])
        else:
            more += 1
    return lanes, more


def _bar(block: Block, until: float, scale: _Scale, y: float, height: float) -> Bar:
    x = scale.x(block.started)
    width = max(1.5, round(scale.x(until) - x, 2))
    kind = "finished" if block.finished else "expired" if block.expired else "armed"
    deadline = about.deadline(block)
    scope = words.quoted(block.scope)
    letters = int((width - 8) / _LETTER)
    label = words.clean(scope[1:-1], letters) if letters >= 3 and height >= 9 else ""
    return Bar(
        x=x,
        y=round(y, 2),
        width=width,
        height=round(height, 2),
        kind=kind,
        label=label,
        title=f"{scope}, timeout {words.seconds(block.after)}, from {_relative(block.started)}"
        + (", left before the next block" if block.finished else f", deadline at {_relative(deadline)}"),
        deadline=scale.x(deadline) if not block.finished and scale.has(deadline) and deadline <= until else None,
        cut=block.started < scale.start,
    )


_SHAPES = ("evidence", "SIGKILL", "dead", "spared")


def _marks(worker: Worker | Departed, scale: _Scale, y: float) -> list[Mark]:
    """The marks of a row; of those that would cover each other the last, which then tells of all."""
    marks: list[Mark] = []
    for at, kind, title in _events(worker):
        mark = Mark(scale.x(at), y, kind, f"{title} at {_relative(at)}")
        if marks and mark.x - marks[-1].x < _MARK:
            mark = replace(mark, title=f"{marks.pop().title}, {mark.title}")
        # Who had ended before the picture begins, has his cross at its edge.
        if scale.has(at) or kind == "departed":
            marks.append(mark)
    return marks


def _events(worker: Worker | Departed) -> Iterator[tuple[float, str, str]]:
    """What happened to a worker: when, of which kind, in words."""
    if isinstance(worker, Departed):
        yield worker.at, "departed", f"ended ({words.clean(worker.exit, 60) or 'how is not known'})"
        return
    if worker.evidence and not any(step.what == "evidence" for step in worker.steps):
        yield worker.evidence.at, "evidence", "evidence"
    for step in worker.steps[-20:]:
        kind = step.what if step.what in _SHAPES else "signal" if step.what.startswith("SIG") else "other"
        yield step.at, kind, words.clean(step.what, 40)


def _relative(at: float) -> str:
    """An instant as the ticks have it."""
    if at == 0:
        return "0"
    return f"{'+' if at > 0 else _MINUS}{words.seconds(abs(at))}"


def _ticks(start: float, end: float) -> list[tuple[float, str]]:
    """Round instants, some seven of them."""
    step = _step((end - start) / 7)
    first, last = math.ceil(start / step), math.floor(end / step)
    return [(index * step, _tick_label(index * step, step)) for index in range(first, last + 1)]


def _step(least: float) -> float:
    for step in _STEPS + _STEPS_LONG:
        if step >= least:
            return step
    return 86400.0 * math.ceil(least / 86400)


def _tick_label(at: float, step: float) -> str:
    if at == 0:
        return "0"
    sign, size = "+" if at > 0 else _MINUS, abs(at)
    units: Sequence[tuple[float, str]] = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"), (0.001, "ms"))
    unit, name = _unit(units, step)
    if unit == 60 and size % 60:
        unit, name = 1, "s"
    return f"{sign}{size / unit:.10g} {name}"


def _unit(units: Iterable[tuple[float, str]], step: float) -> tuple[float, str]:
    """The largest unit that the ticks are whole numbers of; seconds have tenths as well."""
    for unit, name in units:
        if step / unit >= (0.1 if name == "s" else 1) - 1e-9:
            return unit, name
    return 0.001, "ms"
