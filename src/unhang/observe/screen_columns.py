"""The rows of the table, laid out in the cells that there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.text import Text

from unhang.observe.picture import Row
from unhang.observe.screen_marks import HALF, LATE, Level, Mark, spent
from unhang.observe.screen_words import duration, fit, fit_scope, since

FULL, EMPTY = "█", "░"
_SIGNS = {Level.HALF: " !", Level.LATE: " !", Level.EXPIRED: "!!", Level.SUSPECT: "!!"}
_STYLES = {Level.HALF: "yellow", Level.LATE: "red", Level.EXPIRED: "bold red", Level.SUSPECT: "bold magenta"}
_TIME, _RATE, _IDLE, _THREADS = 6, 5, 6, 3
_LEAST_BAR, _MOST_BAR = 6, 24
_LEAST_BLOCK, _MOST_BLOCK = 12, 100
_MOST_HOST = 20
_MOST_JOB = 16
# Where there is no room for all, these go first.
_GO = ("job", "threads", "rate", "host", "idle", "bar", "pid")


@dataclass(frozen=True, slots=True)
class Columns:
    """The widths of the columns, in cells; 0: the column is left out."""

    widths: Mapping[str, int]

    def __getitem__(self, name: str) -> int:
        return self.widths.get(name, 0)


def columns(rows: Sequence[Row], width: int) -> Columns:
    """The columns for all these rows, which need not be shown: so they stay where they are when the others come."""
    widths = _wanted(rows)
    for name in _GO:
        if _taken(widths) <= width:
            break
        widths.pop(name, None)
    # What is left over goes to the bar and the block.
    spare = max(0, width - _taken(widths))
    longest = max((len(armed.scope) for row in rows for armed in row.armed[:1]), default=0)
    block = min(spare, max(0, min(longest, _MOST_BLOCK) - _LEAST_BLOCK))
    if "bar" in widths:
        bar = min(_MOST_BAR - _LEAST_BAR, max(spare - block, min(4, spare)))
        block = min(block, spare - bar)
        widths["bar"] += bar
    widths["block"] += block
    return Columns(widths)


def _wanted(rows: Sequence[Row]) -> dict[str, int]:
    hosts = {row.info.host for row in rows}
    jobs = {row.info.job for row in rows}
    wanted = {
        "rank": max(4, max((len(str(row.info.rank)) for row in rows if row.info.rank is not None), default=0)),
        "pid": max(5, max((len(str(row.info.pid)) for row in rows), default=0)),
        "host": min(_MOST_HOST, max(4, *map(len, hosts))) if len(hosts) > 1 else 0,
        "job": min(_MOST_JOB, max(4, *map(len, jobs))) if len(jobs) > 1 else 0,
        "block": _LEAST_BLOCK,
        "bar": _LEAST_BAR,
        "time": 2 * _TIME + 1,
        "rate": _RATE,
        "idle": _IDLE,
        "threads": _THREADS,
    }
    return {name: size for name, size in wanted.items() if size}


def _taken(widths: Mapping[str, int]) -> int:
    """All columns, a space between two, and the marks before them."""
    return sum(widths.values()) + len(widths) - 1 + len("> !! ") - 1


_TITLES = {
    "rank": ">", "pid": ">", "host": "<", "job": "<", "block": "<", "bar": "<", "time": "^", "rate": ">", "idle": ">",
    "threads": ">",
}  # fmt: skip
_NAMES = {"time": "time/budget", "rate": "blk/s", "threads": "thr", "bar": ""}


def titles(widths: Columns) -> Text:
    """The line above the rows."""
    cells = [f"{fit(_NAMES.get(name, name), size):{_TITLES[name]}{size}}" for name, size in widths.widths.items()]
    return Text(f"    {' '.join(cells)}", style="bold underline")


def line(row: Row, mark: Mark, widths: Columns, *, selected: bool, threads: int | None) -> Text:
    """One worker."""
    style = _STYLES.get(mark.level, "")
    text = Text(f"{'>' if selected else ' '}{_SIGNS.get(mark.level, '  ')} ", style="on grey23" if selected else "")
    text.stylize(style or "none")
    for place, (name, size) in enumerate(widths.widths.items()):
        text.append(" " if place else "")
        if name == "bar":
            text.append_text(_bar(row, size))
            continue
        cell = _cell(row, name, size, threads)
        text.append(cell, style if mark.level >= Level.EXPIRED or name in ("block", "time") else None)
    return text


def _cell(row: Row, name: str, size: int, threads: int | None) -> str:
    if name == "block":
        return _padded(_block(row, size), size)
    if name in ("host", "job"):
        return _padded(fit(row.info.host if name == "host" else row.info.job, size), size)
    if name == "time":
        return _time(row)
    return fit(_short(row, name, threads), size).rjust(size)


def _short(row: Row, name: str, threads: int | None) -> str:
    if name == "rank":
        return "-" if row.info.rank is None else str(row.info.rank)
    if name == "pid":
        return str(row.info.pid)
    if name == "idle":
        return since(row.idle)
    if name == "rate":
        return rate_words(row.rate)
    return "" if threads is None else str(threads)


def _block(row: Row, size: int) -> str:
    """The block nearest to expiry, and how many more there are."""
    if not row.armed:
        return fit("no block", size)
    more = f" +{row.timers - 1}" if row.timers > 1 else ""
    if len(more) >= size // 2:
        more = ""
    return fit_scope(row.armed[0].scope, size - len(more)) + more


def _padded(text: str, size: int) -> str:
    return text + " " * (size - cell_len(text))


def _time(row: Row) -> str:
    if not row.armed:
        return " " * (2 * _TIME + 1)
    nearest = row.armed[0]
    # It may have been armed a moment behind the look.
    return f"{fit(duration(max(0.0, nearest.running)), _TIME):>{_TIME}}/{fit(duration(nearest.after), _TIME):<{_TIME}}"


def rate_words(rate: float | None) -> str:
    """How often a second, in five cells."""
    if rate is None:
        return "-"
    if rate >= 9950:
        return f"{rate / 1000:.0f}k"
    return f"{rate:.0f}" if rate >= 9.95 or rate == 0 else f"{rate:.1f}"


def _bar(row: Row, size: int) -> Text:
    """How much of its time the block has taken; where colours are missing, the characters tell it too."""
    if not row.armed:
        return Text(" " * size)
    share = spent(row)
    full = round(min(1.0, share) * size)
    style = "red" if share >= LATE else "yellow" if share >= HALF else "green"
    return Text.assemble((FULL * full, style), (EMPTY * (size - full), "dim"))
