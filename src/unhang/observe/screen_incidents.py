"""What has happened, one line an incident, the latest first."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from unhang.observe.screen_words import duration, fit, fit_scope
from unhang.report import words
from unhang.report.live import Event

# With their styles; other events are no incidents.
_STYLES = {
    "report": "bold red",
    "killed": "red",
    "unkillable": "bold red",
    "died": "red",
    "failed": "bold red",
    "expired": "red",
    "refused": "yellow",
    "held": "yellow",
    "near miss": "yellow",
    "pretimeout": "yellow",
    "overslept": "yellow",
    "lost watchdog": "yellow",
}
_NAME = len("unkillable")
_AGO = len("277h ago")
# Seconds within which the same that happens to several workers is one line.
_TOGETHER = 10.0
_LONGEST_SCOPE = 40


def incidents(events: Sequence[Event], at: float, width: int) -> list[Text]:
    """A line for each incident, the latest first; the same of several workers at one time is one."""
    return [_line(group, at, width) for group in _groups(events)]


def _groups(events: Sequence[Event]) -> list[list[Event]]:
    """The latest first. Of a report that was made again, what it said last."""
    groups: list[list[Event]] = []
    told: set[str] = set()
    for event in reversed(events):
        if event.event not in _STYLES or event.report in told:
            continue
        if event.report:
            told.add(event.report)
        if group := next((each for each in groups[-4:] if _belongs(event, each)), None):
            group.append(event)
        else:
            groups.append([event])
    return groups


def _belongs(event: Event, group: Sequence[Event]) -> bool:
    last = group[-1]
    same = (event.event, event.scope, event.job) == (last.event, last.scope, last.job)
    return same and not event.report and event.pid is not None and abs(last.at - event.at) <= _TOGETHER


def _line(group: Sequence[Event], at: float, width: int) -> Text:
    event = group[0]
    ago = f"{duration(max(0.0, at - event.at))} ago"
    style = _STYLES[event.event]
    start = Text.assemble((f"{ago:>{_AGO}} ", "dim"), (f"{event.event:<{_NAME}} ", style))
    return start.append(fit(_told(group), max(0, width - len(start))), style if event.event == "report" else None)


def _told(group: Sequence[Event]) -> str:
    event = group[0]
    if event.event == "report" or event.pid is None:
        return event.detail or (f"{duration(event.late)} given back" if event.late is not None else "")
    said = [f"{_who(group)}{_where(event)}", event.hang, event.signal, "" if len(group) > 1 else event.detail]
    return ", ".join(dict.fromkeys(each for each in said if each))


def _who(group: Sequence[Event]) -> str:
    ranks = {event.rank for event in group if event.rank is not None}
    pids = {event.pid for event in group if event.rank is None and event.pid is not None}
    named = []
    if ranks:
        pid = f" (pid {group[0].pid})" if len(group) == 1 else ""
        named.append(f"rank{'s' if len(ranks) > 1 else ''} {words.ranges(ranks, 6)}{pid}")
    if pids:
        named.append(f"worker{'s' if len(pids) > 1 else ''} {words.ranges(pids, 3)}")
    return " and ".join(named)


def _where(event: Event) -> str:
    if not event.scope:
        return ""
    spent = "" if event.running is None else f" for {duration(event.running)}"
    return f" in '{fit_scope(event.scope, _LONGEST_SCOPE)}'{spent}"
