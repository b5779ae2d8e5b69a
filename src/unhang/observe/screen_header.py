"""What stands above and below the table: the watchdog, who stands out, the keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.cells import cell_len
from rich.text import Text

from unhang.observe.picture import Picture, Row
from unhang.observe.screen_marks import Level, Mark
from unhang.observe.screen_state import State
from unhang.observe.screen_words import duration, fit, fit_path, name
from unhang.report.live import Watchdog
from unhang.report.words import number, often

# Seconds: a watchdog looks at its workers at least once a second.
_LATE_LOOP = 3.0
_LONGEST_ALARM = 240


def header(picture: Picture, busy: float | None, width: int, title: str = "unhang top") -> list[Text]:
    """Two lines about the watchdog."""
    watchdog = picture.watchdog
    timers = sum(row.timers for row in picture.rows)
    first = [
        f"watchdog {watchdog.pid} on {fit(watchdog.host, 24) or '?'}",
        f"up {duration(max(0.0, picture.at - watchdog.started))}",
        number(len(picture.rows), "worker"),
        f"{number(timers, 'timer')} armed",
    ]
    line = Text.assemble((title, "bold"), f"  {'  '.join(first)}")
    if watchdog.observe:
        line.append("  observes, kills nobody", "yellow")
    return [line, _loop(picture, busy, width)]


def _loop(picture: Picture, busy: float | None, width: int) -> Text:
    watchdog = picture.watchdog
    behind = picture.at - watchdog.looked
    if behind > _LATE_LOOP:
        return Text(f"its loop has not turned for {duration(behind)}", style="bold red")
    text = Text("loop ")
    text.append("" if busy is None else f"{busy:.2%} busy, ").append(f"longest turn {duration(watchdog.longest)}")
    text.append_text(_dropped(watchdog))
    if watchdog.overslept:
        text.append(f"  overslept {often(watchdog.overslept)}, {duration(watchdog.overslept_time)}", "yellow")
    return text.append(f"  {fit_path(watchdog.address, max(12, width - text.cell_len - 2))}", "dim")


def _dropped(watchdog: Watchdog) -> Text:
    kinds = sorted(watchdog.dropped.items(), key=lambda kind: -kind[1])
    kinds = [(kind, count) for kind, count in kinds if count]
    if not kinds:
        return Text("  dropped 0")
    said = ", ".join(f"{count:,} {fit(kind, 20)}" for kind, count in kinds[:2])
    return Text(f"  dropped {said}{', …' * (len(kinds) > 2)}", style="yellow")


def standing_out(rows: Sequence[Row], marks: Mapping[int, Mark], alarm: str) -> Text:
    """The line to read first: who is stuck where, as far as one can tell from outside."""
    if alarm:
        return Text(fit(alarm, _LONGEST_ALARM), style="bold white on red")
    counts = {level: sum(mark.level == level for mark in marks.values()) for level in Level}
    suspects = [row for row in rows if _level(row, marks) is Level.SUSPECT]
    if suspects:
        first = max(suspects, key=lambda row: row.idle)
        more = f" (and {len(suspects) - 1} more)" if len(suspects) > 1 else ""
        return Text(f"STUCK? {name(first.info)} {marks[first.info.number].why}{more}", style="bold white on magenta")
    if expired := counts[Level.EXPIRED]:
        first = min((row for row in rows if _level(row, marks) is Level.EXPIRED), key=lambda row: row.left)
        more = f" (and {expired - 1} more)" if expired > 1 else ""
        return Text(f"EXPIRED: {name(first.info)} is {marks[first.info.number].why}{more}", style="bold white on red")
    if slow := counts[Level.HALF] + counts[Level.LATE]:
        first = min((row for row in rows if _level(row, marks) in (Level.HALF, Level.LATE)), key=lambda row: row.left)
        said = f"{number(slow, 'worker')} beyond half of a budget; {name(first.info)} has {duration(first.left)} left"
        return Text(said, style="yellow")
    return Text("nobody stands out" if rows else "", style="green")


def _level(row: Row, marks: Mapping[int, Mark]) -> Level:
    return marks.get(row.info.number, Mark()).level


def footer(state: State, message: str, width: int) -> Text:
    """The keys, or what is being typed, or what is to be said."""
    if state.typing:
        ends = "   Enter keeps it, Esc clears it"
        return Text.assemble(("filter: ", "bold"), f"{fit(state.filter, max(8, width - 44))}▏", (ends, "dim"))
    if message:
        return Text(fit(message, width), style="bold")
    if state.pane:
        return keys([("Esc", "back"), ("↑↓", "scroll"), ("t", "again")][: 3 if state.pane == "stacks" else 2])
    chosen = fit(state.filter, 16)
    return keys(
        [
            ("q", "quit"),
            ("↑↓", "select"),
            ("t", "stacks"),
            ("s", f"sort: {state.sort}"),
            ("/", f"filter: {chosen}" if chosen else "filter"),
            ("p", "PAUSED" if state.paused else "pause"),
            ("?", "help"),
        ]
    )


def keys(named: Sequence[tuple[str, str]]) -> Text:
    """What keys do."""
    text = Text()
    for key, meaning in named:
        text.append("  " if text else "").append(key, "bold reverse" if cell_len(key) else "").append(f" {meaning}")
    return text
