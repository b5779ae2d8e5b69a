"""The timer contract: what a worker asks of a watchdog, and how a watchdog answers.

A worker wraps what may get stuck in `expires`. That asks a `TimerClient` to arm a timer, and to disarm it
behind the block. The client sends both as a `TimerRequest` to a `TimerServer`, which reaps the worker if
the timer expires first. Names, signatures and observable behaviour are those of
``torch.distributed.elastic.timer.api`` in torch 2.13.
"""

from __future__ import annotations

import abc
import contextlib
import functools
import logging
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Literal, ParamSpec, TypeVar, cast

from unhang._core.callsite import call_site
from unhang._platform.loop_thread import LoopThread
from unhang.errors import NoTimerClientError

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

    @property
    def _deadline(self) -> float | None:
        """The monotonic deadline, if the request was received, and its expiration time is still the one it had."""
        expiration_time, deadline = getattr(self, "_received", (None, None))
        return deadline if expiration_time == self.expiration_time else None

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

    `start` and `stop` may be called from any thread, not from several at once. A forked child inherits a
    server without its thread; it should leave it alone.
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

    def _watchdog_loop(self) -> None:
        while not self._stop_signaled:
            try:
                self._run_watchdog()
            except Exception as error:  # noqa: BLE001 - what a subclass raises is logged, and the watch goes on
                self._turn_raised(error)

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
            logger.info("Reaping worker_id=[%s]. Expired timers: %s", worker_id, self._get_scopes(timers))
            if self._reap_worker_no_throw(worker_id):
                logger.info("Successfully reaped worker=[%s]", worker_id)
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
        logger.error("Error reaping worker=[%s]. Will retry on next watchdog.", worker_id)

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


_timer_client: TimerClient | None = None


def configure(timer_client: TimerClient | None) -> None:
    """Set the client that `expires` uses in this process when it is given none; None clears it."""
    global _timer_client  # noqa: PLW0603 - one client a process is what the contract says
    _timer_client = timer_client
    logger.info("Timer client configured to: %s", type(_timer_client).__name__)


def expires(after: float, scope: str | None = None, client: TimerClient | None = None) -> Expiration:
    """Arm a timer for a block, or for each call of a decorated function, and disarm it behind.

    ::

        with expires(after=60):
            all_reduce(x)

    If the block still runs when the timer expires, the worker may be reaped: for the clients in this package
    it is killed from outside. It is not promised that it is reaped at that very instant.

    Args:
        after: the timeout in seconds, from entering the block on.
        scope: names the timer. Default: the place of this call, as ``file#line``. Arming a scope again
            replaces the timer, so two threads in one place share one.
        client: whom to ask; default: the one given to `configure`, looked up when the block is entered.

    Raises:
        NoTimerClientError: (a RuntimeError) on entering, when there is no client.
        TypeError, ValueError: ``after`` is not a number.

    Whatever the client's ``acquire`` raises is raised on entering. An exception of the block passes through
    untouched even if disarming fails, which is then logged; otherwise what ``release`` raises is raised.
    """
    if after != after:  # noqa: PLR0124 - only NaN differs from itself
        raise ValueError("expires(after=nan): after is the timeout in seconds, and must be a number")
    if scope is None:
        scope = call_site(sys._getframe(1))
    return Expiration(after, scope, client)


class Expiration:
    """What `expires` returns: a context manager, and a decorator of plain and ``async`` functions.

    A decorated function arms a timer of its own for each call. Not to be entered by two threads at once.
    """

    __slots__ = ("_after", "_armed_with", "_client", "_scope")

    def __init__(self, after: float, scope: str, client: TimerClient | None) -> None:
        self._after = after
        self._scope = scope
        self._client = client

    def __enter__(self) -> None:
        client = self._client if self._client is not None else _timer_client
        if client is None:
            raise NoTimerClientError
        self._armed_with = client
        try:
            client.acquire(self._scope, float(time.time() + self._after))
        except Exception:
            raise
        except BaseException:
            # KeyboardInterrupt and the like come from a signal handler, perhaps behind the arming.
            with contextlib.suppress(Exception):
                client.release(self._scope)
            raise

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        try:
            self._armed_with.release(self._scope)
        except Exception:
            if exc_type is None:
                raise
            logger.exception("Could not disarm the timer [%s]", self._scope)
        except BaseException:
            with contextlib.suppress(Exception):
                self._armed_with.release(self._scope)
            raise
        return False

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        from inspect import iscoroutinefunction  # takes longer to import than all of unhang

        if iscoroutinefunction(function):

            @functools.wraps(function)
            async def with_timer_async(*args: P.args, **kwargs: P.kwargs) -> Any:
                with Expiration(self._after, self._scope, self._client):
                    return await function(*args, **kwargs)

            return cast("Callable[P, R]", with_timer_async)

        @functools.wraps(function)
        def with_timer(*args: P.args, **kwargs: P.kwargs) -> R:
            with Expiration(self._after, self._scope, self._client):
                return function(*args, **kwargs)

        return with_timer
