"""Writing and reading a page of durations; its layout is that of `unhang._core.durations`."""

from __future__ import annotations

from unhang._core.durations import (
    BUCKETS,
    BUDGET,
    FIRST,
    HEADER_WORDS,
    LEFT_OUT,
    LENGTH,
    LONGEST,
    MAGIC,
    RECORD_BYTES,
    RECORD_SIZE,
    RECORD_WORDS,
    RECORDS,
    SCOPE,
    USED,
    VERSION,
    WORD,
)
from unhang._core.histogram import Durations, Histogram
from unhang._core.page import SCOPE_BYTES, PageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def records_in(size: int) -> int:
    """How many records a page of so many bytes has."""
    return (size - HEADER_WORDS * WORD) // RECORD_BYTES


class DurationWriter:
    """The worker's side. Not thread-safe.

    Args:
        memory: zeroed, of `unhang._core.durations.PAGE_BYTES` or so; it is kept for as long as the writer.
    """

    def __init__(self, memory: memoryview) -> None:
        self._words = memory.cast("B").cast("q")
        self._records: dict[bytes, memoryview] = {}
        self._most = records_in(len(memory))
        self._used = 0
        words = self._words
        words[1], words[RECORDS], words[RECORD_SIZE] = VERSION, self._most, RECORD_BYTES
        words[0] = MAGIC

    def record(self, scope: bytes, budget: int) -> memoryview | None:
        """The record of a scope, whose blocks have this timeout now; None when there is no room for it."""
        record = self._records.get(scope) or self._add(scope)
        if record is not None:
            record[BUDGET] = budget
        return record

    def _add(self, scope: bytes) -> memoryview | None:
        used = self._used
        if used >= self._most:
            self._words[LEFT_OUT] += 1
            return None
        # Taken before anything is made: that may start a collection, whose finalizers may have blocks of their own.
        self._used = used + 1
        start = HEADER_WORDS + used * RECORD_WORDS
        record = self._records[scope] = self._words[start : start + RECORD_WORDS]
        record.cast("B")[SCOPE * WORD : SCOPE * WORD + len(scope)] = scope
        record[LENGTH] = len(scope)
        self._words[USED] = self._used
        return record


class DurationReader:
    """The side of whoever looks, which trusts nothing in it.

    Args:
        memory: the page.

    Raises:
        PageError: it is not a page of durations of this version.
    """

    def __init__(self, memory: memoryview) -> None:
        self._bytes = memory.cast("B")
        if len(self._bytes) < HEADER_WORDS * WORD or len(self._bytes) % WORD:
            raise PageError(f"a page of durations does not have {len(self._bytes)} bytes")
        self._words = words = self._bytes.cast("q")
        if words[0] != MAGIC or words[1] != VERSION or words[RECORD_SIZE] != RECORD_BYTES:
            raise PageError(f"it is no page of durations of version {VERSION}")
        self._most = records_in(len(self._bytes))

    def scopes(self, wanted: Callable[[str], bool] = bool) -> Iterator[tuple[str, Durations]]:
        """What is known of each scope of this process that is wanted; of those that have a name, by default."""
        for index in range(max(0, min(self._words[USED], self._most))):
            start = HEADER_WORDS + index * RECORD_WORDS
            text = (start + SCOPE) * WORD
            length = max(0, min(self._words[start + LENGTH], SCOPE_BYTES))
            # Never longer than it was: its name is kept, where there is no more room for it.
            scope = bytes(self._bytes[text : text + length]).decode("utf-8", "ignore")
            if not wanted(scope):
                continue
            words = self._words[start : start + RECORD_WORDS]
            steady = Histogram.of_memory(words[BUCKETS:], words[LONGEST])
            began = words[FIRST]  # read once: it may change meanwhile
            first = Histogram.of([began] if began > 0 else [])
            yield scope, Durations(steady, first, budget=max(0, words[BUDGET]))

    @property
    def left_out(self) -> int:
        """How often a slot was given to a scope for which there was no room."""
        return max(0, self._words[LEFT_OUT])

    def close(self) -> None:
        """Let go of the memory."""
        self._words.release()
        self._bytes.release()
