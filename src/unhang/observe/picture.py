"""All of a watchdog and its workers at one look. Pure: instants are seconds of the monotonic clock."""

from __future__ import annotations

import math
from dataclasses import dataclass

from unhang.report.live import Event, Watchdog, WorkerInfo
from unhang.report.model import Report


@dataclass(frozen=True, slots=True)
class Armed:
    """An armed timer; seconds.

    Attributes:
        scope: its name.
        after: its timeout.
        running: since it was armed or restarted.
        left: until its deadline; negative behind it. What the watchdog has given back to it does not show here.
        thread: the kernel's id of the thread that armed it; a hint.
    """

    scope: str
    after: float
    running: float
    left: float
    thread: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """One worker at one look.

    Attributes:
        info: who it is, as it said last.
        armed: its timers, the nearest to expiry first; 8 at most.
        timers: how many are armed.
        sequence: how often they were armed or restarted altogether.
        rate: how often a second, since the look before; None at the first one.
        idle: seconds since it was seen to arm, restart or disarm a timer, or since it came.
        inherited: how often they were armed before this watchdog came to watch it: another one may have counted that.
        observed: whether it is never to be killed.
    """

    info: WorkerInfo
    armed: tuple[Armed, ...] = ()
    timers: int = 0
    sequence: int = 0
    rate: float | None = None
    idle: float = 0.0
    inherited: int = 0
    observed: bool = False

    @property
    def left(self) -> float:
        """Seconds until the first of its timers expires; infinite when none is armed."""
        return self.armed[0].left if self.armed else math.inf


@dataclass(frozen=True)
class Picture:
    """One look.

    Attributes:
        at: when.
        watchdog: as it was then.
        rows: the workers that are connected, by number.
        events: what has happened since the look before.
        recent: the last 200 events, these included.
        missed: how many events were forgotten before they were asked for, altogether.
        stacks: what was found of a worker, if that was asked for and has come since the look before.
        no_stacks: why nothing was found.
    """

    at: float
    watchdog: Watchdog
    rows: tuple[Row, ...] = ()
    events: tuple[Event, ...] = ()
    recent: tuple[Event, ...] = ()
    missed: int = 0
    stacks: Report | None = None
    no_stacks: str = ""
