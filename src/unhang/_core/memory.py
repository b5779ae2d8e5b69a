"""What is remembered of a scope from process to process, and when it is forgotten.

A histogram alone never forgets: one block that once took an hour would hold up the budget for good, and so would what
was slow before last month's change. So for each length it is kept how often a block took that long or longer, and when
one last did, on two clocks: in minutes in which there were blocks at all, and in starts of processes. What was seen in
``t`` units of a clock, the last of them the ``l``-th of ``n``, and has been missing since, would be missing by chance
in ``(l / n) ** t`` of all cases, had it gone on as often as before. When that is less than one in a thousand by both
clocks, it is forgotten. The one clock alone would forget in a long run what comes with every start; the other one
would forget in a series of failed starts what comes later.

Units of time are counted, and not blocks: what a thousand processes meet at once is one event. The minutes are those of
the wall clock, which hosts share well enough. Where it steps back, none is counted until it has caught up, for an hour
at most.
"""

from __future__ import annotations

from unhang._core.durations import BUCKET_COUNT
from unhang._core.histogram import Durations, Histogram

MINUTE = 60
_CHANCE = 1e-3
# Hangs are rarer than one in so many rounds, or they are none.
_ROUNDS_A_HANG = 3000
_MOST_DOUBTS = 3.0
_STEP_BACK = 60


class Clock:
    """In how many of its units blocks took how long.

    Attributes:
        now: how many units there were.
        times: for each bucket, in how many of them there were blocks in it or in a higher one.
        last: for each bucket, which one was the last of these; the first unit is 1.
    """

    __slots__ = ("last", "now", "times")

    def __init__(self, now: int = 0) -> None:
        self.now = now
        self.times = [0] * BUCKET_COUNT
        self.last = [0] * BUCKET_COUNT

    def restore(self, start: int, end: int, times: int, last: int) -> None:
        """Set what is known of the buckets from ``start`` to below ``end``; they may come from a file."""
        size = max(0, end - start)
        self.times[start : start + size] = [min(times, self.now)] * size
        self.last[start : start + size] = [min(last, self.now)] * size

    def see(self, highest: int) -> None:
        """There is a block in this bucket, and none in a higher one."""
        for bucket in range(highest + 1):
            self.times[bucket] += self.last[bucket] != self.now
            self.last[bucket] = self.now

    def chance(self, bucket: int) -> float:
        """How probable it is that blocks so long are missing by chance since they were seen last."""
        return float((self.last[bucket] / self.now) ** self.times[bucket])

    def forget(self, bucket: int) -> None:
        """There never were blocks in this bucket, or in higher ones."""
        self.times[bucket:] = self.last[bucket:] = [0] * (BUCKET_COUNT - bucket)


class Levels:
    """A histogram that forgets what is missing.

    Attributes:
        histogram: what is known.
        minute: the last one in which there were blocks, of the wall clock; 0: none.
        minutes, starts: the two clocks.
    """

    __slots__ = ("histogram", "minute", "minutes", "starts")

    def __init__(
        self,
        histogram: Histogram | None = None,
        minute: int = 0,
        minutes: Clock | None = None,
        starts: Clock | None = None,
    ) -> None:
        self.histogram = histogram or Histogram()
        self.minute = minute
        self.minutes = minutes or Clock()
        self.starts = starts or Clock()

    def add(self, blocks: Histogram, minute: int, start: int | None = None) -> None:
        """Note what was seen in a minute, behind the ``start``-th start; None: each minute is a start."""
        if not blocks.count:
            return
        self.histogram = self.histogram.merge(blocks)
        if not self.minutes.now or _passed(minute, self.minute):
            self.minute = minute
            self.minutes.now += 1
        self.starts.now = max(self.starts.now, self.minutes.now if start is None else start)
        highest = max(bucket for bucket, count in enumerate(blocks.counts) if count)
        self.minutes.see(highest)
        self.starts.see(highest)
        self._forget()

    def _forget(self) -> None:
        for bucket, count in enumerate(self.histogram.counts):
            if count and self.minutes.chance(bucket) < _CHANCE and self.starts.chance(bucket) < _CHANCE:
                self.histogram = Histogram(self.histogram.counts[:bucket], self.histogram.longest)
                self.minutes.forget(bucket)
                self.starts.forget(bucket)
                return


class Memory:
    """What is remembered of one scope.

    Attributes:
        steady, first: see `Durations`.
        budget, seen, killed, doubts: as there.
        killed_at: the last minute in which a worker was killed in it, of the wall clock; 0: none was.
    """

    __slots__ = ("budget", "doubts", "first", "killed", "killed_at", "seen", "steady")

    def __init__(self) -> None:
        self.steady = Levels()
        self.first = Levels()
        self.budget = self.seen = self.killed = 0
        self.doubts = 0.0
        self.killed_at = 0

    @property
    def durations(self) -> Durations:
        """What is known of the scope."""
        return Durations(
            self.steady.histogram,
            self.first.histogram,
            budget=self.budget,
            seen=self.seen,
            killed=self.killed,
            rounds=self._rounds(),
            starts=min(self.first.histogram.count, self.first.minutes.now),
            doubts=self.doubts,
        )

    def add(self, more: Durations, now: int) -> None:
        """Note what has come to be known since the last time; ``now`` is in seconds of the wall clock."""
        before = self._rounds()
        minute = now // MINUTE
        self.first.add(more.first, minute)
        self.steady.add(more.steady, minute, max(1, self.first.minutes.now))
        self._doubt(more, minute, self._rounds() - before)
        self.killed += more.killed
        self.seen, self.budget = max((self.seen, self.budget), (more.seen, more.budget))

    def _doubt(self, more: Durations, minute: int, rounds: int) -> None:
        """Count in how many minutes workers were killed, and forget one for as many rounds as hangs are rarer than."""
        self.doubts = max(0.0, self.doubts - max(0, rounds) / _ROUNDS_A_HANG)
        if more.killed and _passed(minute, self.killed_at):
            self.killed_at = minute
            self.doubts = min(_MOST_DOUBTS, self.doubts + 1.0)

    def _rounds(self) -> int:
        """So many as one process makes in these minutes when its blocks follow each other; at least one in each."""
        blocks = self.steady.histogram
        if not blocks.count:
            return 0
        in_a_minute = max(1.0, MINUTE * 1e9 / max(1, blocks.quantile(0.5)))
        return min(blocks.count, int(self.steady.minutes.now * in_a_minute))


def _passed(minute: int, last: int) -> bool:
    """Whether it is another minute, and not one of a clock that was stepped back a little."""
    return minute > last or minute < last - _STEP_BACK
