"""What is known of how long the blocks of a scope took: histograms that can be merged, and told apart by time.

All durations are nanoseconds. The buckets are those of `unhang._core.durations`: a quarter of a power of two each, so
what is said of a block here is at most 25 % more than it took, and never more than the longest of all.
"""

from __future__ import annotations

import struct
import sys

from unhang._core.durations import BUCKET_COUNT, bounds_of, bucket_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


# Those of a thousand workers with a hundred scopes each are added up at once. So the counts of a histogram are one
# number, in which each bucket has 64 bits, and two are merged by one addition. A bucket uses 56 of them, so that none
# reaches the next one. The counts of more blocks than that are a list.
_BITS = 64
_WORD = (1 << _BITS) - 1
_ONES = ((1 << _BITS * BUCKET_COUNT) - 1) // _WORD
_GUARD = _ONES << 56
_FULL = _ONES * (0xFF << 56)
_WORDS = f"<{BUCKET_COUNT}Q"
# Blocks in one bucket: more than any process makes.
_MOST = 1 << 48
_UNLIKELY = _ONES * (0xFFFF << 48)


class Histogram:
    """How many blocks took how long. Immutable by custom.

    Whatever it is made of, it is consistent: ``longest`` lies in the highest bucket that is not empty, so a page that
    was read while it was written, or that somebody made up, does no harm. The last bucket has no upper end.

    Args:
        counts: blocks in each bucket, `BUCKET_COUNT` of them; missing ones and negative ones are 0.
        longest: the longest block.
    """

    __slots__ = ("_counts", "_packed", "longest")

    def __init__(self, counts: Sequence[int] = (), longest: int = 0) -> None:
        filled = [max(0, each) for each in counts[:BUCKET_COUNT]]
        # One of both is there, or both are.
        self._counts: list[int] | None = None
        self._packed: int | None = None
        if max(filled, default=0) >> 56:
            self._counts = filled + [0] * (BUCKET_COUNT - len(filled))
            highest = max(bucket for bucket, count in enumerate(filled) if count)
        else:
            self._packed = int.from_bytes(struct.pack(f"<{len(filled)}Q", *filled), "little")
            highest = _highest(self._packed)
        self.longest: int = _consistent(highest, longest)

    @classmethod
    def _of(cls, packed: int, longest: int) -> Histogram:
        """The same of counts that are one number: bucket ``b`` at bit ``64 b``; ``longest`` lies in the highest one."""
        histogram = cls.__new__(cls)
        histogram._counts = None
        histogram._packed = packed
        histogram.longest = longest
        return histogram

    @classmethod
    def of_memory(cls, words: memoryview, longest: int) -> Histogram:
        """The same of `BUCKET_COUNT` signed 8-byte words in the byte order of the host, made up or not."""
        packed = int.from_bytes(words, "little")
        if packed & _UNLIKELY or sys.byteorder == "big":
            return cls([min(count, _MOST) for count in words.tolist()], longest)
        return cls._of(packed, _consistent(_highest(packed), longest))

    @classmethod
    def of(cls, durations: Iterable[int]) -> Histogram:
        """The histogram of these durations."""
        packed = longest = 0
        for duration in durations:
            packed += 1 << _BITS * bucket_of(duration)
            longest = max(longest, duration)
        return cls._of(packed, longest)

    @property
    def counts(self) -> list[int]:
        """How many blocks are in each bucket."""
        if self._counts is None:
            self._counts = list(struct.unpack(_WORDS, (self._packed or 0).to_bytes(BUCKET_COUNT * 8, "little")))
        return self._counts

    @property
    def count(self) -> int:
        """How many blocks there are."""
        # The sum of the digits of a number to the base of 2**64.
        return sum(self.counts) if self._packed is None else self._packed % _WORD

    def merge(self, other: Histogram) -> Histogram:
        """The blocks of both. In whatever order many are merged, the result is the same."""
        longest = max(self.longest, other.longest)
        if self._packed is not None and other._packed is not None:
            packed = self._packed + other._packed
            if not packed & _FULL:
                return Histogram._of(packed, longest)
        return Histogram(list(map(int.__add__, self.counts, other.counts)), longest)

    def minus(self, earlier: Histogram) -> Histogram:
        """The blocks that came since ``earlier``, which is of the same source; merged with it they are these again.

        Its ``longest`` may be too long by as much as a bucket is wide.
        """
        if self._packed is not None and earlier._packed is not None:
            guarded = (self._packed | _GUARD) - earlier._packed
            if guarded & _GUARD == _GUARD:  # no bucket has fewer blocks than before
                packed = guarded ^ _GUARD
                return Histogram._of(packed, _consistent(_highest(packed), self.longest))
        counts = list(map(int.__sub__, self.counts, earlier.counts))
        return Histogram(counts, self.longest)

    def quantile(self, part: float) -> int:
        """A duration that at least this part of the blocks (0 to 1) did not exceed; 0 when there are none.

        It is the upper end of the bucket, or the longest block if that is shorter.
        """
        wanted = part * self.count
        below = 0
        for bucket, count in enumerate(self.counts):
            below += count
            if count and below >= wanted:
                return self.upper(bucket)
        return self.longest

    def above(self, duration: int) -> int:
        """How many blocks took longer, at most: all of a bucket are counted when one of them may have."""
        if self.longest <= duration:
            return 0
        bucket = bucket_of(duration)
        return sum(self.counts[bucket + (self.upper(bucket) <= duration) :])

    def upper(self, bucket: int) -> int:
        """The longest that a block in this bucket may have taken."""
        if bucket == BUCKET_COUNT - 1:
            return self.longest
        return min(bounds_of(bucket)[1] - 1, self.longest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Histogram) and (self.longest, self.counts) == (other.longest, other.counts)

    def __hash__(self) -> int:
        return hash((self.longest, *self.counts))

    def __repr__(self) -> str:
        filled = {bucket: count for bucket, count in enumerate(self.counts) if count}
        return f"Histogram({filled}, longest={self.longest})"


def _highest(packed: int) -> int:
    """The highest bucket that is not empty; -1 if all are."""
    return (packed.bit_length() - 1) // _BITS


def _consistent(highest: int, longest: int) -> int:
    """The duration in this bucket that is nearest to ``longest``; 0 for no bucket."""
    if highest < 0:
        return 0
    lowest, end = bounds_of(highest)
    return max(longest, lowest) if highest == BUCKET_COUNT - 1 else max(lowest, min(longest, end - 1))


class Durations:
    """What is known of one scope. Immutable by custom.

    Attributes:
        steady: all blocks but the first one of each process.
        first: the first block of each process, in which it starts up, so one of each process that came through it.
        budget: the timeout that was seen last; 0: none was seen.
        seen: when that was, seconds of the wall clock; 0: not known.
        killed: how many blocks expired and had their worker killed. They are in no histogram.
        rounds: how many steady blocks one process would have had in the time. A hundred processes with ten blocks
            each have told nothing of what comes with the eleventh.
        starts: in how many different minutes processes have started up.
        doubts: how often workers were killed in it of late, as `unhang._core.memory` counts it.
    """

    __slots__ = ("budget", "doubts", "first", "killed", "rounds", "seen", "starts", "steady")

    def __init__(  # noqa: PLR0913 - what there is to know
        self,
        steady: Histogram | None = None,
        first: Histogram | None = None,
        *,
        budget: int = 0,
        seen: int = 0,
        killed: int = 0,
        rounds: int | None = None,
        starts: int | None = None,
        doubts: float = 0.0,
    ) -> None:
        self.steady = steady or Histogram()
        self.first = first or Histogram()
        self.budget = budget
        self.seen = seen
        self.killed = killed
        self.rounds = self.steady.count if rounds is None else rounds
        self.starts = self.first.count if starts is None else starts
        self.doubts = doubts

    @property
    def count(self) -> int:
        """How many blocks are known, first ones and others."""
        return self.steady.count + self.first.count

    def merge(self, other: Durations) -> Durations:
        """What is known from both, of different processes. In whatever order many are merged, the result is the same.

        They are taken to have run side by side, so rounds and starts are those of the one that had more. The budget
        is the one that was seen later; of two that were seen at once, the longer one.
        """
        seen, budget = max((self.seen, self.budget), (other.seen, other.budget))
        return Durations(
            self.steady.merge(other.steady),
            self.first.merge(other.first),
            budget=budget,
            seen=seen,
            killed=self.killed + other.killed,
            rounds=max(self.rounds, other.rounds),
            starts=max(self.starts, other.starts),
            doubts=max(self.doubts, other.doubts),
        )

    def minus(self, earlier: Durations) -> Durations:
        """What came since ``earlier``, which is of the same processes; merged with it, it is this again."""
        return Durations(
            self.steady.minus(earlier.steady),
            self.first.minus(earlier.first),
            budget=self.budget,
            seen=self.seen,
            killed=max(0, self.killed - earlier.killed),
            rounds=self.rounds,
            starts=self.starts,
            doubts=self.doubts,
        )

    def __eq__(self, other: object) -> bool:
        mine = [getattr(self, name) for name in self.__slots__]
        return isinstance(other, Durations) and mine == [getattr(other, name) for name in self.__slots__]

    def __hash__(self) -> int:
        return hash((self.steady, self.first, self.budget, self.seen))

    def __repr__(self) -> str:
        return f"Durations({', '.join(f'{name}={getattr(self, name)}' for name in self.__slots__)})"
