"""Workers that are gone: when, in which block, and how, as far as that can be found out."""

from __future__ import annotations

import collections
import functools
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace

from unhang._core.clock import Clock
from unhang._platform.exits import exit_of
from unhang._platform.process import ProcessHandle
from unhang._platform.waiter import Waiter
from unhang._watchdog.timers import Timers
from unhang._watchdog.watched import Origin, Watched
from unhang.report.model import Departed

_MOST = 256
# Seconds in which one that has hung up is expected to exit.
_DYING = 2.0
# Signals by which a job is ended on purpose: no news.
_ON_PURPOSE = {signal.SIGTERM.name, signal.SIGINT.name, signal.SIGHUP.name}
_CLEAN = "exit code 0"
_KILLED = signal.SIGKILL.name


@dataclass(eq=False)
class Departure:
    """One worker that has left its watchdog.

    Attributes:
        pid: what it was.
        origin: where it came from.
        handle: the process, which may live on.
        at: when it left, monotonic seconds.
        timers: those that it had then.
        by_us: whether it was signalled to end.
        exit: how it ended; empty as long as it has not, or if that cannot be known.
    """

    pid: int
    origin: Origin
    handle: ProcessHandle
    at: float
    timers: Timers
    by_us: bool = False
    exit: str = ""

    def find_out(self) -> None:
        """It is dead: how it ended is known now or never."""
        self.exit = exit_of(self.handle)
        if self.exit == _KILLED and _was_out_of_memory(self.origin):
            self.exit += " (out of memory)"

    @property
    def is_abnormal(self) -> bool:
        """Whether it ended as nobody wants it to."""
        return bool(self.exit) and not self.by_us and self.exit != _CLEAN and self.exit not in _ON_PURPOSE

    def departed(self, began: float) -> Departed:
        """As a report has it."""
        return Departed(
            pid=self.pid,
            rank=self.origin.identity.rank,
            attempt=self.origin.identity.attempt,
            at=self.at - began,
            exit=f"{self.exit}, by unhang" if self.by_us and self.exit else self.exit,
            by_unhang=self.by_us,
            blocks=self.timers.blocks(began),
            sequence=self.timers.sequence,
        )


def _was_out_of_memory(origin: Origin) -> bool:
    kills = None if origin.memory is None else origin.memory.kills()
    return kills is not None and origin.memory_kills is not None and kills > origin.memory_kills


class Departures:
    """The last workers that have left. It belongs to the server's loop.

    Args:
        waiter: what the loop waits with.
        clock: monotonic time.
        died: told of one that has ended as nobody wants it to.
    """

    def __init__(self, waiter: Waiter, clock: Clock, died: Callable[[Departure], None]) -> None:
        self._waiter = waiter
        self._clock = clock
        self._died = died
        self._last: collections.deque[Departure] = collections.deque(maxlen=_MOST)
        self._dying: list[Departure] = []

    def add(self, worker: Watched, *, by_us: bool) -> Departure | None:
        """A worker leaves: while its pages can still be read. None if it never armed a timer."""
        now = self._clock.now()
        timers = Timers.of(worker, round(now * 1e9))
        if worker.handle is None or not timers.sequence:
            return None
        origin = replace(worker.origin, stack_file=None)
        departure = Departure(worker.pid, origin, worker.handle.copy(), now, timers, by_us)
        self._last.append(departure)
        if not departure.handle.alive():
            self._ended(departure)
        elif departure.handle.fd >= 0:
            # It has hung up first, and exits now; or it goes on without us.
            self._dying.append(departure)
            self._waiter.call_once(departure.handle.fd, functools.partial(self._ended, departure))
        return departure

    def _ended(self, departure: Departure) -> None:
        departure.find_out()
        self._forget(departure)
        if departure.is_abnormal:
            self._died(departure)

    def _forget(self, departure: Departure) -> None:
        if departure in self._dying:
            self._dying.remove(departure)
        if departure.handle.fd >= 0:
            self._waiter.forget(departure.handle.fd)
            departure.handle.close()

    def tidy(self) -> None:
        """Once a beat: wait no longer for those that live on."""
        old = self._clock.now() - _DYING
        for departure in [departure for departure in self._dying if departure.at < old]:
            self._forget(departure)

    def of(self, job: str) -> list[Departure]:
        """Those of a job, the last one first."""
        return [departure for departure in reversed(self._last) if departure.origin.identity.job == job]

    def close(self) -> None:
        """Forget all of them."""
        for departure in list(self._dying):
            self._forget(departure)
