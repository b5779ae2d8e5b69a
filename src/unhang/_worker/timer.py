"""What a block does: a `Timer`, which is a few stores into the page.

Sources: the slots of the page are those of `unhang._core.page`. Entering stores the deadline and compares it
with the instant at which the watchdog will look; leaving marks the slot as not armed. Nothing is sent, locked or
waited for, unless the watchdog would look too late, or has not looked for too long.
"""

from __future__ import annotations

from unhang._core.page import DEADLINE, NEVER, SEQUENCE, TIMEOUT
from unhang._worker.seconds import nanoseconds
from unhang._worker.slots import STALE, UNWATCHED
from unhang.errors import TimerStateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta
    from types import TracebackType
    from typing import Any, ParamSpec, Self, TypeVar

    from unhang._worker.slots import Site, Slot

    P = ParamSpec("P")
    R = TypeVar("R")

_SECOND = 1e9


class Timer:
    """One block with a timeout: what `unhang.expires` returns for shared timers.

    A context manager, for one block at a time and any number of them in turn, and a decorator, which gives each
    call a timer of its own. Times are seconds of the monotonic clock, ``CLOCK_MONOTONIC``.

    Enter, use and leave a timer in one thread, or hand it over as a whole: it is not thread-safe in itself. In a
    child that was forked inside the block, the timer goes on as if nothing had happened, but nobody watches it.
    """

    # _slot: None before the first block, False behind each. _left: nanoseconds, while the timer is suspended.
    __slots__ = ("_left", "_site", "_slot")

    _slot: Any  # Slot | Literal[False] | None, which would have to be told apart on the hot path

    def __init__(self, site: Site) -> None:
        self._site = site
        self._slot = None

    def __enter__(self) -> Self:
        site = self._site
        if self._slot:
            raise self._misuse("enter")
        try:
            slot = site.free.pop()
        except IndexError:
            slot = site.slots.take(site)
        deadline = site.clock() + site.after
        slot.count = count = slot.count + 1
        cell = slot.cell
        cell[SEQUENCE] = count
        cell[DEADLINE] = deadline
        # No call between arming and here: a signal handler that raises leaves no timer armed.
        self._slot = slot
        wake = slot.watched[0]
        if not wake <= deadline <= wake + site.slack:
            self._attend(slot, deadline)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        slot = self._slot
        if not slot:
            raise self._misuse("leave")
        slot.cell[DEADLINE] |= NEVER
        self._slot = False
        slot.free.append(slot)

    def _attend(self, slot: Slot, deadline: int) -> None:
        """The watchdog may not look in time: tell it. If that raises, the timer is not armed."""
        try:
            self._site.slots.attend(slot.watched, deadline)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        if slot.watched is UNWATCHED:
            self._arm_anew()

    @property
    def scope(self) -> str:
        """The name of the timer."""
        return self._site.scope

    @property
    def after(self) -> float:
        """The timeout, in seconds."""
        return self._site.after / _SECOND

    @property
    def state(self) -> str:
        """``created``, ``armed``, ``suspended``, ``expired`` (and not yet killed for it) or ``disarmed``."""
        slot = self._slot
        if not slot:
            return "created" if slot is None else "disarmed"
        deadline = slot.cell[DEADLINE]
        if deadline >= NEVER:
            return "suspended"
        return "armed" if deadline > self._site.clock() else "expired"

    def remaining(self) -> float:
        """Seconds until the timer expires, negative behind that; while it is suspended, those that it will have.

        Raises:
            TimerStateError: it is neither armed nor suspended.
        """
        slot = self._slot
        if not slot:
            raise self._misuse("ask for the remaining time of")
        deadline = slot.cell[DEADLINE]
        left: int = self._left if deadline >= NEVER else deadline - self._site.clock()
        return left / _SECOND

    def restart(self) -> None:
        """Start the timeout over, from now on, without what the timer was extended by.

        Raises:
            TimerStateError: the timer is not armed.
            WatchdogLostError: as on entering.
        """
        slot = self._slot
        if slot and slot.watched is UNWATCHED:
            self._arm_anew()
            return
        slot = self._armed("restart")
        site = self._site
        slot.count = count = slot.count + 1
        self._move(slot, site.clock() + site.after, site.after, count)

    def _arm_anew(self) -> None:
        """It was armed before a fork, or its page was lost: from now on it is watched, in a slot of this process's."""
        self.__exit__(None, None, None)
        self.__enter__()

    def extend(self, seconds: float | timedelta) -> None:
        """Move the deadline into the future by ``seconds``, a number above 0 or a ``timedelta``.

        Raises:
            TimerStateError: the timer is not armed.
            TypeError, ValueError: it is not a time.
        """
        more = nanoseconds(seconds, "extend(seconds)")
        slot = self._armed("extend")
        self._site.slots.retire(slot)
        cell = slot.cell
        self._move(slot, cell[DEADLINE] + more, cell[TIMEOUT] + more, slot.count)

    def _armed(self, action: str) -> Slot:
        slot: Slot = self._slot
        if not slot or slot.cell[DEADLINE] >= NEVER:
            raise self._misuse(action)
        return slot

    def _move(self, slot: Slot, deadline: int, timeout: int, count: int) -> None:
        cell = slot.cell
        cell[TIMEOUT] = timeout
        cell[SEQUENCE] = count
        cell[DEADLINE] = deadline
        wake = slot.watched[0]
        if not wake <= deadline <= wake + timeout + STALE:
            self._site.slots.attend(slot.watched, deadline)

    def suspended(self) -> Suspension:
        """A context manager: inside, the timer stands still; behind, it has the time that it had left.

        ::

            with unhang.expires(after=60) as timer:
                compute()
                with timer.suspended():
                    input("continue? ")

        Entering raises `TimerStateError` when the timer is not armed.
        """
        return Suspension(self)

    def _suspend(self) -> None:
        cell = self._armed("suspend").cell
        deadline = cell[DEADLINE]
        self._left = deadline - self._site.clock()
        cell[DEADLINE] = deadline | NEVER

    def _resume(self) -> None:
        slot = self._slot
        if not slot:
            return  # its block was left inside
        self._site.slots.retire(slot)
        deadline = self._site.clock() + self._left
        # The instant of arming stays: time that the watchdog has to give back is counted from there.
        armed_at = (slot.cell[DEADLINE] & ~NEVER) - slot.cell[TIMEOUT]
        self._move(slot, deadline, deadline - armed_at, slot.count)

    def _misuse(self, action: str) -> TimerStateError:
        return TimerStateError(action, self.scope, self.state)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        from unhang._worker.choose import timers_like
        from unhang._worker.decorate import decorate

        return decorate(function, timers_like(self))

    def __repr__(self) -> str:
        return f"<Timer {self.scope!r} of {self.after:g} s, {self.state}>"


class Suspension:
    """What `Timer.suspended` returns."""

    __slots__ = ("_timer",)

    def __init__(self, timer: Timer) -> None:
        self._timer = timer

    def __enter__(self) -> None:
        self._timer._suspend()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer._resume()
