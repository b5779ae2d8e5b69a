"""The timer contract: what a worker asks of a watchdog, and how a watchdog answers.

A worker wraps what may get stuck in `expires`. That asks a `TimerClient` to arm a timer, and to disarm it
behind the block. The client sends both as a `TimerRequest` to a `TimerServer`, which reaps the worker if
the timer expires first. Names, signatures and observable behaviour are those of
``torch.distributed.elastic.timer.api`` in torch 2.13.
"""

from __future__ import annotations

import abc
import contextlib
import logging
from collections.abc import Callable, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, Literal, ParamSpec, TypeVar

from unhang._core import real_time as time
from unhang._platform.loop_thread import LoopThread
from unhang._worker.choose import configure, current_client, expires
from unhang._worker.client import SharedTimerClient
from unhang._worker.decorate import decorate, scope_of
from unhang._worker.implementation import Timer

__all__ = ["RequestQueue", "TimerClient", "TimerRequest", "TimerServer", "configure", "expires"]

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")


class TimerRequest:
    """A request to arm a timer or, with a negative ``expiration_time``, to disarm it.

    Attributes:
        worker_id: whatever identifies a worker to the client and the server; a pid in those of this package.
        scope_id: names the timer among those of its worker.
        expiration_time: the deadline, in seconds of the wall clock as ``time.time()`` gives them.
    """

    # _received: the expiration time and the monotonic deadline that it meant to the server which received it.
    __slots__ = ("_received", "expiration_time", "scope_id", "worker_id")

    _received: tuple[float, float]

    def __init__(self, worker_id: Any, scope_id: str, expiration_time: float) -> None:
        self.worker_id = worker_id
        self.scope_id = scope_id
        self.expiration_time = expiration_time

    def __eq__(self, other: object) -> bool:
        if isinstance(other, TimerRequest):
            return (self.worker_id, self.scope_id, self.expiration_time) == (
                other.worker_id,
                other.scope_id,
                other.expiration_time,
            )
        return False

    __hash__ = None  # type: ignore[assignment]  # it is mutable

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(worker_id={self.worker_id!r}, scope_id={self.scope_id!r}, "
            f"expiration_time={self.expiration_time!r})"
        )


class TimerClient(abc.ABC):
    """What a worker arms and disarms its timers with."""

    @abc.abstractmethod
    def acquire(self, scope_id: str, expiration_time: float) -> None:
        """Arm the timer ``scope_id`` of this worker, to expire at ``expiration_time`` (wall clock, seconds).

        Arming a timer that is live replaces its deadline.
        """

    @abc.abstractmethod
    def release(self, scope_id: str) -> None:
        """Disarm the timer ``scope_id`` of this worker; does nothing if there is none."""


class RequestQueue(abc.ABC):
    """Where a `TimerServer` gets requests from. Used by the server's loop alone."""

    @abc.abstractmethod
    def size(self) -> int:
        """How many requests are waiting. Only `get` may make them fewer, so ``get(size(), 0)`` returns them."""

    @abc.abstractmethod
    def get(self, size: int, timeout: float) -> list[TimerRequest]:
        """Up to ``size`` requests; waits for them, ``timeout`` seconds at most."""


class TimerServer(LoopThread, abc.ABC):
    """A watchdog thread that reaps workers whose timers have expired.

    A subclass keeps the timers and knows how to reap. The loop waits for requests for at most
    ``max_interval`` seconds, registers them, and reaps whoever has expired, again and again; the
    subclasses in this package shorten the wait to the next deadline.

    Args:
        request_queue: where requests come from. If it has a method ``interrupt()`` that makes a waiting
            ``get`` return, `stop` calls it and ends the thread at once.
        max_interval: seconds to wait for requests in one turn of the loop.
        daemon: whether the thread lets the process end without it.

    `start` and `stop` may be called from any thread, not from several at once. The servers of this package open nothing
    before `start`: one may be made in a parent and started in its forked child, or be pickled for another process. Once
    it was started it belongs to that process, and a forked child should leave it alone.
    """

    def __init__(self, request_queue: RequestQueue, max_interval: float, daemon: bool = True) -> None:
        super().__init__(max_interval, daemon)
        self._request_queue = request_queue

    @abc.abstractmethod
    def register_timers(self, timer_requests: list[TimerRequest]) -> None:
        """Arm and disarm what the requests ask for, in their order."""

    @abc.abstractmethod
    def clear_timers(self, worker_ids: set[Any]) -> None:
        """Disarm all timers of these workers."""

    @abc.abstractmethod
    def get_expired_timers(self, deadline: float) -> dict[Any, list[TimerRequest]]:
        """The timers with an ``expiration_time`` of ``deadline`` or earlier, by worker. They stay armed."""

    @abc.abstractmethod
    def _reap_worker(self, worker_id: Any) -> bool:
        """Reap one worker. True: it is reaped. False: try again later. An exception counts as reaped."""

    def _reap_worker_no_throw(self, worker_id: Any) -> bool:
        """As `_reap_worker`, with an exception logged and counted as reaped."""
        try:
            return self._reap_worker(worker_id)
        except Exception:
            logger.exception("Error in _reap_worker() of worker_id=[%s], which now counts as reaped", worker_id)
            return True

    def _run_watchdog(self) -> None:
        """One turn of the loop."""
        batch_size = max(1, self._request_queue.size())
        self.register_timers(self._request_queue.get(batch_size, self._wait_time()))
        self._recheck()
        self.clear_timers(self._reap_expired(self.get_expired_timers(self._now())))

    def _reap_expired(self, expired: dict[Any, list[TimerRequest]]) -> set[Any]:
        """Reap workers; returns those that are reaped."""
        reaped = set()
        for worker_id, timers in expired.items():
            fields = _fields("expired", worker_id, timers)
            logger.info("Reaping worker_id=[%s]. Expired timers: %s", worker_id, self._get_scopes(timers), extra=fields)
            if self._reap_worker_no_throw(worker_id):
                logger.info("Successfully reaped worker=[%s]", worker_id, extra=_fields("killed", worker_id, timers))
                reaped.add(worker_id)
            else:
                self._retry_later(worker_id)
        return reaped

    def _wait_time(self) -> float:
        """Seconds to wait for requests in this turn."""
        return self._max_interval

    def _now(self) -> float:
        """The wall clock, for `get_expired_timers`."""
        return time.time()

    def _recheck(self) -> None:
        """The last look at what workers asked for, before anyone is judged."""

    def _retry_later(self, worker_id: Any) -> None:
        """The worker was not reaped; its timers are still armed."""
        logger.error(
            "Error reaping worker=[%s]. Will retry on next watchdog.", worker_id, extra=_fields("failed", worker_id)
        )

    def _get_scopes(self, timer_requests: list[TimerRequest]) -> list[str]:
        return [request.scope_id for request in timer_requests]

    def start(self) -> None:
        """Start the watchdog thread; does nothing if it runs. A server that was stopped can be started again."""
        self._start_thread()

    def stop(self) -> None:
        """Stop the watchdog thread, and wait for it, ``max_interval`` or 1 s at most. May be called twice."""
        self._stop_signaled = True
        interrupt = getattr(self._request_queue, "interrupt", None)
        if interrupt is not None:
            interrupt()
        self._join_thread()


def _fields(event: str, worker: Any, timers: Sequence[Any] = (), **more: Any) -> dict[str, Any]:
    """The ``extra`` of a log record about a worker: a dictionary ``unhang``, named as in `unhang.report.live.Event`."""
    about = {"scope": getattr(timers[0], "scope_id", ""), "timers": len(timers)} if timers else {}
    return {"unhang": {"event": event, "pid": worker, **about, **more}}


TimerClient.register(SharedTimerClient)


def _seconds(after: float | timedelta) -> float:
    return after.total_seconds() if isinstance(after, timedelta) else after


class Expiration:
    """What `expires` returns for clients of this contract: a context manager, plain and ``async``, and a decorator.

    A decorated function, plain or ``async``, arms a timer of its own for each call; unless a scope is given, it has the
    function's name. Not to be entered by two threads at once. Whatever the client's ``acquire`` raises is raised on
    entering. An exception of the block passes through untouched even if disarming fails, which is then logged;
    otherwise what ``release`` raises is raised.
    """

    __slots__ = ("_after", "_armed_with", "_client", "_is_named", "_scope")

    def __init__(
        self, after: float | timedelta, scope: str, client: TimerClient | None, *, is_named: bool = True
    ) -> None:
        if after != after:  # noqa: PLR0124 - only NaN differs from itself
            raise ValueError("expires(after=nan): after is the timeout in seconds, and must be a number")
        self._after = after if type(after) is float else _seconds(after)
        self._scope = scope
        self._client = client
        self._is_named = is_named

    def __enter__(self) -> Timer | None:
        client = self._client
        if client is None:
            client = current_client()
            if isinstance(client, SharedTimerClient):
                # It was configured since this was made.
                timer = client.timer(self._after, self._scope)
                self._armed_with: TimerClient | Timer = timer
                return timer.__enter__()
        self._armed_with = client
        try:
            client.acquire(self._scope, float(time.time() + self._after))
        except Exception:
            raise
        except BaseException:
            # KeyboardInterrupt and the like come from a signal handler, perhaps after the arming.
            with contextlib.suppress(Exception):
                client.release(self._scope)
            raise
        return None

    def restart(self) -> None:
        """Start the timeout over: the timer is armed again, which replaces its deadline."""
        if isinstance(self._armed_with, Timer):
            self._armed_with.restart()
        else:
            self._armed_with.acquire(self._scope, float(time.time() + self._after))

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        armed_with = self._armed_with
        try:
            if isinstance(armed_with, Timer):
                armed_with.__exit__(None, None, None)
            else:
                armed_with.release(self._scope)
        except Exception:
            if exc_type is None:
                raise
            logger.exception("Could not disarm the timer [%s]", self._scope)
        except BaseException:
            with contextlib.suppress(Exception):
                self._disarm()
            raise
        return False

    async def __aenter__(self) -> Timer | None:
        """As ``__enter__``: ``acquire`` is called here and now."""
        return self.__enter__()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """As ``__exit__``: ``release`` is called here and now."""
        self.__exit__(exc_type, exc, traceback)

    def _disarm(self) -> None:
        if isinstance(self._armed_with, Timer):
            self._armed_with.__exit__(None, None, None)
        else:
            self._armed_with.release(self._scope)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        scope = self._scope if self._is_named else scope_of(function, self._scope)
        return decorate(function, lambda: Expiration(self._after, scope, self._client))
