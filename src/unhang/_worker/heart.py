"""What a `Heartbeat` is, whichever implementation it has."""

from __future__ import annotations

from unhang._worker.seconds import nanoseconds
from unhang._worker.slot import NO_SLOTS
from unhang.errors import TimerStateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import timedelta
    from types import TracebackType
    from typing import Any, NoReturn, Self, SupportsIndex

    from unhang._worker.client import SharedTimerClient
    from unhang._worker.learned import Learned
    from unhang.api import TimerClient

HOW_TO_BEAT = (
    "write `with unhang.heartbeat(60) as steps:` around the loop, and `steps.beat()` inside; "
    "around each call of a function, `@unhang.expires(60)`"
)


class HeartbeatBase:
    """What `heartbeat` returns. To be used by one thread at a time; not watched in a forked child until it beats."""

    __slots__ = NO_SLOTS

    _args: tuple[float | timedelta | Learned, str, TimerClient | SharedTimerClient | None]
    _options: dict[str, Any]
    _timer: Any
    _closed: bool

    def __init__(
        self,
        after: float | timedelta | Learned,
        scope: str,
        client: TimerClient | SharedTimerClient | None,
        **options: Any,
    ) -> None:
        nanoseconds(after, "after")
        self._args = (after, scope, client)
        self._options = options
        self._timer = None
        self._closed = False

    def beat(self) -> None:
        """There was progress: the timeout starts, or starts over.

        Raises:
            TimerStateError: the heartbeat was closed.
            NoTimerClientError, WatchdogLostError: as `unhang.expires`.
        """
        raise NotImplementedError

    def _begin(self) -> None:
        """The first beat, and the next one behind one that could not arm the timer anew."""
        from unhang._worker.choose import expires  # that module needs the implementation, which needs this one

        if self._closed:
            raise TimerStateError("beat", self._args[1], self.state)
        before = self._timer
        if before is not None and getattr(before, "_slot", True):  # a signal handler has beaten meanwhile
            before.restart()
            return
        timer = expires(*self._args, **self._options)
        ours: Any = timer
        if hasattr(self._args[0], "budgets"):  # behind the second beat, another timeout holds
            from unhang._worker.starting import FirstLap

            ours = FirstLap(self, timer)
        try:
            timer.__enter__()
        except BaseException:
            if getattr(timer, "_slot", None):  # a signal handler that raises came behind the arming
                timer.__exit__(None, None, None)
            raise
        if self._closed or self._timer is not before:  # a signal handler has closed it, or has had the first beat
            timer.__exit__(None, None, None)
        else:
            self._timer = ours

    def close(self) -> None:
        """The loop is over: the timer is disarmed. May be called twice."""
        timer, self._timer = self._timer, None
        self._closed = True
        if timer is not None and getattr(timer, "_slot", True):  # not one that could not be armed anew
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

    def __call__(self, *_args: object, **_kwargs: object) -> NoReturn:
        raise TypeError(f"a heartbeat is not called, and decorates no function: {HOW_TO_BEAT}")

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("a heartbeat cannot be copied or pickled: make another one")

    def __repr__(self) -> str:
        return f"<Heartbeat {self._args[1]!r}, {self.state}>"
