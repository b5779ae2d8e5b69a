"""One page as its readers see it, the watchdog and the viewers; `unhang._core.page` has the layout.

A worker may have several pages, and is one worker all the same: who gets a page hands it to a
`unhang._core.timer_reader.TimerReader`, and looks at that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from unhang._core.page import (
    BASE,
    DEADLINE,
    ENDING,
    HEADER_BYTES,
    HEADER_WORDS,
    LARGEST_PAGE,
    LENGTH,
    LONGEST_PRETIMEOUT,
    LOOKED,
    MAGIC,
    NEVER,
    PRETIMEOUT,
    RELABELLED,
    SCOPE,
    SCOPE_BYTES,
    SEQUENCE,
    SLOT_BYTES,
    SLOT_SIZE,
    SLOT_WORDS,
    SLOTS,
    SMALLEST_PAGE,
    THREAD,
    TIMEOUT,
    USED,
    VERSION,
    WAKE,
    WORD,
    PageError,
    slots_in,
)


class Snapshot:
    """One slot, as it was at one moment. Times in nanoseconds of the monotonic clock.

    Attributes:
        page: the page that it is in.
        index: the number of the slot in that page.
        deadline: when the timer expires, or would have expired.
        sequence: how often the slot had been armed.
        timeout: the time that the block was given.
        scope: the name of the timer.
        armed: whether its block was still running.
        ending: how its worker is to be ended, see `ending`.
        thread: the kernel's id of the thread that probably armed it.
        pretimeout: how long before the deadline evidence is to be recorded.
        count: how often the slot had been armed for this scope.
        is_garbled: whether its scope is no UTF-8, or has an impossible length.
    """

    __slots__ = (
        "armed", "count", "deadline", "ending", "index", "is_garbled", "page", "pretimeout", "scope", "sequence",
        "thread", "timeout",
    )  # fmt: skip

    def __init__(self, page: PageReader, index: int, words: list[int], scope: bytes) -> None:
        self.page = page
        self.index = index
        self.armed = 0 < words[DEADLINE] < NEVER
        self.deadline = words[DEADLINE] & ~NEVER
        self.sequence = words[SEQUENCE]
        self.timeout = words[TIMEOUT]
        self.ending = words[ENDING]
        self.thread = words[THREAD]
        self.pretimeout = words[PRETIMEOUT]
        self.count = words[SEQUENCE] - words[BASE]
        self.scope = scope.decode("utf-8", "replace")
        self.is_garbled = len(scope) != words[LENGTH] or ("\ufffd" in self.scope and not _is_text(scope))

    @property
    def armed_at(self) -> int:
        """When the timer was armed or restarted last; what it was extended by does not count."""
        return self.deadline - self.timeout

    def flaw(self) -> str:
        """Why no worker has written this, while it is armed; empty if one may have.

        What C code prints may land in the page, if that has the number of a closed standard stream, or a pointer is
        wrong.
        """
        if not self.page.is_intact():
            return "its header is not what it was"
        if self.timeout < 0 or self.armed_at <= 0:
            return "a deadline lies before its own arming"
        if not 0 <= self.sequence - self.count < self.sequence:
            return "a slot that was armed was never armed"
        if not 0 <= self.thread <= _LARGEST_THREAD or not 0 <= self.pretimeout < NEVER or self.ending < 0:
            return "a slot holds numbers that mean nothing"
        return "a scope is no text" if self.is_garbled else ""

    @property
    def arming(self) -> tuple[PageReader, int, int]:
        """Names this arming: no other one of its worker has the same."""
        return self.page, self.index, self.sequence

    def is_still(self) -> bool:
        """Whether the slot is still armed as it was."""
        return self.page.is_still(self)

    def __repr__(self) -> str:
        return f"Snapshot({', '.join(f'{name}={getattr(self, name)!r}' for name in self.__slots__)})"


def _is_text(scope: bytes) -> bool:
    try:
        scope.decode()
    except UnicodeDecodeError:
        return False
    return True


def _no_fence() -> None:
    """Order nothing."""


# The kernel's ids of threads are below 2**22.
_LARGEST_THREAD = 1 << 31

Credited = Callable[[int, int], int]


def not_credited(deadline: int, timeout: int) -> int:  # noqa: ARG001 - see `Credited`
    """Nothing is given back."""
    return deadline


class PageReader:
    """The watchdog's side of a page, which trusts nothing in it.

    Args:
        memory: the page.
        fence: orders what was stored and read before it, and what is read after it, if there is one.
        observed: whether its worker is never to be killed for its timers.

    Attributes:
        observed: see above.
        deadlines: those of all slots, as `earliest` read them last; others when a timer was armed or disarmed since.

    Raises:
        PageError: it is not a page of this version.
    """

    def __init__(self, memory: memoryview, fence: Callable[[], object] = _no_fence, *, observed: bool = False) -> None:
        self._fence = fence
        self.observed = observed
        self._bytes = memory.cast("B")
        size = len(self._bytes)
        if not SMALLEST_PAGE <= size <= LARGEST_PAGE or size % WORD:
            raise PageError(f"a page has {SMALLEST_PAGE} to {LARGEST_PAGE} bytes, this has {size}")
        self._words = self._bytes.cast("q")
        words = self._words
        if words[0] != MAGIC:
            raise PageError("it does not begin as a page does")
        if words[1] != VERSION:
            raise PageError(f"its version is {words[1]}, and this watchdog reads version {VERSION}: use one of both")
        self._slots = slots_in(size)
        if (words[SLOTS], words[SLOT_SIZE]) != (self._slots, SLOT_BYTES):
            raise PageError(f"it has {words[SLOTS]} slots of {words[SLOT_SIZE]} bytes, but is {size} bytes long")
        self.deadlines: list[int] = []
        self._known: list[int] = []  # the deadlines that the last look found
        self._known_at = 0
        # The deadline of a slot, and an instant that it cannot have expired before.
        self._not_before: dict[int, tuple[int, int]] = {}
        self._deadlines = words[HEADER_WORDS : HEADER_WORDS + self._slots * SLOT_WORDS : SLOT_WORDS]

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self._bytes)

    @property
    def used(self) -> int:
        """How many slots have ever been armed."""
        return max(0, min(self._words[USED], self._slots))

    @property
    def relabelled(self) -> int:
        """How often a slot was given to another scope: if never, the counts of a scope's slots are the scope's."""
        return int(self._words[RELABELLED])

    def has_pretimeouts(self) -> bool:
        """Whether any of its timers has ever had a pretimeout of its own."""
        return self._words[LONGEST_PRETIMEOUT] != 0

    @property
    def pretimeout(self) -> int:
        """The longest pretimeout of its timers, in nanoseconds."""
        return max(0, min(self._words[LONGEST_PRETIMEOUT], NEVER // 2))

    @property
    def sequence(self) -> int:
        """How often the timers of this page have been armed or restarted, all together."""
        words = self._words[HEADER_WORDS + SEQUENCE : HEADER_WORDS + self.used * SLOT_WORDS : SLOT_WORDS]
        return sum(words.tolist())

    def promise(self, wake: int, looked: int) -> None:
        """Tell the worker when the watchdog will look again, and that it looks now: before the deadlines are read."""
        self._words[LOOKED] = looked
        self._words[WAKE] = wake
        self._fence()

    def earliest(self) -> int:
        """The earliest deadline; `NEVER` or more when no timer is armed; 0 or less if there is nonsense."""
        self.deadlines = deadlines = self._deadlines[: self.used].tolist()
        return min(deadlines) if deadlines else NEVER

    def soon(self, now: int) -> int:
        """The earliest former deadline that is still ahead, of a timer that is not armed any more; else `NEVER`."""
        disarmed = NEVER + now
        former = [deadline for deadline in self._deadlines[: self.used].tolist() if deadline > disarmed]
        return min(former) - NEVER if former else NEVER

    def due(self, now: int, credited: Credited = not_credited) -> tuple[list[tuple[int, int]], int]:
        """The slots that have expired, each with its deadline, and the earliest deadline of the others.

        Args:
            now: this instant.
            credited: the deadline with what a timer gets back, from its deadline and its timeout: it decides.
        """
        expired, earliest = [], NEVER
        for index, deadline in enumerate(self._deadlines[: self.used].tolist()):
            if 0 < deadline <= now:
                later = credited(deadline, self._words[HEADER_WORDS + index * SLOT_WORDS + TIMEOUT])
                later = max(later, self.not_before(index, deadline))
                if later <= now:
                    expired.append((index, deadline))
                    continue
                deadline = later  # noqa: PLW2901 - that is what counts
            if now < deadline < earliest:
                earliest = deadline
        return expired, earliest

    def look(self, now: int) -> int:
        """`earliest`; and notice timers that cannot have expired, whatever their deadlines say.

        A timer that was not armed at the last look was armed behind it. If its worker says that it was armed before,
        its clock shows another time, and its timeout runs from that look on.
        """
        earliest = self.earliest()
        if earliest <= now and self._known_at:
            for index, deadline in enumerate(self.deadlines):
                known = index < len(self._known) and self._known[index] == deadline
                if 0 < deadline <= now and not known:
                    timeout = self._words[HEADER_WORDS + index * SLOT_WORDS + TIMEOUT]
                    if deadline - self._known_at < timeout < deadline:
                        self._not_before[index] = (deadline, self._known_at + timeout)
        self._known, self._known_at = self.deadlines, now
        return earliest

    def not_before(self, index: int, deadline: int) -> int:
        """When a timer with this deadline can have expired at the earliest, as far as `look` knows; else 0."""
        of_deadline, instant = self._not_before.get(index, (0, 0))
        return instant if of_deadline == deadline else 0

    def snapshot(self, index: int) -> Snapshot | None:
        """What a slot holds; None when it is not armed, or was changed meanwhile."""
        seen = self._read(index)
        return seen if seen is not None and seen.armed else None

    def _read(self, index: int) -> Snapshot | None:
        start = HEADER_WORDS + index * SLOT_WORDS
        deadline = self._words[start + DEADLINE]
        self._fence()
        words = self._words[start : start + SCOPE].tolist()
        length = max(0, min(words[LENGTH], SCOPE_BYTES))
        text = (start + SCOPE) * WORD
        scope = bytes(self._bytes[text : text + length])
        self._fence()
        if not deadline == words[DEADLINE] == self._words[start + DEADLINE]:
            return None
        return Snapshot(self, index, words, scope)

    def is_intact(self) -> bool:
        """Whether its header says what it said at first."""
        return self._words[: SLOT_SIZE + 1].tolist() == [MAGIC, VERSION, self._slots, SLOT_BYTES]

    def is_still(self, seen: Snapshot) -> bool:
        """Whether the slot is still armed as it was."""
        start = HEADER_WORDS + seen.index * SLOT_WORDS
        return bool(self._words[start] == seen.deadline and self._words[start + SEQUENCE] == seen.sequence)

    def live(self) -> Iterator[Snapshot]:
        """The timers that are armed."""
        for index in range(self.used):
            snapshot = self.snapshot(index)
            if snapshot is not None:
                yield snapshot

    def slots(self) -> list[tuple[int, int]]:
        """Deadline and timeout of each slot that was ever armed, by index; of one that changes now, maybe of two."""
        used = self.used
        timeouts = self._words[HEADER_WORDS + TIMEOUT : HEADER_WORDS + used * SLOT_WORDS : SLOT_WORDS]
        return list(zip(self._deadlines[:used].tolist(), timeouts.tolist(), strict=False))

    def last(self, index: int) -> Snapshot | None:
        """What a slot holds or held last, armed or not; None when it was changed meanwhile."""
        return self._read(index)

    def counts(self) -> Counter[str] | None:
        """How often each scope was armed or restarted, if no slot was given to another one; None when one changes now.

        All slots are taken down at once: a text for each of thousands would take too long.
        """
        used = self.used
        before = self._deadlines[:used].tolist()
        self._fence()
        taken = bytes(self._bytes[HEADER_BYTES : HEADER_BYTES + used * SLOT_BYTES])
        self._fence()
        if before != self._deadlines[:used].tolist():
            return None
        words = memoryview(taken).cast("q")
        columns = (words[word::SLOT_WORDS].tolist() if used else [] for word in (LENGTH, SEQUENCE, BASE))
        texts: Counter[bytes] = Counter()
        for index, (length, sequence, base) in enumerate(zip(*columns, strict=True)):
            start = index * SLOT_BYTES + SCOPE * WORD
            texts[taken[start : start + max(0, min(length, SCOPE_BYTES))]] += sequence - base
        counts: Counter[str] = Counter()
        for text, count in texts.items():
            counts[text.decode("utf-8", "replace")] += count
        return counts

    def close(self) -> None:
        """Let go of the memory."""
        for view in (self._deadlines, self._words, self._bytes):
            view.release()
