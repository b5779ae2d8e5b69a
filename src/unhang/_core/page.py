r"""The page: a worker's timers in shared memory, and the only place that knows their layout.

A page is a whole number of 8-byte words, signed, in the byte order of the host, 8-aligned: a header of 32
words, then ``slots`` slots of 32 words each. All instants are nanoseconds of ``CLOCK_MONOTONIC``. Offsets are in words:

==============  =====  ==========  ====================================================================
header          words  written by
==============  =====  ==========  ====================================================================
magic           0      worker      ``b"unhang\0\0"``
version         1      worker      2
slots           2      worker      how many slots follow: ``(size of the page - 256) // 256``
slot size       3      worker      256 bytes
used            4      worker      high-water mark: slots from here on were never armed
relabelled      5      worker      how often a slot was given to another scope than before
pretimeout      6      worker      the longest pretimeout of its timers, in nanoseconds
(none)          7                  0
wake            8      both        the watchdog will look again at this instant, or before
looked          9      watchdog    the watchdog looked at this instant; 0 before it did
(none)          10-31              0
==============  =====  ==========  ====================================================================

==============  =====  ====================================================================================
slot            words  written by the worker alone
==============  =====  ====================================================================================
deadline        0      armed: the deadline. Not armed: 0, or the last deadline with the bit `NEVER` set
sequence        1      how often the slot has been armed or restarted
timeout         2      nanoseconds; ``deadline - timeout`` is the instant of arming
ending          3      how its worker is ended, see `ending`; 0: as the watchdog does by default
length          4      bytes of the scope
thread          5      the kernel's id of a thread: of the one that arms it, if that is compiled, else of the one
                       that first used it for this scope: a hint
pretimeout      6      nanoseconds before the deadline at which evidence is recorded; 0: as the watchdog does
base            7      the sequence at which it was given to this scope
scope           8-31   UTF-8, 192 bytes at most; longer ones lose their middle
==============  =====  ====================================================================================

Some facts about the page:

- A slot has one writer at a time. It marks the slot as not armed before it changes anything else, and writes the new
  deadline last. A reader takes the deadline, the rest, and the deadline again: if it is the same both times, all
  belong to one arming.
- A disarmed slot keeps its last deadline beside `NEVER`, so the smallest word of all slots is the earliest
  deadline, and what a slot held last can still be read.
- Lowering ``wake`` is always safe. The watchdog raises it before it reads the deadlines; a worker stores its
  deadline before it reads ``wake``. So one of the two sees the other, and an early deadline is not missed, if
  both keep their store and their load in order. Compiled, they do (``_block.c`` argues it). Plain Python leaves it
  to the processor, which may let a load pass a store: a kick is lost then, once in a long while, and the deadline
  is seen at the watchdog's next beat.
- One aligned word is stored at once on the processors that Python's memoryviews work on. In plain Python the order
  of the stores is the program's on x86; elsewhere only the interpreter's own length stands between them.
"""

from __future__ import annotations

WORD = 8
MAGIC = int.from_bytes(b"unhang\0\0", "little")
VERSION = 2
HEADER_WORDS = 32
SLOT_WORDS = 32
SLOT_BYTES = SLOT_WORDS * WORD
HEADER_BYTES = HEADER_WORDS * WORD

# The version of the layout of `unhang._core.durations`, which is compiled into the same extension.
DURATIONS = 1

SLOTS, SLOT_SIZE, USED, RELABELLED, LONGEST_PRETIMEOUT, WAKE, LOOKED = 2, 3, 4, 5, 6, 8, 9
DEADLINE, SEQUENCE, TIMEOUT, ENDING, LENGTH, THREAD, PRETIMEOUT, BASE, SCOPE = 0, 1, 2, 3, 4, 5, 6, 7, 8
SCOPE_BYTES = (SLOT_WORDS - SCOPE) * WORD

# Set in the deadline of a slot that is not armed. Beyond any instant: 2**62 ns are 146 years.
NEVER = 1 << 62

SMALLEST_PAGE = 64 * 1024
LARGEST_PAGE = 16 * 1024 * 1024
# All pages of a worker together: each is twice as large as the one before, and holds so many timers.
MOST_BYTES = 2 * LARGEST_PAGE
MOST_TIMERS = 130_000

_ELLIPSIS = "…".encode()


class PageError(ValueError):
    """Memory that is not a page of ours; the message says why."""


def slots_in(size: int) -> int:
    """How many slots a page of so many bytes has."""
    return (size - HEADER_BYTES) // SLOT_BYTES


def scope_bytes(scope: str) -> bytes:
    """The scope as a slot holds it. Its ends say the most: the package and the line."""
    text = scope.encode("utf-8", "backslashreplace")
    if len(text) <= SCOPE_BYTES:
        return text
    # Cut between characters, so that what is left can be read.
    head = text[: SCOPE_BYTES // 3].decode("utf-8", "ignore").encode()
    tail = text[len(head) + len(_ELLIPSIS) - SCOPE_BYTES :].decode("utf-8", "ignore").encode()
    return head + _ELLIPSIS + tail


class PageWriter:
    """The worker's side of a page.

    Args:
        memory: zeroed memory, `SMALLEST_PAGE` to `LARGEST_PAGE` bytes; it is kept for as long as the writer.
        shared: whether a watchdog can get to see it.
    """

    def __init__(self, memory: bytearray | memoryview, *, shared: bool = True) -> None:
        self.shared = shared
        self._bytes = memoryview(memory).cast("B")
        self._words = self._bytes.cast("q")
        self.slots = slots_in(len(self._bytes))
        self.used = 0
        words = self._words
        words[1], words[SLOTS], words[SLOT_SIZE] = VERSION, self.slots, SLOT_BYTES
        words[0] = MAGIC
        # Two words: when the watchdog will look, and when it did.
        self.watched = words[WAKE : LOOKED + 1]

    def add_slot(self) -> memoryview | None:
        """The words of a slot that was never used, marked as not armed; None when the page is full."""
        index = self.used
        if index >= self.slots:
            return None
        # Taken before anything is made: that may start a collection, whose finalizers arm timers too.
        self.used = index + 1
        start = HEADER_WORDS + index * SLOT_WORDS
        slot = self._words[start : start + SLOT_WORDS]
        slot[DEADLINE] = NEVER
        self._words[USED] = self.used
        return slot

    def count_relabelled(self) -> None:
        """A slot was given to another scope."""
        self._words[RELABELLED] += 1

    def raise_pretimeout(self, pretimeout: int) -> None:
        """A timer has this pretimeout, in nanoseconds."""
        self._words[LONGEST_PRETIMEOUT] = max(self._words[LONGEST_PRETIMEOUT], pretimeout)


def label(
    slot: memoryview, scope: bytes, timeout: int, *, ending: int = 0, pretimeout: int = 0, thread: int = 0
) -> bool:
    """Write what stays the same from one arming to the next into a slot that is not armed.

    Returns whether the slot belonged to another scope before.
    """
    text = slot.cast("B")[SCOPE * WORD :]
    is_another = slot[LENGTH] != len(scope) or text[: len(scope)] != scope
    slot[TIMEOUT] = timeout
    slot[ENDING] = ending
    slot[THREAD] = thread
    slot[PRETIMEOUT] = pretimeout
    if is_another:
        slot[BASE] = slot[SEQUENCE]
        slot[LENGTH] = len(scope)
        text[: len(scope)] = scope
    return is_another and slot[SEQUENCE] > 0


# The last of the standard signals, and those that end nobody: SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU,
# SIGURG, SIGWINCH, as Linux numbers them.
_LAST_SIGNAL = 31
HARMLESS_SIGNALS = frozenset({17, 18, 19, 20, 21, 22, 23, 28})
# Milliseconds of grace that fit into the word, some 30 days.
_MOST_GRACE = (1 << 32) - 2


def ending(signal: int | None, grace: float | None) -> int:
    """How a worker is ended, as one word: bits 0-7 the soft signal plus 1, 1 for none; bits 8-39 the grace.

    Args:
        signal: the number of the soft signal; 0: none, SIGKILL at once; None: as the watchdog does.
        grace: seconds until SIGKILL follows; None: as the watchdog does. Kept as milliseconds plus 1.
    """
    word = 0 if signal is None else signal + 1
    return word if grace is None else word | (min(round(grace * 1000), _MOST_GRACE) + 1) << 8


def parse_ending(word: int) -> tuple[int | None, float | None]:
    """The soft signal and the grace of `ending`; nonsense is read as "as the watchdog does"."""
    signal, grace = (word & 0xFF) - 1, word >> 8 & 0xFFFFFFFF
    is_one = 0 <= signal <= _LAST_SIGNAL and signal not in HARMLESS_SIGNALS
    return (signal if is_one else None), ((grace - 1) / 1000 if grace else None)


def read_scope(slot: memoryview) -> str:
    """The scope that a slot was labelled with."""
    return bytes(slot.cast("B")[SCOPE * WORD : SCOPE * WORD + slot[LENGTH]]).decode()
