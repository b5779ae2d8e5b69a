"""A timer that is restarted on progress."""

from __future__ import annotations

import sys

from unhang._worker.choose import expires
from unhang._worker.seconds import nanoseconds
from unhang.errors import TimerStateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import timedelta
    from types import TracebackType
    from typing import Any, Self

    from unhang._worker.client import SharedTimerClient
    from unhang.api import TimerClient


class Heartbeat:
    """What `heartbeat` returns. To be used by one thread at a time; not watched in a forked child until it beats."""

    __slots__ = ("_args", "_closed", "_options", "_timer")

    def __init__(
        self, after: float | timedelta, scope: str, client: TimerClient | SharedTimerClient | None, **options: Any
    ) -> None:
        nanoseconds(after, "after")
        self._args = (after, scope, client)
        self._options = options
        self._timer: Any = None
        self._closed = False

    def beat(self) -> None:
        """There was progress: the timeout starts, or starts over.

        Raises:
            TimerStateError: the heartbeat was closed.
            NoTimerClientError, WatchdogLostError: as `unhang.expires`.
        """
        if self._timer is not None:
            self._timer.restart()
            return
        if self._closed:
            raise TimerStateError("beat", self._args[1], self.state)
        timer = expires(*self._args, **self._options)
        timer.__enter__()
        self._timer = timer

    def close(self) -> None:
        """The loop is over: the timer is disarmed. May be called twice."""
        timer, self._timer = self._timer, None
        self._closed = True
        if timer is not None:
            timer.__exit__(None, None, None)

    @property
    def state(self) -> str:
        """``created`` before the first beat, ``armed`` (or ``expired``) behind it, ``closed``."""
        if self._closed:
            return "closed"
        return "created" if self._timer is None else str(self._timer.state)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Heartbeat {self._args[1]!r}, {self.state}>"


def heartbeat(
    after: float | timedelta,
    scope: str | None = None,
    client: TimerClient | SharedTimerClient | None = None,
    *,
    signal: int | str | None = None,
    grace: float | timedelta | None = None,
    pretimeout: float | timedelta | None = None,
) -> Heartbeat:
    """A timer for a loop: armed by the first ``beat()``, restarted by each, disarmed by ``close()``.

    ::

        with heartbeat(after=60, scope="steps") as steps:
            for batch in loader:
                train(batch)
                steps.beat()

    If no beat comes for ``after`` seconds, the watchdog kills this process. Before the first beat nothing is armed,
    so start-up may take its time.

    Args:
        after: the timeout, as for `expires`.
        scope: names the timer. Default: the place of this call, as ``file#line``.
        client: as for `expires`.
        signal: as for `expires`.
        grace: as for `expires`.
        pretimeout: as for `expires`.
    """
    if scope is None:
        frame = sys._getframe(1)
        scope = f"{frame.f_code.co_filename}#{frame.f_lineno}"
    return Heartbeat(after, scope, client, signal=signal, grace=grace, pretimeout=pretimeout)
