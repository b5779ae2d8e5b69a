"""What somebody who looks at the screen has chosen, and what the keys do to it. Pure: nothing is read or drawn here."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from unhang.observe.picture import Picture, Row
from unhang.observe.screen_marks import Level, Mark
from unhang.report.live import WorkerInfo

LONGEST_FILTER = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What is chosen.

    Attributes:
        sort: one of `SORTS`.
        filter: words that all must be found in a worker; see `matches`.
        typing: whether the filter is being typed.
        selected: the number of the selected worker; 0: whoever comes first.
        top: the place of the first row that is shown.
        pane: what is shown instead of the table: ``help``, ``stacks``, or empty.
        scroll: the first line of that which is shown.
        paused: whether the picture stands still.
    """

    sort: str = "nearest"
    filter: str = ""
    typing: bool = False
    selected: int = 0
    top: int = 0
    pane: str = ""
    scroll: int = 0
    paused: bool = False


def _nearest(row: Row, level: Level) -> tuple[float, ...]:
    """Who stands out comes first, then the nearest to expiry.

    Those whose time is far from over are in order of the magnitude of what is left only: they would change places all
    the time.
    """
    if level is Level.FINE:
        return (2, math.frexp(row.left)[1] if row.armed else math.inf, row.info.rank or 0)
    return (0, -row.idle) if level is Level.SUSPECT else (1, row.left)


SORTS: Mapping[str, Callable[[Row, Level], tuple[float, ...]]] = {
    "nearest": _nearest,
    "idle": lambda row, _: (-row.idle,),
    "rate": lambda row, _: (row.rate is None, row.rate or 0.0),
    "rank": lambda row, _: (row.info.rank is None, row.info.rank or 0),
    "pid": lambda row, _: (row.info.pid,),
}


def arranged(rows: Sequence[Row], marks: Mapping[int, Mark], state: State) -> list[Row]:
    """The rows that pass the filter, in the order that is chosen."""
    key, fine = SORTS[state.sort], Mark()
    passed = [row for row in rows if matches(row, state.filter)]
    return sorted(passed, key=lambda row: (*key(row, marks.get(row.info.number, fine).level), row.info.number))


def matches(row: Row, wanted: str) -> bool:
    """Whether each word is part of the scope of one of its timers, of its host or job, or is its rank or pid."""
    return all(_has(row, word) for word in wanted.casefold().split())


def _has(row: Row, word: str) -> bool:
    info = row.info
    if word in (str(info.rank), str(info.pid)):
        return True
    return any(word in text.casefold() for text in (*(armed.scope for armed in row.armed), info.host, info.job))


def place_of(rows: Sequence[Row], state: State) -> int:
    """The place of the selected row; 0 if it is not there."""
    return next((place for place, row in enumerate(rows) if row.info.number == state.selected), 0)


def followed(state: State, before: Picture, now: Picture) -> State:
    """Keep to the selected worker when another watchdog is seen, which has other numbers; else to the first row."""
    if before.watchdog.started == now.watchdog.started:
        return state
    was = next((_who(row.info) for row in before.rows if row.info.number == state.selected), None)
    found = next((row.info.number for row in now.rows if _who(row.info) == was), 0)
    return replace(state, selected=found)


def _who(info: WorkerInfo) -> tuple[object, ...]:
    return info.pid, info.user, info.host, info.rank


def scrolled(top: int, place: int, capacity: int, count: int) -> int:
    """The place of the first row to show, so that ``place`` is shown, and no room is left while there are rows."""
    top = min(max(top, place - capacity + 1), place)
    return max(0, min(top, count - capacity))


def press(state: State, key: str, rows: Sequence[Row], capacity: int, lines: int = 0) -> State:
    """What a key makes of it.

    Args:
        state: what was chosen before.
        key: a character, or the name of a key as `unhang.cli.top_keys` has it; those that mean nothing do nothing.
        rows: those that are arranged, shown or not.
        capacity: how many of them, or how many lines of a pane, are shown at once.
        lines: how many lines a pane has.
    """
    if state.typing:
        return _typed(state, key)
    if state.pane:
        return _in_pane(state, key, capacity, lines)
    if key in _STEPS and rows:
        return _moved(state, key, rows, capacity)
    if key == "s":
        names = list(SORTS)
        return replace(state, sort=names[(names.index(state.sort) + 1) % len(names)])
    return _chosen(state, key)


def _chosen(state: State, key: str) -> State:
    if key == "/":
        return replace(state, typing=True)
    if key == "escape":
        return replace(state, filter="", selected=0)
    if key == "p":
        return replace(state, paused=not state.paused)
    return replace(state, pane="help", scroll=0) if key == "?" else state


def _typed(state: State, key: str) -> State:
    if key == "enter":
        return replace(state, typing=False)
    if key == "escape":
        return replace(state, typing=False, filter="")
    if key == "backspace":
        return replace(state, filter=state.filter[:-1])
    if len(key) == 1 and len(state.filter) < LONGEST_FILTER:
        return replace(state, filter=state.filter + key)
    return state


# How far a key goes: (rows, pages). What is beyond the end is the end.
_STEPS = {
    "up": (-1, 0), "k": (-1, 0), "down": (1, 0), "j": (1, 0), "page up": (0, -1), "page down": (0, 1), " ": (0, 1),
    "home": (0, -math.inf), "g": (0, -math.inf), "end": (0, math.inf), "G": (0, math.inf),
}  # fmt: skip


def _step(key: str, place: int, capacity: int, count: int) -> int:
    rows, pages = _STEPS[key]
    step = rows if not pages else pages * max(1, capacity)
    return int(max(0, min(place + step, count - 1)))


def _moved(state: State, key: str, rows: Sequence[Row], capacity: int) -> State:
    place = _step(key, place_of(rows, state), capacity, len(rows))
    # At the top it stays at the top, whoever comes there.
    selected = rows[place].info.number if place else 0
    return replace(state, selected=selected, top=scrolled(state.top, place, capacity, len(rows)))


def _in_pane(state: State, key: str, capacity: int, lines: int) -> State:
    if key in ("escape", "q", "?", "backspace"):
        return replace(state, pane="", scroll=0)
    if key in _STEPS:
        return replace(state, scroll=max(0, _step(key, state.scroll, capacity, lines - capacity + 1)))
    return state
