"""The same as a plain table, which is as long as there are workers: for scripts, logs and a first look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.cells import cell_len
from rich.text import Text

from unhang.observe.picture import Picture, Row
from unhang.observe.screen_columns import rate_words
from unhang.observe.screen_header import header, standing_out
from unhang.observe.screen_incidents import incidents
from unhang.observe.screen_marks import Mark, marks
from unhang.observe.screen_state import State, arranged
from unhang.observe.screen_words import duration, fit, fit_scope, since

_LAST = 10
# Where nobody cuts lines, a scope is shown whole.
_WIDE = 1000
_LONGEST_HOST = 60
_STYLES = ("", "yellow", "red", "bold red", "bold magenta")
_STATES = ("ok", "half", "late", "expired", "stuck?")


def plain(picture: Picture, threads: Mapping[int, int], width: int | None) -> list[Text]:
    """The lines; none is wider than ``width``, and none is cut if that is None."""
    found = marks(picture.rows)
    room = _WIDE if width is None else width
    lines = [*header(picture, None, room, "unhang"), standing_out(picture.rows, found, ""), Text()]
    lines += _table(arranged(picture.rows, found, State()), found, threads, room)
    told = incidents(picture.recent, picture.at, room)[:_LAST]
    lines += [Text(), Text("incidents, the latest first"), *told] if told else []
    for line in lines:
        line.truncate(room)
        line.rstrip()
    return lines


def _table(rows: Sequence[Row], found: Mapping[int, Mark], threads: Mapping[int, int], room: int) -> list[Text]:
    if not rows:
        return [Text("no workers")]
    table = [_TITLES, *([*_cells(row, found), _count(row, threads)] for row in rows)]
    if len({row.info.host for row in rows}) > 1:
        hosts = ["host", *(fit(row.info.host, _LONGEST_HOST) or "-" for row in rows)]
        table = [[*cells, host] for cells, host in zip(table, hosts, strict=True)]
    widths = [max(cell_len(cells[place]) for cells in table) for place in range(len(table[0]))]
    lines = [Text(_joined(table[0], widths) + "  block", style="bold")]
    for row, cells in zip(rows, table[1:], strict=True):
        start = _joined(cells, widths)
        block = fit_scope(row.armed[0].scope, room - cell_len(start) - 2) if row.armed else "-"
        lines.append(Text(f"{start}  {block}", style=_STYLES[found.get(row.info.number, Mark()).level]))
    return lines


_TITLES = ["state", "rank", "pid", "running", "budget", "left", "timers", "blk/s", "idle", "thr"]


def _cells(row: Row, found: Mapping[int, Mark]) -> list[str]:
    info, nearest = row.info, row.armed[0] if row.armed else None
    return [
        _STATES[found.get(info.number, Mark()).level],
        "-" if info.rank is None else str(info.rank),
        str(info.pid),
        "-" if nearest is None else duration(max(0.0, nearest.running)),
        "-" if nearest is None else duration(nearest.after),
        "-" if nearest is None else duration(nearest.left),
        str(row.timers),
        rate_words(row.rate),
        since(row.idle),
    ]


def _count(row: Row, threads: Mapping[int, int]) -> str:
    return str(threads.get(row.info.pid, "-"))


def _joined(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(" " * (width - cell_len(cell)) + cell for cell, width in zip(cells, widths, strict=True))
