"""For your own tests: a clock to turn by hand, and a watchdog in memory that kills nobody.

::

    from unhang.testing import unhang_watchdog    # in conftest.py: a pytest fixture

    def test_a_slow_step_expires(unhang_watchdog):
        with unhang.expires(after=60, scope="step"):
            unhang_watchdog.advance(61)           # returns at once
        assert [timer.scope for timer in unhang_watchdog.expired] == ["step"]

It is the watchdog itself, page, deadlines, rules and all, over another clock and with another hand at the trigger.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Protocol, Self

from unhang._core.duration_pages import DurationWriter
from unhang._core.page import PageWriter
from unhang._core.page_reader import PageReader, Snapshot
from unhang._core.timer_reader import TimerReader
from unhang._watchdog.kill import Outcome
from unhang._watchdog.page_watch import PageWatch
from unhang._watchdog.watched import Expired, Watched
from unhang._worker import choose
from unhang._worker.client import SharedTimerClient

__all__ = ["Expired", "InMemoryWatchdog", "ManualClock", "unhang_watchdog"]

_SECOND = 1_000_000_000
# A watch that has much to do at one instant does it in several turns.
_MOST_TURNS = 1000


class _Turned(Protocol):
    """What lives by a clock: it says how long it would wait, and looks when that is over."""

    def wait_time(self) -> float: ...

    def turn(self) -> object: ...


class ManualClock:
    """A clock that stands still until it is moved. Whatever watches by it looks at every instant that it asked for.

    Args:
        now: the monotonic clock at first, in seconds; far from zero and from any real clock, so that mixing them shows.
        wall: seconds since the epoch at first.

    Not thread-safe.
    """

    def __init__(self, now: float = 1_000_000.0, wall: float = 1_700_000_000.0) -> None:
        self._now = round(now * _SECOND)
        self._wall = wall
        self._worked = 0.0
        self._turned: list[_Turned] = []

    def now(self) -> float:
        """The monotonic clock, in seconds."""
        return self._now / _SECOND

    def now_ns(self) -> int:
        """The monotonic clock, in nanoseconds."""
        return self._now

    def wall(self) -> float:
        """Seconds since the epoch."""
        return self._wall

    def worked(self) -> float:
        """Seconds of processor time that the watchdog has used."""
        return self._worked

    def drive(self, turned: _Turned) -> None:
        """Let something live by this clock from now on."""
        self._turned.append(turned)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        until = self._now + round(seconds * _SECOND)
        while self._now < until:
            # At least by one: an instant in seconds may lie a little behind the same in nanoseconds.
            self._move(min(until - self._now, max(self._wait(until), 1)))
            self._turn()
        self._turn()
        for _ in range(_MOST_TURNS):
            if self._wait(until) > 0:
                break
            self._turn()

    def _wait(self, otherwise: int) -> int:
        return min((round(turned.wait_time() * _SECOND) for turned in self._turned), default=otherwise)

    def _turn(self) -> None:
        for turned in self._turned:
            turned.turn()

    def jump(self, seconds: float) -> None:
        """Let time pass in which nobody looks: as when the host is paused."""
        self._move(round(seconds * _SECOND))

    def work(self, seconds: float) -> None:
        """Let time pass in which the watchdog itself is busy."""
        self.jump(seconds)
        self._worked += seconds

    def step_wall(self, seconds: float) -> None:
        """Set the wall clock; the monotonic clock knows nothing of it."""
        self._wall += seconds

    def _move(self, nanoseconds: int) -> None:
        self._now += nanoseconds
        self._wall += nanoseconds / _SECOND


class InMemoryWatchdog:
    """A watchdog over the timers of this process, in this process, that records what it would have killed for.

    As a context manager it is the one that `unhang.expires` uses inside, whatever is configured.

    Attributes:
        clock: the `ManualClock` that it lives by.
        client: arms timers with it.
        expired: the timers for which this process would have been killed, in their order. Each is told once, and its
            block goes on.
        near_misses: timers that were disarmed in the last moment.

    Not thread-safe. In a forked child it watches nobody.
    """

    def __init__(self, clock: ManualClock | None = None) -> None:
        self.clock = clock or ManualClock()
        self.expired: list[Expired] = []
        self.near_misses: list[Expired] = []
        self._watch = PageWatch(self, self.clock)
        self._worker = Watched(os.getpid())
        self._watch.join(self._worker)
        self.client = SharedTimerClient._over(_Memory(self._watch, self._worker), self.clock.now_ns)
        self.clock.drive(self._watch)

    @property
    def live(self) -> list[str]:
        """The scopes of the timers that are armed."""
        return [seen.scope for seen in self._live()]

    def _live(self) -> list[Snapshot]:
        return list(self._worker.timers.live())

    def advance(self, seconds: float) -> None:
        """Let time pass: what expires meanwhile is in `expired` afterwards."""
        self.clock.advance(seconds)

    def advance_to_next_deadline(self) -> float:
        """Let time pass until the next timer expires; returns the seconds, 0 when no timer is armed."""
        deadlines = [seen.deadline for seen in self._live() if seen.deadline > self.clock.now_ns()]
        if not deadlines:
            return 0.0
        seconds = (min(deadlines) - self.clock.now_ns()) / _SECOND
        self.clock.advance(seconds)
        return seconds

    def execute(self, worker: Watched, timers: list[Expired], still: Callable[[], Outcome | None]) -> Outcome:  # noqa: ARG002
        """Internal: what the watch has done for it."""
        outcome = still()
        if outcome is not None:
            return outcome
        self.expired += timers
        return Outcome.GONE  # as far as the watch is concerned

    def look_early(self, worker: Watched) -> None:
        """Internal."""

    def damaged(self, worker: Watched, why: str) -> None:
        """Internal."""

    def prepare(self, worker: Watched, timers: list[Expired]) -> None:
        """Internal."""

    def could_not_run(self, worker: Watched, timer: Expired) -> float:  # noqa: ARG002 - see Hands
        """Internal."""
        return 0.0

    def is_held(self, worker: Watched) -> bool:  # noqa: ARG002 - see Hands
        """Internal."""
        return False

    def tell(self, event: str, worker: Watched | None, timers: list[Expired]) -> None:  # noqa: ARG002
        """Internal: what the watch tells."""
        if event == "near miss":
            self.near_misses += timers

    def __enter__(self) -> Self:
        self._before = choose._client
        choose.set_client(self.client)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        choose.set_client(self._before)


class _Memory:
    """The channel to a watch in the same process."""

    def __init__(self, watch: PageWatch, worker: Watched) -> None:
        self._watch = watch
        self._worker = worker

    def new_page(self, size: int) -> PageWriter:
        memory = bytearray(size)
        writer = PageWriter(memory)
        self._worker.timers.add(PageReader(memoryview(memory)))
        self._watch.kicked(self._worker)
        return writer

    def new_durations(self, size: int) -> DurationWriter:
        return DurationWriter(memoryview(bytearray(size)))

    def attend(self, watched: memoryview, deadline: int) -> bool:  # noqa: ARG002 - it looks at all of them
        self._watch.kicked(self._worker)
        return True

    def find(self) -> None: ...

    def connect(self) -> None:
        return None

    def tell(self) -> None: ...

    def abandon(self) -> None:
        # Not closed: a finalizer may have come here in the middle of a look.
        self._worker.timers = TimerReader()


with contextlib.suppress(ImportError):
    import pytest

    @pytest.fixture
    def unhang_watchdog() -> Iterator[InMemoryWatchdog]:
        """An `InMemoryWatchdog` that `unhang.expires` uses during the test."""
        with InMemoryWatchdog() as watchdog:
            yield watchdog
