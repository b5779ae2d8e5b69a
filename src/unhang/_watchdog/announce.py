"""What a server says about its workers in the log, one line each; a report says the rest.

Each record has the fields of the event as a dictionary in its attribute ``unhang``.
"""

from __future__ import annotations

import logging
from typing import Any

import msgspec

from unhang._watchdog.watched import Expired, Watched
from unhang.report.live import Event

logger = logging.getLogger("unhang.watchdog")

_LEVELS = {
    "killed": logging.INFO,  # the report has said so
    "ended": logging.INFO,
    "pretimeout": logging.INFO,
    "near miss": logging.WARNING,
    "overslept": logging.WARNING,
    "held": logging.WARNING,
    "died": logging.WARNING,
    "connect": logging.DEBUG,
    "disconnect": logging.DEBUG,
    "lost watchdog": logging.INFO,  # the worker has said so
    "report": logging.DEBUG,  # its text is a line of its own
}
_WORDS = {
    "killed": "ending it with {}",
    "unkillable": "it does not die, though SIGKILL was sent: it waits in the kernel for a disk, a network or a device",
    "expired": "it is only observed",
    "pretimeout": "its deadline comes near",
    "held": "spared while a debugger holds it, or a signal has stopped it",
    "refused": "not killed: it is protected, see above",
    "failed": "could not be killed yet",
}
_SURE_KILL = "SIGKILL"
_COMING_AND_GOING = {
    "connect": "{} is watched",
    "disconnect": "{} has left",
    "lost watchdog": "{} is back, and watched again: its watchdog was gone, or did not look",
}


def announce(
    event: str, worker: Watched | None, timers: list[Expired], detail: str = "", written: Event | None = None
) -> None:
    """Log an event.

    Args:
        event: what has happened.
        worker: to whom.
        timers: which it is about, the earliest first.
        detail: more of it in words.
        written: the same as a document, whose fields the record gets.
    """
    level = _LEVELS.get(event, logging.ERROR)
    if event == "ended" and _SURE_KILL in detail:
        level = logging.WARNING  # the report was written before
    if logger.isEnabledFor(level):  # others wait in the loop meanwhile
        logger.log(level, "%s", _line(event, worker, timers, detail), extra=fields_of(written))


def fields_of(event: Event | None) -> dict[str, Any]:
    """The ``extra`` of a log record about an event: a dictionary ``unhang`` with the fields that are known."""
    return {"unhang": {} if event is None else msgspec.to_builtins(event)}


def _line(event: str, worker: Watched | None, timers: list[Expired], detail: str) -> str:
    if worker is None:
        if event == "overslept":
            return f"the watchdog overslept: all deadlines are given {timers[0].late:.1f} s back"
        return f"{event}: {detail}"
    who = _who(worker)
    if event in _COMING_AND_GOING:
        return _COMING_AND_GOING[event].format(who)
    if event == "died":
        where = f" in {timers[0].scope!r}" if timers else ""
        return f"{who} died{where}: {detail}"
    return f"{who} {_about_timers(event, timers, detail)}"


def _about_timers(event: str, timers: list[Expired], detail: str) -> str:
    """What has happened to a worker whose timers have expired, the earliest first, or are about to."""
    first = timers[0]
    if event == "ended":
        return f"is dead, {_by(detail)}: it was in {first.scope!r} (timeout {first.after:g} s)"
    others = f" and {len(timers) - 1} more" if len(timers) > 1 else ""
    after = f"{first.scope!r}{others} after {first.running:.3g} s (timeout {first.after:g} s)"
    if event == "near miss":
        return f"left {after}, just before the first signal: spared"
    return f"is still in {after}: {_WORDS[event].format(detail)}"


def _by(signals: str) -> str:
    """How a worker was ended, from the names of the signals that were sent, joined by "and"."""
    *before, last = signals.split(" and ")
    return f"by {last}, after {' and '.join(before)} did not end it" if before else f"by {last}"


def _who(worker: Watched) -> str:
    rank = worker.origin.identity.rank
    return f"worker {worker.pid}" if rank is None else f"rank {rank} (pid {worker.pid})"
