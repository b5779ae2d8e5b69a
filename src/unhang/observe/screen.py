"""The live view of a watchdog: a picture, and what is chosen, as lines for a terminal. Pure: it only makes texts.

From the top: the watchdog, who stands out, the workers, what has happened, the keys. No line is wider than the screen,
and there are no more lines than it has, whatever workers call themselves and their blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from rich.text import Text

from unhang.observe import screen_columns
from unhang.observe.picture import Picture, Row
from unhang.observe.screen_header import footer, header, standing_out
from unhang.observe.screen_incidents import incidents
from unhang.observe.screen_marks import Level, Mark, marks
from unhang.observe.screen_pane import pane_lines
from unhang.observe.screen_state import State, arranged, place_of, scrolled
from unhang.observe.screen_words import duration, fold
from unhang.report.model import Report
from unhang.report.words import number

# From this many lines on there is room for all parts.
_WHOLE = 14
_MOST_INCIDENTS = 6
_HINT = "  t: where?"
_NO_ROWS = {
    True: "no worker matches the filter; Esc clears it",
    False: "no worker has come yet: start some with `unhang run`, or with the watchdog's address in UNHANG_ADDRESS",
}


@dataclass(frozen=True)
class Screen:
    """One picture, arranged for a terminal.

    Args:
        picture: what was seen.
        state: what is chosen.
        width: columns of the terminal.
        height: its lines.
        threads: how many threads processes have, by pid, as far as it is known; see `pids`.
        stacks: the report to show in the pane of stacks.
        busy: the share of one processor that the watchdog's loop has worked lately; None if that is not known.
        message: what takes the place of the keys for a while.
        alarm: what is wrong with the view itself, such as a watchdog that is gone.
    """

    picture: Picture
    state: State = field(default_factory=State)
    width: int = 80
    height: int = 24
    threads: Mapping[int, int] = field(default_factory=dict)
    stacks: Report | None = None
    busy: float | None = None
    message: str = ""
    alarm: str = ""

    @cached_property
    def marks(self) -> dict[int, Mark]:
        """What stands out, by the numbers of the workers."""
        return marks(self.picture.rows)

    @cached_property
    def rows(self) -> list[Row]:
        """The workers that pass the filter, in the order that is chosen."""
        return arranged(self.picture.rows, self.marks, self.state)

    @property
    def place(self) -> int:
        """The place of the selected one of them."""
        return place_of(self.rows, self.state)

    @property
    def selected(self) -> Row | None:
        """The selected worker."""
        return self.rows[self.place] if self.rows else None

    @cached_property
    def _above(self) -> list[Text]:
        lines = header(self.picture, self.busy, self.width)
        told = standing_out(self.picture.rows, self.marks, self.alarm)
        if self._points_at_a_suspect and told.cell_len + len(_HINT) <= self.width:
            told.append(_HINT, "bold")
        return [*lines, told] if self.height >= _WHOLE else [lines[0], told]

    @property
    def _points_at_a_suspect(self) -> bool:
        row = self.selected
        return row is not None and not self.alarm and self.marks.get(row.info.number, Mark()).level is Level.SUSPECT

    @cached_property
    def _below(self) -> list[Text]:
        if self.height < _WHOLE:
            return []
        told = incidents(self.picture.recent, self.picture.at, self.width)
        room = min(_MOST_INCIDENTS, self.height // 6)
        more = f", {len(told) - room} more" if len(told) > room else ""
        missed = f", missed {number(self.picture.missed, 'event')}" if self.picture.missed else ""
        title = f"incidents, the latest first{more}{missed}" if told else f"no incidents{missed}"
        return [Text(title, style="bold" if told else "dim"), *told[:room]]

    @property
    def capacity(self) -> int:
        """How many rows, or lines of a pane, there is room for."""
        if self.state.pane:
            return max(1, self.height - 2)
        # The titles, and the line about those that are not shown; the keys.
        return max(1, self.height - len(self._above) - len(self._below) - 3)

    @property
    def shown(self) -> Sequence[Row]:
        """The rows that are on the screen."""
        top = scrolled(self.state.top, self.place, self.capacity, len(self.rows))
        return self.rows[top : top + self.capacity]

    @property
    def pids(self) -> list[int]:
        """The processes on the screen that are of the watchdog's host."""
        here = {"", self.picture.watchdog.host}
        return [row.info.pid for row in self.shown if row.info.host in here]

    @cached_property
    def pane(self) -> list[Text]:
        """The lines of the pane, all of them; none when the table is shown."""
        return pane_lines(self.state.pane, self.stacks, self.width) if self.state.pane else []

    def lines(self) -> list[Text]:
        """What is on the screen: ``height`` lines at most, none wider than ``width`` cells."""
        body = self._pane() if self.state.pane else self._table()
        body = body[: max(0, self.height - 1)]
        body += [Text()] * (self.height - 1 - len(body))
        lines = [*body, footer(self.state, self.message, self.width)]
        for line in lines:
            line.truncate(max(0, self.width))
        return lines[-self.height :] if self.height > 0 else []

    def _pane(self) -> list[Text]:
        top = min(self.state.scroll, max(0, len(self.pane) - self.capacity))
        shown = self.pane[top : top + self.capacity]
        title = {"help": "keys", "stacks": "stacks"}.get(self.state.pane, self.state.pane)
        spot = f"{title}: lines {top + 1} to {top + len(shown)} of {len(self.pane)}"
        return [Text(spot, style="bold underline"), *shown]

    def _table(self) -> list[Text]:
        lines = list(self._above)
        if not self.rows:
            told = [Text(line, style="dim") for line in fold(_NO_ROWS[bool(self.picture.rows)], self.width)]
            # In the place of the titles, the rows, and the line about those that are not shown.
            room = self.capacity + 2
            return [*lines, *[*told, *[Text()] * room][:room], *self._below]
        widths = screen_columns.columns(self.picture.rows, self.width)
        lines.append(screen_columns.titles(widths))
        chosen = self.rows[self.place].info.number
        for row in self.shown:
            number, threads = row.info.number, self.threads.get(row.info.pid)
            mark = self.marks.get(number, Mark())
            lines.append(screen_columns.line(row, mark, widths, selected=number == chosen, threads=threads))
        lines += [Text()] * (self.capacity - len(self.shown))
        return [*lines, self._not_shown(), *self._below]

    def _not_shown(self) -> Text:
        """How many rows there are above and below, and what they are like."""
        top = scrolled(self.state.top, self.place, self.capacity, len(self.rows))
        below = self.rows[top + self.capacity :]
        said = [f"{top:,} above"] if top else []
        if below:
            said.append(f"{len(below):,} below")
        if above_or_below := [*self.rows[:top], *below]:
            left = min(row.left for row in above_or_below)
            said.append("in no block" if left == float("inf") else f"the nearest of them has {duration(left)} left")
        if self.state.filter:
            said.append(f"{number(len(self.picture.rows) - len(self.rows), 'worker')} filtered out")
        return Text(f"    … {', '.join(said)}" if said else "", style="dim")
