"""What a `Timer` is, whichever implementation it has, and what of it is not worth being fast."""

from __future__ import annotations

from unhang._core.page import DEADLINE, NEVER, TIMEOUT
from unhang._worker.seconds import nanoseconds
from unhang._worker.slot import NO_SLOTS, UNWATCHED
from unhang.errors import TimerStateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta
    from types import TracebackType
    from typing import Any, NoReturn, ParamSpec, Self, SupportsIndex, TypeVar

    from unhang._worker.slot import SiteBase, SlotBase

    P = ParamSpec("P")
    R = TypeVar("R")

_SECOND = 1e9
# Nanoseconds. Finding a watchdog, or starting another one, takes less.
_LONGEST_FINDING = 120_000_000_000


class TimerBase:
    """One block with a timeout: what `unhang.expires` returns for shared timers.

    A context manager, plain and ``async``, for one block at a time and any number of them in turn, and a decorator,
    which gives each call a timer of its own. Times are seconds of the monotonic clock, ``CLOCK_MONOTONIC``.

    Enter, use and leave a timer in one thread, or hand it over as a whole: it is not thread-safe in itself. In a
    child that was forked inside the block, the timer goes on as if nothing had happened, but nobody watches it.
    Not made to be subclassed.
    """

    __slots__ = NO_SLOTS

    _site: SiteBase
    _slot: Any  # SlotBase while it is armed or suspended, else what is false
    _was_entered: bool
    _left: int  # nanoseconds, while the timer is suspended

    def __enter__(self) -> Self:
        """Arm the timer."""
        raise NotImplementedError

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Disarm the timer."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        """Arm the timer, without waiting for anything."""
        if self._slot:
            self._refuse("enter")
        try:
            return self.__enter__()
        except BaseException:
            if self._slot:  # a signal handler has raised after the arming
                self.__exit__(None, None, None)
            raise

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Disarm the timer, without waiting for anything."""
        self.__exit__(exc_type, exc, traceback)

    def restart(self) -> None:
        """Start the timeout over, from now on, without what the timer was extended by.

        Raises:
            TimerStateError: the timer is not armed.
            WatchdogLostError: as on entering.
        """
        raise NotImplementedError

    def _move(self, slot: SlotBase, deadline: int, timeout: int) -> None:
        """Give the slot, armed or suspended, another deadline and another timeout; nanoseconds."""
        raise NotImplementedError

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
            return "disarmed" if self._was_entered else "created"
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
            self._refuse("ask for the remaining time of")
        deadline = slot.cell[DEADLINE]
        left: int = self._left if deadline >= NEVER else deadline - self._site.clock()
        return left / _SECOND

    def extend(self, seconds: float | timedelta) -> None:
        """Move the deadline into the future by ``seconds``, a number above 0 or a ``timedelta``.

        Raises:
            TimerStateError: the timer is not armed.
            TypeError, ValueError: it is not a time.
        """
        more = nanoseconds(seconds, "extend(seconds)")
        slot = self._armed("extend")
        self._site.slots.retire(slot)
        deadline = slot.cell[DEADLINE]
        more = min(more, NEVER - 1 - deadline)
        self._move(slot, deadline + more, slot.cell[TIMEOUT] + more)

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

    def _attend(self, slot: SlotBase, deadline: int) -> None:
        """As `_notify`, for a timer that was just entered, and that gets another slot if its page is given up."""
        self._notify(slot, deadline)
        if slot.watched is UNWATCHED:
            self._arm_anew()

    def _notify(self, slot: SlotBase, deadline: int) -> None:
        """Notify the watchdog of a deadline before which it may not look, or find it.

        The block does not pay for the time that finding it takes: its deadline is put off meanwhile, and then moved by
        that time.
        """
        site = self._site
        if not site.slots.attend(slot.watched, deadline):
            return
        began = site.clock()
        held = min(deadline + _LONGEST_FINDING, NEVER - 1)
        # A signal handler may have left the block, or moved the deadline. No call between a look and the store.
        if slot is not self._slot or slot.cell[DEADLINE] != deadline:
            return
        slot.cell[DEADLINE] = held
        try:
            site.slots.find()
        finally:
            deadline = min(deadline + site.clock() - began, NEVER - 1)
            if slot is self._slot and slot.cell[DEADLINE] == held:
                slot.cell[DEADLINE] = deadline
        if slot.watched is not UNWATCHED:
            site.slots.attend(slot.watched, deadline)

    def _restart_apart(self) -> None:
        """Restart a timer whose slot is not given back to its site: inherited, extended, suspended, or a start-up."""
        slot = self._armed("restart") if self._slot else None
        if slot is None or slot.watched is UNWATCHED:
            self._arm_anew()
            return
        site = self._site
        after = getattr(slot.free, "after", site.after)  # a first block keeps its timeout, whatever others have by now
        deadline = site.clock() + after
        if slot is self._slot:
            slot.count += 1
        self._move(slot, deadline, after)

    def _arm_anew(self) -> None:
        """It was armed before a fork, or its page was lost: from now on it is watched, in a slot of this process's."""
        self.__exit__(None, None, None)
        self.__enter__()

    def _armed(self, action: str) -> SlotBase:
        slot: SlotBase = self._slot
        if not slot or slot.cell[DEADLINE] >= NEVER:
            self._refuse(action)
        return slot

    def _suspend(self) -> None:
        slot = self._armed("suspend")
        deadline = slot.cell[DEADLINE]
        self._left = deadline - self._site.clock()
        if slot is self._slot:  # no signal handler has left its block meanwhile
            slot.cell[DEADLINE] = deadline | NEVER

    def _resume(self) -> None:
        slot = self._slot
        if not slot or slot.cell[DEADLINE] < NEVER:
            return  # its block was left inside, or entered again since
        self._site.slots.retire(slot)
        deadline = self._site.clock() + self._left
        # The instant of arming stays: time that the watchdog has to give back is counted from there.
        armed_at = (slot.cell[DEADLINE] & ~NEVER) - slot.cell[TIMEOUT]
        self._move(slot, deadline, deadline - armed_at)

    def _refuse(self, action: str) -> NoReturn:
        raise TimerStateError(action, self.scope, self.state)

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("a timer cannot be copied or pickled: two would disarm each other; make another one")

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        from unhang._worker.choose import timers_like
        from unhang._worker.decorate import decorate, scope_of

        is_named = self._site.source is None
        return decorate(function, timers_like(self, self.scope if is_named else scope_of(function, self.scope)))

    def __repr__(self) -> str:
        return f"<Timer {self.scope!r} of {self.after:g} s, {self.state}>"


class Suspension:
    """What `Timer.suspended` returns."""

    __slots__ = ("_timer",)

    def __init__(self, timer: TimerBase) -> None:
        self._timer = timer

    def __enter__(self) -> None:
        self._timer._suspend()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer._resume()
