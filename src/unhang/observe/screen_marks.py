"""Which workers somebody should look at, from one picture of all: those that stand out from the others of their job.

A hint for people, and no verdict: nobody is killed for it. The rules:

- *expired*: its deadline is behind it, and it is still there (it is only observed, or is being ended).
- *stalled*: it does nothing while the others of its job go on: it is idle for some seconds, and for several times as
  long as three quarters of the others. One in no block counts only if it has a rank: others may have nothing to do.
- *apart*: most of its job has stopped, and is in the same blocks, as if waiting; it is in others, as one of a few. Or
  it is in the same ones, but a different number of blocks is behind it.
- *late*, *half*: its block has taken 80 % or 50 % of its time.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import NamedTuple

from unhang.observe.picture import Row
from unhang.observe.screen_words import duration, fit_scope, since
from unhang.report.words import number

HALF, LATE = 0.5, 0.8
# Seconds: what is shorter is no stall. A worker is seen to move to the second.
STALL = 5.0
# So many times longer than three quarters of the others.
_TIMES = 4.0
# Those that are apart are so few of their job at most.
_FEW = 0.25
_LONGEST_NAME = 20


class Level(enum.IntEnum):
    """How much a worker deserves a look."""

    FINE = 0
    HALF = 1
    LATE = 2
    EXPIRED = 3
    SUSPECT = 4


class Mark(NamedTuple):
    """What is to be said of a worker; ``why`` is empty for one that is fine, or merely slow."""

    level: Level = Level.FINE
    why: str = ""


def spent(row: Row) -> float:
    """The share of its time that the block nearest to expiry has taken; more than 1 behind the deadline, 0 in none."""
    if not row.armed:
        return 0.0
    nearest = row.armed[0]
    if nearest.left <= 0:
        return max(1.0, 1 - nearest.left / nearest.after) if nearest.after > 0 else 1.0
    return min(1.0, max(0.0, 1 - nearest.left / nearest.after)) if nearest.after > 0 else 0.0


def marks(rows: Sequence[Row]) -> dict[int, Mark]:
    """The marks of the workers that have one, by their numbers."""
    found: dict[int, Mark] = {}
    for job in _jobs(rows):
        found |= _stalled(job) or _apart(job)
    for row in rows:
        if row.info.number not in found and (mark := _of_budget(row)).level:
            found[row.info.number] = mark
    return found


def _jobs(rows: Sequence[Row]) -> list[list[Row]]:
    jobs: dict[Hashable, list[Row]] = {}
    for row in rows:
        jobs.setdefault((row.info.job, row.info.attempt), []).append(row)
    return [job for job in jobs.values() if len(job) > 1]


def _of_budget(row: Row) -> Mark:
    if row.left <= 0:
        return Mark(Level.EXPIRED, f"{duration(-row.left)} behind its deadline")
    share = spent(row)
    return Mark(Level.LATE if share >= LATE else Level.HALF if share >= HALF else Level.FINE)


def _stalled(job: Sequence[Row]) -> dict[int, Mark]:
    """Those that do nothing while the others go on."""
    idle = sorted(row.idle for row in job)
    usual = idle[int((len(job) - 2) * 0.75)]
    slow = [row for row in job if row.idle > max(STALL, _TIMES * usual) and _is_busy(row)]
    others = len(job) - len(slow)
    go_on = "another one goes on" if others == 1 else f"{others:,} others go on"
    return {row.info.number: Mark(Level.SUSPECT, f"{_inside(row)} for {since(row.idle)}; {go_on}") for row in slow}


def _is_busy(row: Row) -> bool:
    """Whether there is something that it should be doing."""
    return bool(row.armed) or row.info.rank is not None


def _inside(row: Row) -> str:
    """Where it is: the block that it entered last."""
    if not row.armed:
        return "in no block"
    return f"in '{fit_scope(_innermost(row), _LONGEST_NAME)}'"


def _innermost(row: Row) -> str:
    return min(row.armed, key=lambda armed: armed.running).scope if row.armed else ""


def _apart(job: Sequence[Row]) -> dict[int, Mark]:
    """Those that are not where the others wait."""
    still = [row for row in job if row.idle > STALL and _is_busy(row)]
    if len(still) < max(3, len(job) / 2) or not _together(still):
        return {}
    return _elsewhere(still) or _behind(still)


def _together(still: Sequence[Row]) -> bool:
    """Whether most have stopped at about the same time, as those do that wait for each other."""
    idle = sorted(row.idle for row in still)
    last = len(idle) - 1
    return idle[round(last * 0.9)] - idle[round(last * 0.1)] <= idle[round(last * 0.5)] / 2


def _elsewhere(still: Sequence[Row]) -> dict[int, Mark]:
    """Those in other blocks than most."""
    counts = Counter(_scopes(row) for row in still)
    usual, count = counts.most_common(1)[0]
    few = [row for row in still if _scopes(row) != usual]
    if not usual or not _is_few(few, still):
        return {}
    where = fit_scope(_innermost(next(row for row in still if _scopes(row) == usual)), _LONGEST_NAME)
    wait = f"{'another one is' if count == 1 else f'{count:,} others are'} in '{where}'"
    return {row.info.number: Mark(Level.SUSPECT, f"{_inside(row)} for {since(row.idle)}; {wait}") for row in few}


def _behind(still: Sequence[Row]) -> dict[int, Mark]:
    """Those that have entered fewer blocks than most, who are all at the same number."""
    usual, count = Counter(row.sequence for row in still).most_common(1)[0]
    few = [row for row in still if row.sequence != usual]
    if count < len(still) / 2 or not _is_few(few, still):
        return {}
    return {
        row.info.number: Mark(Level.SUSPECT, f"{_inside(row)} for {since(row.idle)}; {_by(usual - row.sequence)}")
        for row in few
        if row.sequence < usual
    }


def _by(blocks: int) -> str:
    return f"{number(blocks, 'block')} behind the others"


def _is_few(few: Sequence[Row], still: Sequence[Row]) -> bool:
    return 0 < len(few) <= max(1, len(still) * _FEW)


def _scopes(row: Row) -> frozenset[str]:
    return frozenset(armed.scope for armed in row.armed)
