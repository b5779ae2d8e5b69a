"""Pictures of watchdogs and workers that never were."""

from unhang.observe.picture import Armed, Picture, Row
from unhang.report.live import Event, Watchdog, WorkerInfo

NOW = 1000.0


def watchdog(**other):
    known = {
        "pid": 7,
        "version": "1.2",
        "host": "gpu3",
        "address": "/run/x.sock",
        "started": 100.0,
        "looked": NOW - 0.5,
    }
    return Watchdog(**(known | other))


def armed(scope="step", after=600.0, running=1.0):
    return Armed(scope, after, running, after - running, 70)


def row(number=1, *blocks, idle=1.0, joined=200.0, timers=None, sequence=5, inherited=0, **info):
    """A worker with these blocks."""
    who = WorkerInfo(number=number, connection=number, revision=number, pid=4000 + number, joined=joined, **info)
    return Row(who, blocks, len(blocks) if timers is None else timers, sequence, 2.5, idle, inherited)


def picture(*rows, events=(), recent=None, **other):
    known = {"at": NOW, "watchdog": watchdog(workers=len(rows))}
    return Picture(
        rows=rows, events=tuple(events), recent=tuple(events if recent is None else recent), **(known | other)
    )


def event(kind, **other):
    return Event(
        **({"time": "2026-01-01T00:00:00.000Z", "event": kind, "at": NOW - 1, "pid": 4001, "number": 1} | other)
    )


class Clock:
    """The wall clock of whoever looks."""

    def __init__(self):
        self.now = NOW

    def __call__(self):
        return self.now
