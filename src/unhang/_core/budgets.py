"""The rule by which a budget follows from how long blocks took.

A budget has to be longer than any block that will ever finish, and no longer than it must: what is too long is waited
for with every hang. Blocks that were not seen yet are the question. The rule, for one histogram of ``n`` blocks:

1. *The tail* are the longest blocks, 64 at most and no more than an eighth of all. From the gaps between them follows
   its weight θ: how fast blocks get longer the rarer they are. It is 1 for an exponential tail, 1/2 for a normal one,
   more for the heavy tails of networks and disks. The gap below the very longest is left out, which counts by its
   length; two gaps of weight 2 are thought to the others, since few gaps say little. Less than 1 is taken for 1: a tail
   may look lighter than it is.
2. *Groups apart.* Where the blocks in the tail leave a gap that a tail of that weight does not leave, what is above it
   is something else, say a checkpoint. Two of them or more are a tail of their own, and what is below matters no more.
   One is an outlier: nothing of the weight follows from it.
3. *The budget* is ``margin`` times what the longest of ``N`` blocks may take, where ``N`` is ten thousand
   (`Evidence.rare`), or three times ``n`` if that is more: ``margin * longest * (ln N / ln n) ** θ``. It is never below
   ``margin * longest``, nor ever outside of ``minimum`` and ``maximum``.
4. *Few runs.* Blocks of one run are alike: they share its machines and its load. That the next run has a longer one
   than all ``r`` before has a chance of one in ``r + 1``, so the budget is ``1 + 1 / r`` times as long.
5. *Little evidence.* With fewer than 30 blocks it is the maximum. From there on to 1000, it comes down from the maximum
   to the budget above, on a scale of logarithms. What counts are rounds, for a hundred processes that made ten steps
   each know nothing of the eleventh.
6. *Doubt.* When workers were killed in the scope, more than one in some thousand rounds, it goes up to the maximum
   again: so a budget that has become too short does not kill every new attempt, and the longer blocks can be learned.

Rules 1 and 3 are those of a Weibull tail: the quantile beyond the data of L. Gardes and S. Girard, "Estimating extreme
quantiles of Weibull tail distributions", Communications in Statistics - Theory and Methods 34 (2005); θ is the mean of
the normalised log-spacings of J. Diebolt et al., "Bias-reduced extreme quantile estimators of Weibull
tail-distributions", Journal of Statistical Planning and Inference 138 (2008), without their correction. A Pareto tail
(Hill, Weissman) would be nearer to the heaviest series, and would make too much of all others.

All durations are nanoseconds.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

from unhang._core.durations import bounds_of
from unhang._core.histogram import Durations, Histogram

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# Blocks that make up the tail, at most, and the part of all that they may be.
_TAIL = 64
_TAIL_PART = 8
_SHORT_TAIL = 3
# What is known of a tail before any of it was seen: as if so many gaps of this weight had been.
_BEFORE = 2
_HEAVY = 2.0
# How many times wider than the gaps below it a gap is that sets a group apart: one in e**10 is, or so, by chance.
_APART = 10.0
# Fewer are outliers.
_GROUP = 2
# The longest block is looked for in at least so many times more blocks than were seen.
_BEYOND = 3
# See `Durations.doubts`.
_DOUBTS = 2.0


class Evidence(NamedTuple):
    """How much must be known, and how sure it should be.

    Attributes:
        few: with fewer blocks, the budget is the maximum.
        enough: with so many, it is that of the tail.
        rare: the part of blocks that may take longer than expected, before the margin.
    """

    few: int
    enough: int
    rare: float


STEADY = Evidence(few=30, enough=1000, rare=1e-4)
# A process starts up once, so there are never many of them; and one that is killed too early has lost little.
START_UP = Evidence(few=5, enough=100, rare=1e-3)


class Budgets(NamedTuple):
    """What the blocks of a scope may take: the first one of each process, and the others."""

    first: int
    steady: int


def budgets(durations: Durations | None, minimum: int, maximum: int, startup: int, margin: float) -> Budgets:
    """The budgets of a scope: within ``minimum`` and ``startup`` for the first block, and ``maximum`` for others."""
    known = durations or Durations()
    doubts = known.doubts
    return Budgets(
        propose(known.first, minimum, startup, margin, rounds=known.starts, doubts=doubts, evidence=START_UP),
        propose(known.steady, minimum, maximum, margin, rounds=known.rounds, runs=known.starts, doubts=doubts),
    )


def propose(  # noqa: PLR0913 - what is known of the blocks
    histogram: Histogram,
    minimum: int,
    maximum: int,
    margin: float,
    *,
    rounds: int | None = None,
    runs: int | None = None,
    doubts: float = 0.0,
    evidence: Evidence = STEADY,
) -> int:
    """The budget for blocks like these, within ``minimum`` and ``maximum``.

    Args:
        histogram: how long they took.
        minimum: no budget is shorter.
        maximum: no budget is longer. It is the budget when too little is known. If ``minimum`` is more, that wins.
        margin: how many times longer a block may take than the rarest one that is to be expected; at least 1.
        rounds: how many of them tell something new, see `Durations`; None: all.
        runs: in how many runs of the program they were; None: in so many that it does not matter.
        doubts: see `Durations`.
        evidence: how much must be known.
    """
    known = histogram.count if rounds is None else min(rounds, histogram.count)
    if known < evidence.few or doubts >= _DOUBTS:
        return max(minimum, maximum)
    few_runs = 1.0 if runs is None else 1.0 + 1.0 / max(1, runs)
    wanted = max(1.0, min(_with_margin(histogram, margin, evidence.rare) * few_runs, maximum))
    part = min(1.0, math.log(known / evidence.few) / math.log(evidence.enough / evidence.few))
    part *= 1.0 - doubts / _DOUBTS
    # As floats: the last of their digits may be beyond the maximum.
    between = math.exp((1.0 - part) * math.log(maximum) + part * math.log(wanted))
    return max(minimum, min(maximum, math.ceil(between)))


def _with_margin(histogram: Histogram, margin: float, rare: float) -> float:
    """Rules 1 to 3, without the bounds; may be infinite."""
    weight = _weight_of(histogram)
    count = histogram.count
    growth = math.log(max(1.0 / rare, _BEYOND * count)) / math.log(count)
    try:
        expected = histogram.longest * math.pow(growth, weight)
    except OverflowError:
        return math.inf
    return max(1.0, margin) * expected


class _Gap(NamedTuple):
    """Empty buckets, or a mere edge, between two that are not.

    Attributes:
        above: how many blocks are longer.
        whole: the gap, as the difference of logarithms, between the longest blocks above and below.
        sure: what is sure to be empty of it.
    """

    above: int
    whole: float
    sure: float


def _weight_of(histogram: Histogram) -> float:
    """θ of the longest blocks, by rules 1 and 2."""
    count = histogram.count
    gaps = _gaps(histogram)
    # From the shortest up, so that each gap is held against a group that the gaps below it have bounded.
    apart: list[int] = []
    for place in range(len(gaps) - 1, -1, -1):
        gap = gaps[place]
        below = _weight_below(gaps, place, apart, count)
        if _normalised(gap.above, gap.sure, count) > _APART * below:
            apart.insert(0, place)
    return _weight_below(gaps, -1, apart, count)


def _weight_below(gaps: Sequence[_Gap], place: int, apart: Sequence[int], count: int) -> float:
    """θ of the first group of two blocks or more below a gap; those at the places ``apart`` set groups apart."""
    start = gaps[place].above if place >= 0 else 0
    for end in apart:
        size = gaps[end].above - start
        if size >= _GROUP:
            return _weight(gaps[place + 1 : end], start, size, count)
        place, start = end, gaps[end].above
    return _weight(gaps[place + 1 :], start, count - start, count)


def _gaps(histogram: Histogram) -> list[_Gap]:
    """The gaps of a histogram, from the longest blocks down, as far as they may be those of a tail."""
    filled = [bucket for bucket in range(len(histogram.counts) - 1, -1, -1) if histogram.counts[bucket]]
    gaps = []
    above = 0
    for upper, lower in pairwise(filled):
        above += histogram.counts[upper]
        if above > histogram.count // _TAIL_PART:
            break
        sure = math.log(bounds_of(upper)[0] / bounds_of(lower)[1])
        gaps.append(_Gap(above, math.log(histogram.upper(upper) / histogram.upper(lower)), sure))
    return gaps


def _weight(gaps: Sequence[_Gap], start: int, size: int, count: int) -> float:
    """θ of a group of blocks, of which ``start`` others are longer: the mean of its gaps and what was known before."""
    tail = min(size - 1, max(_SHORT_TAIL, min(_TAIL, size // _TAIL_PART)))
    inside = [gap for gap in gaps if 1 < gap.above - start <= tail]
    total = sum(_normalised(gap.above - start, gap.whole, count) for gap in inside)
    return max(1.0, (total + _BEFORE * _HEAVY) / (tail - 1 + _BEFORE))


def _normalised(place: int, gap: float, count: int) -> float:
    """A gap below the ``place``-th longest of ``count`` blocks, as it would be if all were as wide as θ on average."""
    return place * math.log(max(2.0, count / place)) * gap
