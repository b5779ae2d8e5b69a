"""The table of all processes, read quickly: on Linux one file for each, elsewhere what psutil tells.

Nothing here raises for a process that is gone or may not be seen: it has no row.
"""

from __future__ import annotations

import math
import os
import time

from unhang._core.family import Reading, Row
from unhang._core.pid_circle import Mark, PidCircle
from unhang._platform.process import _NOBODY, LINUX, _read, _stat

# What Linux leaves out when the circle begins again.
_RESERVED = 300
# Several times what a processor can give out in a second; beyond so many, they wait for each other.
_RATE_OF_ONE_PROCESSOR = 25_000
_MOST_PROCESSORS = 40


def row_of(pid: int) -> Row | None:
    """The row of one process; a zombie has one as well.

    Raises:
        OSError: it cannot be told; for example, this process is short of descriptors.
    """
    if not LINUX:
        return _row_psutil(pid)
    try:
        fields = _stat(pid)
    except OSError as error:
        if error.errno in _NOBODY:
            return None
        raise
    # The state alone says little: one whose first thread has ended looks like a zombie, and has other threads.
    exited = fields[0] in (b"Z", b"X") and int(fields[17]) <= 1
    return Row(pid, int(fields[1]), int(fields[2]), int(fields[3]), float(fields[19]), exited)


def _row_psutil(pid: int) -> Row | None:
    import psutil

    try:
        process = psutil.Process(pid)
        with process.oneshot():
            return Row(pid, process.ppid(), os.getpgid(pid), os.getsid(pid), process.create_time())
    except (psutil.Error, OSError):
        return None


def _pids() -> list[int]:
    if LINUX:
        return [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    import psutil

    return psutil.pids()


def read_all() -> Reading:
    """All processes.

    Raises:
        OSError: as for `row_of`.
    """
    began = mark()
    rows = [row for pid in _pids() if (row := row_of(pid))]
    return Reading(rows, began, mark())


def read_some(numbers: list[int], began: Mark) -> Reading:
    """The processes among these numbers; ``began`` is a mark made before.

    Raises:
        OSError: as for `row_of`.
    """
    rows = [row for number in numbers if (row := row_of(number))]
    return Reading(rows, began, mark(), whole=False)


def circle() -> PidCircle | None:
    """The circle in which this pid namespace gives out its numbers; None where there is none to be seen."""
    try:
        size = int(_read("/proc/sys/kernel/pid_max"))
    except OSError:
        return None
    rate = _RATE_OF_ONE_PROCESSOR * min(os.cpu_count() or 1, _MOST_PROCESSORS)
    return PidCircle(_RESERVED, size, rate / os.sysconf("SC_CLK_TCK")) if mark() else None


def mark() -> Mark | None:
    """How far the circle is; None where that cannot be told.

    Raises:
        OSError: this process is short of descriptors.
    """
    try:
        *_, tasks, last = _read("/proc/loadavg").split()
    except OSError as error:
        if error.errno in _NOBODY:
            return None
        raise
    # A start time is a whole number of ticks, rounded down.
    ticks = math.floor(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))
    # 0 comes from systems that only look like Linux.
    return Mark(int(last), ticks, int(tasks.partition(b"/")[2])) if int(last) else None
