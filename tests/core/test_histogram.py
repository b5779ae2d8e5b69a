"""Histograms of how long blocks took."""

import array

from hypothesis import given
from hypothesis import strategies as st

from unhang._core.durations import BUCKET_COUNT, bounds_of
from unhang._core.histogram import Durations, Histogram

durations = st.lists(st.integers(0, 1 << 50), max_size=40)
histograms = durations.map(Histogram.of)
numbers = st.integers(0, 1 << 62)
known = st.builds(
    Durations,
    histograms,
    histograms,
    budget=numbers,
    seen=numbers,
    killed=numbers,
    rounds=numbers,
    starts=numbers,
    doubts=st.floats(0, 3),
)


@given(histograms, histograms, histograms)
def test_the_order_of_merging_does_not_matter(one, two, three):
    """Neither between two, nor among many."""
    assert one.merge(two) == two.merge(one)
    assert one.merge(two).merge(three) == one.merge(two.merge(three))
    assert one.merge(Histogram()) == one


@given(durations, durations)
def test_merged_histograms_are_those_of_all_blocks(some, more):
    """Nothing is lost or made up, the longest block included."""
    assert Histogram.of(some).merge(Histogram.of(more)) == Histogram.of(some + more)


@given(durations, durations)
def test_what_came_since_leads_from_the_earlier_one_to_this_one(some, more):
    """A difference, merged with what was before, is what there is now."""
    earlier, now = Histogram.of(some), Histogram.of(some + more)
    since = now.minus(earlier)
    assert since.count == len(more)
    assert earlier.merge(since) == now
    assert now.minus(now) == Histogram()


@given(st.lists(st.integers(0, 1 << 50), min_size=1, max_size=40), st.floats(0, 1))
def test_a_quantile_is_never_too_short(blocks, part):
    """As many blocks as were asked for do not exceed it, and it is above none of them by more than a bucket."""
    blocks.sort()
    histogram = Histogram.of(blocks)
    quantile = histogram.quantile(part)
    assert sum(each <= quantile for each in blocks) >= part * len(blocks)
    assert quantile <= histogram.longest == blocks[-1]
    exact = blocks[max(0, min(len(blocks) - 1, int(part * len(blocks)) - 1))]
    assert exact >= 1 << 44 or quantile <= max(5120, exact * 1.25) or quantile in blocks or part * len(blocks) % 1


@given(durations, st.integers(0, 1 << 50))
def test_what_is_above_is_never_too_few(blocks, limit):
    """All that are longer are counted, and none of a bucket that is wholly below."""
    above = Histogram.of(blocks).above(limit)
    longer = sum(each > limit for each in blocks)
    assert longer <= above <= len(blocks)
    if limit >= max(blocks, default=0):
        assert above == 0


@given(st.lists(st.integers(-(1 << 63), (1 << 63) - 1), max_size=200), st.integers(-(1 << 63), (1 << 63) - 1))
def test_a_histogram_is_consistent_whatever_it_is_made_of(counts, longest):
    """A page that was read in the middle of a write, or made up by a hostile worker, does no harm."""
    histogram = Histogram(counts, longest)
    assert len(histogram.counts) == BUCKET_COUNT
    assert min(histogram.counts) >= 0
    assert histogram.count == sum(histogram.counts)
    filled = [bucket for bucket, count in enumerate(histogram.counts) if count]
    lowest, end = bounds_of(filled[-1]) if filled else (0, 1)
    assert lowest <= histogram.longest
    assert histogram.longest < end or filled[-1] == BUCKET_COUNT - 1
    assert histogram.merge(histogram).minus(histogram) == histogram


def buckets(counts):
    """Some that are filled, among those that are empty."""
    filled = st.dictionaries(st.integers(0, BUCKET_COUNT - 1), counts, max_size=8)
    return filled.map(lambda some: [some.get(bucket, 0) for bucket in range(BUCKET_COUNT)])


many = buckets(st.integers(0, 3) | st.integers((1 << 48) - 2, 1 << 63))


@given(many, many)
def test_counts_of_any_size_are_added_and_subtracted(some, more):
    """No bucket takes from another one, or gives to it; one that had more blocks before has none."""
    both, since = Histogram(some).merge(Histogram(more)), Histogram(some).minus(Histogram(more))
    assert both.counts == [one + other for one, other in zip(some, more, strict=True)]
    assert since.counts == [max(0, one - other) for one, other in zip(some, more, strict=True)]
    assert (both.count, since.count) == (sum(both.counts), sum(since.counts))


@given(buckets(st.integers(-(1 << 63), (1 << 63) - 1) | st.integers(0, 9)))
def test_a_histogram_of_memory(words):
    """What is written there is counted, if a process can have made so many blocks."""
    memory = memoryview(array.array("q", words))
    assert Histogram.of_memory(memory, 5).counts == [min(max(0, each), 1 << 48) for each in words]


def test_an_empty_histogram():
    """Nothing is above anything, and nothing took any time."""
    nothing = Histogram()
    assert (nothing.count, nothing.longest, nothing.quantile(0.99), nothing.above(0)) == (0, 0, 0, 0)
    assert repr(Histogram.of([1, 2, 10_000])) == "Histogram({0: 2, 4: 1}, longest=10000)"


@given(known, known, known)
def test_what_is_known_of_a_scope_can_be_merged_in_any_order(one, two, three):
    """Also its budget, of which the one that was seen last is kept."""
    assert one.merge(two) == two.merge(one)
    assert one.merge(two).merge(three) == one.merge(two.merge(three))
    assert one.merge(two).seen == max(one.seen, two.seen)


@given(known, known)
def test_a_delta_of_a_scope(earlier, more):
    """What came since, merged with what was before, is what there is now."""
    now = earlier.merge(more)
    assert earlier.merge(now.minus(earlier)) == now
    assert now.minus(earlier).count == more.count


def test_a_scope_of_one_process():
    """All of its blocks are rounds, and it has started once."""
    scope = Durations(Histogram.of([5, 6, 7]), Histogram.of([100]))
    assert (scope.rounds, scope.starts, scope.count) == (3, 1, 4)
    assert scope == Durations(Histogram.of([7, 6, 5]), Histogram.of([100]))
    assert hash(scope) == hash(Durations(Histogram.of([7, 6, 5]), Histogram.of([100])))
    assert "starts=1" in repr(scope)
    assert scope != Durations()
