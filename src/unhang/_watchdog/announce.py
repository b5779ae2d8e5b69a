"""What a server says about its workers in the log, one line each; a report says the rest."""

from __future__ import annotations

import logging

from unhang._watchdog.watched import Expired, Watched

logger = logging.getLogger("unhang.watchdog")

_LEVELS = {
    "killed": logging.INFO,  # the report has said so
    "ended": logging.INFO,
    "pretimeout": logging.INFO,
    "near miss": logging.WARNING,
    "overslept": logging.WARNING,
    "held": logging.WARNING,
    "died": logging.WARNING,
}
_WORDS = {
    "killed": "ending it with {}",
    "ended": "it is dead, by {}",
    "unkillable": "it does not die, though SIGKILL was sent: it waits in the kernel for a disk, a network or a device",
    "expired": "it is only observed",
    "pretimeout": "its deadline comes near",
    "held": "spared while a debugger holds it, or a signal has stopped it",
    "refused": "not killed: it is protected, see above",
    "failed": "could not be killed yet",
}


def announce(event: str, worker: Watched | None, timers: list[Expired], detail: str) -> None:
    """Log an event."""
    level = _LEVELS.get(event, logging.ERROR)
    if logger.isEnabledFor(level):  # others wait in the loop meanwhile
        logger.log(level, "%s", _line(event, worker, timers, detail))


def _line(event: str, worker: Watched | None, timers: list[Expired], detail: str) -> str:
    if worker is None:
        return f"the watchdog overslept: all deadlines are given {timers[0].late:.1f} s back"
    who = _who(worker)
    if event == "died":
        where = f" in {timers[0].scope!r}" if timers else ""
        return f"{who} died{where}: {detail}"
    first = timers[0]
    others = f" and {len(timers) - 1} more" if len(timers) > 1 else ""
    after = f"{first.scope!r}{others} after {first.running:.3g} s (timeout {first.after:g} s)"
    if event == "near miss":
        return f"{who} left {after}, just before the first signal: spared"
    return f"{who} is still in {after}: {_WORDS[event].format(detail)}"


def _who(worker: Watched) -> str:
    rank = worker.origin.identity.rank
    return f"worker {worker.pid}" if rank is None else f"rank {rank} (pid {worker.pid})"
