"""The client of shared timers; `unhang.shared_timer` has both sides."""

from __future__ import annotations

import os

from unhang._core import real_time as time
from unhang._platform.finalizer import finalizer
from unhang._worker.flags import says_no
from unhang._worker.implementation import CHOSEN, Timer
from unhang._worker.seconds import nanoseconds
from unhang._worker.slots import Slots
from unhang.errors import NoTimerClientError, NotSupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta
    from typing import Any, Self

    from unhang._worker.learned import Learned
    from unhang._worker.slots import Channel

ADDRESS = "UNHANG_ADDRESS"
# The file of learned durations; set, it has workers learn.
LEARN = "UNHANG_LEARN"
# An expiration time that is over is a timeout this short, in seconds.
_AT_ONCE = 1e-6


class SharedTimerClient:
    """Timers in memory that this process shares with a watchdog: arming one is a store, not a message.

    ::

        client = SharedTimerClient("/run/user/1000/unhang/serve.sock")
        with client.timer(after=60, scope="step"):
            ...

    Most programs need none of their own: `unhang.configure` makes one. A process with several clients is one worker to
    their watchdog all the same. `acquire` and `release` are those of
    `unhang.api.TimerClient`, for code that is written for that: one timer for each scope.

    Args:
        address: the path of the watchdog's socket; default: the environment variable ``UNHANG_ADDRESS``.
        on_lost: what to do when the watchdog cannot be reached, or does not look any more: ``"warn"`` says so
            once per outage, through the logger ``unhang``, and carries on; ``"raise"`` makes each arming raise
            `WatchdogLostError` until the watchdog is back.
        observe: ask the watchdog to report what expires, and never to kill this process for timers of this client.
        learn: write down how long blocks take, for `unhang.learned`; ``benchmarks/bench_learning.py`` prints what
            that costs a block. Default: whether the environment variable ``UNHANG_LEARN`` is set, as
            ``unhang run --learn`` does it.

    Raises:
        NoTimerClientError: there is neither an address nor ``UNHANG_ADDRESS``.
        NotSupportedError: this system has no shared memory that can be sealed, or does not say who connects.

    Thread-safe. In a forked child it starts over: the first arming there connects anew, as a worker of its own.
    Can be pickled, as an argument for a new process.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        on_lost: str = "warn",
        observe: bool = False,
        learn: bool | None = None,
        _revive: Callable[[str], None] | None = None,
    ) -> None:
        if on_lost not in ("warn", "raise"):
            raise ValueError(f"on_lost is 'warn' or 'raise', not {on_lost!r}")
        address = address or os.environ.get(ADDRESS)
        if not address:
            raise NoTimerClientError
        if not hasattr(os, "memfd_create"):
            raise NotSupportedError("SharedTimerClient", "no memfd_create(); use FileTimerClient or LocalTimerClient")
        self.address: str = address
        self._options = {"on_lost": on_lost, "observe": observe, "learn": learn}
        from unhang._worker.link import Link  # what it needs is there then, though descriptors may be short later

        self._set_up(Link(address, on_lost=on_lost, observe=observe, revive=_revive), time.monotonic_ns, learn=learn)

    def _set_up(
        self, channel: Channel, clock: Callable[[], int], made_of: Any = CHOSEN, *, learn: bool | None = None
    ) -> None:
        learn = not says_no(os.environ.get(LEARN, "")) if learn is None else learn
        self.slots = Slots(channel, clock, made_of, learn=learn)
        # What expires() looks a block up in.
        self.sites = self.slots.sites
        self._held: dict[str, Timer] = {}

    @classmethod
    def _over(cls, channel: Channel, clock: Callable[[], int], made_of: Any = CHOSEN, *, learn: bool = False) -> Self:
        """A client over another channel and clock, and with another implementation of a block, for tests."""
        client = cls.__new__(cls)
        client.address = "memory"
        client._options = {}
        client._set_up(channel, clock, made_of, learn=learn)
        return client

    def timer(
        self,
        after: float | timedelta | Learned,
        scope: str,
        source: object = None,
        key: tuple[object, ...] | None = None,
        *,
        signal: int | str | None = None,
        grace: float | timedelta | None = None,
        pretimeout: float | timedelta | None = None,
    ) -> Timer:
        """A timer that expires ``after`` seconds, or a ``timedelta``, behind the instant at which its block is entered.

        Args:
            after: the timeout, or what `unhang.learned` returns.
            scope: names the timer; several at once may have the same name.
            source: internal.
            key: internal.
            signal: as for `unhang.expires`.
            grace: as for `unhang.expires`.
            pretimeout: as for `unhang.expires`.

        Raises:
            TypeError, ValueError: ``after`` is no time above 0, ``scope`` no string, or ``signal`` no signal.
        """
        if not isinstance(scope, str):
            raise TypeError(f"scope is the name of the timer, a string, not {type(scope).__name__}")
        timeout = nanoseconds(after, "after")
        key = key or (scope, after)
        options = {}
        if not signal is grace is pretimeout is None:
            key = (*key, signal, grace, pretimeout)
        try:
            site = self.sites.get(key)
        except TypeError:  # not hashable: parse() says what is wrong
            site = None
        if site is not None:
            return self.slots.timer(site)
        if not signal is grace is pretimeout is None:
            from unhang._worker.endings import parse  # for those who want it

            ending, early = parse(signal, grace, pretimeout)
            options = {"ending": ending, "pretimeout": early}
        if hasattr(after, "budgets"):
            return self.slots.timer(self.slots.learned_site(key, scope, after, source, **options))  # type: ignore[arg-type]
        return self.slots.timer(self.slots.site(key, scope, timeout, source, **options))

    def acquire(self, scope_id: str, expiration_time: float) -> None:
        """Arm the timer ``scope_id`` of this process, to expire at ``expiration_time`` (wall clock, seconds).

        Arming one that is armed replaces its deadline. The instant is converted to the monotonic clock here and now.
        """
        self.release(scope_id)
        self._held[scope_id] = self.timer(max(expiration_time - time.time(), _AT_ONCE), scope_id).__enter__()

    def release(self, scope_id: str) -> None:
        """Disarm the timer ``scope_id`` of this process; does nothing if there is none."""
        timer = self._held.pop(scope_id, None)
        if timer is not None:
            timer.__exit__(None, None, None)

    def connect(self) -> str | None:
        """Connect now, and not only when the first timer is armed; returns why it is not watched, or None if it is.

        Raises:
            WatchdogLostError: no watchdog can be reached, with ``on_lost="raise"``.
        """
        return self.slots.channel.connect()

    def _leave(self) -> None:
        if hasattr(self, "slots"):
            self.slots.leave()

    __del__ = finalizer(_leave)

    def close(self) -> None:
        """Leave the watchdog: it forgets all timers of this client. Arming one connects again."""
        self.slots.close()

    def __reduce__(self) -> tuple[object, ...]:
        return _unpickle, (type(self), self.address, self._options)


def _unpickle(cls: type[SharedTimerClient], address: str, options: dict[str, str | bool | None]) -> SharedTimerClient:
    return cls(address, **options)  # type: ignore[arg-type]
