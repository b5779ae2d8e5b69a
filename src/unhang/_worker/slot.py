"""A slot in the hands of one block, and what the blocks of one scope share: what both implementations have in common.

`unhang._worker.plain` adds the attributes in Python, ``_block.c`` in C.
"""

from __future__ import annotations

from sys import is_finalizing

from unhang._core.page import DEADLINE, NEVER, SEQUENCE, SLOT_BYTES, read_scope, scope_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from unhang._worker.slots import Slots

    # The words of a slot, and those of its page in which the watchdog says when it looks.
    Place: TypeAlias = tuple[memoryview, memoryview]

# Where the attributes are is for the implementations to say.
NO_SLOTS: tuple[str, ...] = ()

# Nanoseconds. The watchdog looks each second; when it is so late, the worker finds out whether it is still there.
STALE = 1_500_000_000


class _Unwatched:
    """Stands for the header of a page that nobody watches: any deadline is late enough for it."""

    def __getitem__(self, index: int) -> _Unwatched:
        return self

    def __le__(self, other: object) -> bool:
        return True

    def __add__(self, other: object) -> _Unwatched:
        return self

    __ge__ = __le__


UNWATCHED: memoryview = _Unwatched()  # type: ignore[assignment]


class SlotBase:
    """A slot of a page in the hands of one block, or idle in the list ``free`` of its site.

    A slot that is dropped instead of given back is disarmed: nobody is left who could do it.
    """

    __slots__ = NO_SLOTS

    cell: memoryview
    watched: memoryview
    count: int
    free: list[SlotBase]
    spare: list[Place]

    def __init__(self, free: list[SlotBase], spare: list[Place]) -> None:
        self.free = free
        self.spare = spare

    def put(self, cell: memoryview, watched: memoryview) -> None:
        """Use this place, and give it back in the end."""
        self._place(cell, watched)
        self.count = cell[SEQUENCE]

    def _place(self, cell: memoryview, watched: memoryview) -> None:
        """Use these words from now on."""
        raise NotImplementedError

    def _take_along(self, copy: memoryview) -> None:
        """Use a copy of the words. No call comes before it is used: no other thread's block is left in between."""
        copy[:] = self.cell
        # Neither early nor late: whoever restarts this has nothing to tell a watchdog.
        self._place(copy, UNWATCHED)

    def cut_off(self, *, is_ours: bool) -> None:
        """Go on with a copy, which nobody watches.

        Args:
            is_ours: whether the page is this process's. It is left with no timer armed then, since it may be watched
                for a while; in a forked child it is the parent's.
        """
        cell = self.cell
        self._take_along(memoryview(bytearray(SLOT_BYTES)).cast("q"))
        if is_ours:
            cell[DEADLINE] |= NEVER
        free, self.free = self.free, []
        self.spare = []
        # Also where nobody would look for it: a block that is armed later must not be given this slot.
        free.clear()


def warn_of_dropped_timer(cell: memoryview, is_finalizing: Callable[[], bool] = is_finalizing) -> None:
    if is_finalizing():  # the globals of this module may be gone
        return
    import warnings

    message = f"the armed timer {read_scope(cell)!r} was dropped: it is disarmed now; leave its block or close it"
    warnings.warn(message, ResourceWarning, stacklevel=1)


class SiteBase:
    """What the timers of one scope and one timeout have in common.

    Attributes:
        free: idle slots that hold the scope and the timeout already.
        after: the timeout in nanoseconds.
        ending: how the worker is ended, as `unhang._core.page.ending` has it.
        pretimeout: nanoseconds before the deadline at which evidence is recorded; 0: as the watchdog does.
        slack: how far behind the promised look of the watchdog a deadline lies at most, if there is a watchdog.
        clock: nanoseconds of the monotonic clock.
    """

    __slots__ = NO_SLOTS

    slots: Slots
    scope: str
    label: bytes
    after: int
    slack: int
    clock: Callable[[], int]
    ending: int
    pretimeout: int
    free: list[SlotBase]
    source: object

    def keep(self, durations: memoryview | None) -> None:
        """Write down how long blocks take, from now on: into a record of `unhang._core.durations`, or nowhere.

        Not of those that are extended or suspended. In plain Python, blocks that end in several threads at the same
        moment may be counted as one.
        """
        raise NotImplementedError

    def __init__(
        self, slots: Slots, scope: str, after: int, source: object, *, ending: int = 0, pretimeout: int = 0
    ) -> None:
        self.slots = slots
        self.scope = scope
        self.label = scope_bytes(scope)
        self.after = after
        self.slack = after + STALE
        self.clock = slots.clock
        self.ending = ending
        self.pretimeout = pretimeout
        self.free = []
        self.source = source  # keeps alive what the key of this site names by its id
        self.keep(None)
