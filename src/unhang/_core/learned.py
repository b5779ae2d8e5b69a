"""The format of a file of learned durations: one JSON document, explained in docs/howto/budgets.md.

Reading is strict, since the file may have been written by anybody: what is not as it is written here is refused as a
whole. Names that are not known are passed over.
"""

from __future__ import annotations

import json

from unhang._core.durations import BUCKET_COUNT
from unhang._core.histogram import Histogram
from unhang._core.memory import Clock, Levels, Memory
from unhang._core.page import SCOPE_BYTES

VERSION = 1
MOST_SCOPES = 4096
# What so many scopes take at the very most is more; they are dropped until it fits.
MOST_BYTES = 16 << 20
_MOST = (1 << 63) - 1
MARK = "unhang_learned"
# Of a scope: the names in the file, and those of `Memory`.
_NUMBERS = {
    "budget_ns": "budget",
    "seen": "seen",
    "killed": "killed",
    "killed_at": "killed_at",
}


class FormatError(ValueError):
    """It is no file of learned durations, or a broken one."""


class NewerFormatError(FormatError):
    """It is one of a later version of unhang."""


class Learned:
    """What a file holds.

    Attributes:
        scopes: what is remembered, by scope.
        dropped: how many scopes were dropped for want of room.
    """

    __slots__ = ("dropped", "scopes")

    def __init__(self, scopes: dict[str, Memory] | None = None, dropped: int = 0) -> None:
        self.scopes = scopes or {}
        self.dropped = dropped

    def drop(self) -> None:
        """Drop the scopes that are too many: those that were not seen for the most days, and the least used of them."""
        rest = len(self.scopes) - MOST_SCOPES
        if rest <= 0:
            return
        for scope in sorted(self.scopes, key=self._use)[:rest]:
            del self.scopes[scope]
        self.dropped += rest

    def _use(self, scope: str) -> tuple[int, int]:
        memory = self.scopes[scope]
        return max(memory.steady.minute, memory.first.minute) // (24 * 60), memory.durations.count


def encode(learned: Learned) -> bytes:
    """The document; scopes are dropped if it would be too large."""
    learned.drop()
    document = _encode(learned)
    while len(document) > MOST_BYTES:
        for scope in sorted(learned.scopes, key=learned._use)[: len(learned.scopes) // 4 + 1]:
            del learned.scopes[scope]
            learned.dropped += 1
        document = _encode(learned)
    return document


def _encode(learned: Learned) -> bytes:
    scopes = ",\n".join(
        f"{json.dumps(scope)}: {json.dumps(_of_memory(memory), separators=(',', ':'))}"
        for scope, memory in sorted(learned.scopes.items())
    )
    return f'{{"{MARK}": {VERSION}, "dropped": {learned.dropped}, "scopes": {{\n{scopes}\n}}}}\n'.encode()


def _of_memory(memory: Memory) -> dict[str, object]:
    numbers = {name: min(getattr(memory, attribute), _MOST) for name, attribute in _NUMBERS.items()}
    return {
        **numbers,
        "doubts": memory.doubts,
        "steady": _of_levels(memory.steady),
        "first": _of_levels(memory.first),
    }


def _of_levels(levels: Levels) -> dict[str, object]:
    minutes, starts = levels.minutes, levels.starts
    buckets = [
        [bucket, count, minutes.times[bucket], minutes.last[bucket], starts.times[bucket], starts.last[bucket]]
        for bucket, count in enumerate(min(each, _MOST) for each in levels.histogram.counts)
        if count
    ]
    return {
        "longest_ns": levels.histogram.longest,
        "minute": levels.minute,
        "minutes": minutes.now,
        "starts": starts.now,
        "buckets": buckets,
    }


def decode(document: bytes) -> Learned:
    """What a document holds.

    Raises:
        NewerFormatError: it has a later format.
        FormatError: it has none.
    """
    try:
        said = json.loads(document)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"it is no JSON: {error}") from error
    if not isinstance(said, dict) or MARK not in said:
        raise FormatError(f"it has no {MARK!r}")
    if (version := _number(said, MARK)) > VERSION:
        raise NewerFormatError(f"its format is {version}, and this version of unhang knows {VERSION}")
    scopes = _dictionary(said, "scopes")
    if len(scopes) > MOST_SCOPES:
        raise FormatError(f"it has more than {MOST_SCOPES} scopes")
    return Learned({_scope(scope): _memory(scopes, scope) for scope in scopes}, _number(said, "dropped"))


def is_scope(scope: str) -> bool:
    """Whether it can be the name of a scope in a file."""
    try:
        return len(scope.encode()) <= SCOPE_BYTES
    except UnicodeEncodeError:
        return False


def _scope(scope: str) -> str:
    if not is_scope(scope):
        raise FormatError(f"{scope[:60]!r} is not the name of a scope")
    return scope


def _memory(scopes: dict[str, object], scope: str) -> Memory:
    said = _dictionary(scopes, scope)
    memory = Memory()
    for name, attribute in _NUMBERS.items():
        setattr(memory, attribute, _number(said, name))
    doubts = said.get("doubts", 0)
    if not isinstance(doubts, (int, float)) or not 0 <= doubts <= _MOST:
        raise FormatError(f"'doubts' is {str(doubts)[:60]}")
    memory.doubts = float(doubts)
    memory.steady = _levels(said, "steady")
    memory.first = _levels(said, "first")
    return memory


def _levels(said: dict[str, object], name: str) -> Levels:
    levels = _dictionary(said, name)
    minutes, starts = Clock(_number(levels, "minutes")), Clock(_number(levels, "starts"))
    counts = [0] * BUCKET_COUNT
    end = 0
    for bucket, count, *seen in _rows(levels):
        if count:
            counts[bucket] = count
            # What holds for a bucket and those above it holds for the empty ones below, too.
            minutes.restore(end, bucket + 1, *seen[:2])
            starts.restore(end, bucket + 1, *seen[2:])
            end = bucket + 1
    return Levels(Histogram(counts, _number(levels, "longest_ns")), _number(levels, "minute"), minutes, starts)


def _rows(levels: dict[str, object]) -> list[list[int]]:
    """The buckets that are not empty, from the lowest one on."""
    rows = levels.get("buckets", [])
    if not isinstance(rows, list) or len(rows) > BUCKET_COUNT:
        raise FormatError(f"'buckets' is no list of {BUCKET_COUNT} at most")
    for row in rows:
        if not isinstance(row, list) or len(row) != 6 or not all(map(_fits, row)) or row[0] >= BUCKET_COUNT:
            raise FormatError(f"{str(row)[:60]} is none of the 'buckets'")
    return sorted(rows)


def _dictionary(said: dict[str, object], name: str) -> dict[str, object]:
    value = said.get(name)
    if not isinstance(value, dict):
        raise FormatError(f"{name[:60]!r} is no object")
    return value


def _number(said: dict[str, object], name: str) -> int:
    value = said.get(name, 0)
    if not _fits(value):
        raise FormatError(f"{name!r} is {str(value)[:60]}")
    return int(value)  # type: ignore[call-overload, no-any-return]


def _fits(value: object) -> bool:
    return type(value) is int and 0 <= value <= _MOST
