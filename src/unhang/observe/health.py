"""Whether all is well with a watchdog and its workers: progress, not mere life.

A worker stalls while a timer of it is armed and none of them is armed, restarted or disarmed: so long it has been in
the same blocks. One with no timer armed has nothing to finish, such as a web worker without a request, and does not
stall, unless it is asked for. A timer that is over its deadline, because nobody may kill for it, stalls its worker from
when it was armed, whatever other threads do. Time in which the host did not run, as far as the watchdog has noticed, is
nobody's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from unhang.observe.picture import Picture, Row
from unhang.report.words import number

# The loop of a watchdog turns once a second at least. Seconds behind which it is not well.
LATE = 5.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What is well.

    Attributes:
        max_stall: seconds that a worker may be without progress.
        min_workers: how many workers have to be connected.
        startup: seconds from the watchdog's start in which workers may be missing, and from a worker's coming in which
            it may stall.
        idle_too: whether a worker that has no timer armed may stall as well.
    """

    max_stall: float = 300.0
    min_workers: int = 0
    startup: float = 0.0
    idle_too: bool = False


DEFAULT = Limits()


def stall(row: Row, limits: Limits = DEFAULT) -> float:
    """Seconds that a worker has been without progress; 0 when it has nothing to make progress with."""
    if not row.timers:
        return row.idle if limits.idle_too else 0.0
    return max([row.idle, *(armed.running for armed in row.armed if armed.left < 0)])


def _given_back(picture: Picture, seconds: float) -> float:
    """How much of the last seconds the watchdog has given back, since it overslept."""
    since = picture.at - seconds
    return sum(
        min(event.late or 0.0, event.at - since)
        for event in picture.recent
        if event.event == "overslept" and event.at > since
    )


def why_late(looked: float, at: float) -> str:
    """Why the watchdog itself is not well, whose loop turned at one instant, seen at another; empty if it is."""
    age = at - looked
    return f"the watchdog has not looked for {age:.0f} s" if age > LATE else ""


def why_not(picture: Picture, limits: Limits = DEFAULT) -> str:
    """Why not all is well, in one line without control characters; empty if it is."""
    return (
        why_late(picture.watchdog.looked, picture.at) or _why_missing(picture, limits) or _why_stalled(picture, limits)
    )


def in_words(picture: Picture, limits: Limits = DEFAULT) -> str:
    """One line about a picture that is well."""
    count = len(picture.rows)
    if count < limits.min_workers:
        return f"{number(count, 'worker')} of {limits.min_workers}; the watchdog has just started"
    idle = sum(not row.timers for row in picture.rows)
    return f"{number(count, 'worker')}, {idle} of them in no block" if idle else number(count, "worker")


def stalled(picture: Picture, limits: Limits = DEFAULT) -> list[tuple[float, Row]]:
    """The workers that stall for too long, with the seconds, the longest first."""
    found = []
    for row in picture.rows:
        seconds = stall(row, limits)
        if seconds <= limits.max_stall or picture.at - row.info.joined < limits.startup:
            continue
        seconds -= _given_back(picture, seconds)
        if seconds > limits.max_stall:
            found.append((seconds, row))
    return sorted(found, key=lambda each: each[0], reverse=True)


def _why_missing(picture: Picture, limits: Limits) -> str:
    count = len(picture.rows)
    if count >= limits.min_workers or picture.at - picture.watchdog.started < limits.startup:
        return ""
    return f"{number(count, 'worker')} connected, not {limits.min_workers}"


def _why_stalled(picture: Picture, limits: Limits) -> str:
    found = stalled(picture, limits)
    if not found:
        return ""
    seconds, row = found[0]
    line = f"{_who(row)} makes no progress for {seconds:.0f} s: {_where(row)}"
    return line if len(found) == 1 else f"{len(found)} of {number(len(picture.rows), 'worker')} stall; {line}"


def _who(row: Row) -> str:
    info = row.info
    return f"worker {info.pid}" if info.rank is None else f"rank {info.rank} (pid {info.pid})"


def _where(row: Row) -> str:
    if not row.armed:
        return f"it has {number(row.timers, 'timer')} armed" if row.timers else "it is in no block"
    block = row.armed[0]
    where = f"in {_quoted(block.scope)} for {block.running:.0f} s"
    return f"{where}, timeout {block.after:.0f} s" if math.isfinite(block.after) else where


def _quoted(scope: str) -> str:
    return repr(scope.encode("utf-8", "backslashreplace").decode())
