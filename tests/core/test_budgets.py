"""The rule by which a budget follows from how long blocks took, and what is remembered for it."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unhang._core import learned
from unhang._core.budgets import START_UP, budgets, propose
from unhang._core.histogram import Durations, Histogram
from unhang._core.memory import MINUTE, Memory

SECOND = 10**9
MAXIMUM = 600 * SECOND
some = st.lists(st.integers(0, 1 << 45), min_size=1, max_size=30)
# A few lengths, each many times: as many blocks as a rule needs.
histograms = st.builds(
    lambda lengths, times: Histogram.of(
        length for length, each in zip(lengths, times, strict=False) for _ in range(each)
    ),
    some,
    st.lists(st.integers(1, 300), min_size=30, max_size=30),
)
bounds = st.tuples(st.integers(1, 1 << 50), st.integers(1, 1 << 50)).map(sorted)


def seeded(seed):
    return random.Random(seed)  # noqa: S311 - no secret


def seconds(draw, count):
    return Histogram.of(int(draw() * SECOND) for _ in range(count))


def steps(count, seed=1):
    chance = seeded(seed)
    return seconds(lambda: chance.gauss(1, 0.05), count)


def proposed(histogram, **more):
    return propose(histogram, SECOND, MAXIMUM, 2.0, **more) / SECOND


@given(histograms, bounds, st.floats(1, 100), st.floats(0, 3))
def test_a_budget_stays_within_its_bounds(histogram, bound, margin, doubts):
    """Whatever was seen."""
    assert bound[0] <= propose(histogram, *bound, margin, doubts=doubts) <= bound[1]


@given(histograms, bounds, st.tuples(st.floats(1, 100), st.floats(1, 100)).map(sorted))
def test_more_margin_is_no_shorter_budget(histogram, bound, margins):
    """The budget never falls as the margin grows."""
    assert propose(histogram, *bound, margins[0]) <= propose(histogram, *bound, margins[1])


@given(histograms, bounds, st.floats(1, 100))
def test_a_budget_is_never_below_what_was_seen(histogram, bound, margin):
    """Nor below the margin over it, but for the maximum."""
    assert propose(histogram, *bound, margin) >= min(bound[1], histogram.longest * margin * (1 - 1e-9))


@given(bounds, st.lists(st.integers(0, 1 << 45), max_size=29))
def test_without_enough_blocks_it_is_the_maximum(bound, blocks):
    """With none at all, and with a few."""
    assert propose(Histogram.of(blocks), *bound, 2.0) == bound[1]


def test_a_minimum_above_the_maximum_wins():
    """A start-up may have a maximum that is lower than the minimum of its blocks."""
    assert propose(Histogram(), 5, 3, 2.0) == 5
    assert propose(steps(1000), 700 * SECOND, MAXIMUM, 2.0) == 700 * SECOND


def test_the_more_is_known_the_nearer_a_budget_is_to_the_blocks():
    """It comes down from the maximum, and ends a little above the margin."""
    found = [proposed(steps(count)) for count in (29, 30, 100, 1000, 10_000, 100_000)]
    assert found[:2] == [600, 600]
    assert found[:5] == sorted(found[:5], reverse=True)
    assert found[2] > 50
    assert found[3] < 3.5
    assert 2.2 < found[5] < 2.8


def test_many_processes_with_a_few_blocks_each_are_little_evidence():
    """A thousand of them with ten steps each do not know what comes with the eleventh."""
    assert proposed(steps(10_000), rounds=10) == 600
    assert proposed(steps(10_000), rounds=100) > 50


def test_one_outlier_says_nothing_of_the_rest():
    """It stays within the budget with the margin, and little more; five times it would be 1500 s."""
    assert 120 < proposed(steps(30_000).merge(Histogram.of([60 * SECOND]))) < 150
    slow = propose(steps(30_000).merge(Histogram.of([300 * SECOND])), SECOND, 10 * MAXIMUM, 2.0)
    assert slow < 750 * SECOND


def test_a_checkpoint_in_the_same_block_is_a_tail_of_its_own():
    """The gap between steps and checkpoints is none that a tail has, so nothing is extrapolated from it."""
    chance = seeded(2)
    checkpoints = seconds(lambda: chance.gauss(30, 1), 20)
    assert 60 < proposed(steps(10_000).merge(checkpoints)) < 110


def test_checkpoints_and_evaluations():
    """Of three lengths the longest one counts."""
    chance = seeded(3)
    rest = seconds(lambda: chance.gauss(10, 0.5), 100).merge(seconds(lambda: chance.gauss(60, 2), 10))
    assert 120 < proposed(steps(10_000).merge(rest)) < 260


def test_heavier_tails_have_longer_budgets():
    """In proportion to the longest block."""
    chance = seeded(4)
    draws = (lambda: chance.gauss(1, 0.05), lambda: chance.lognormvariate(0, 0.5), lambda: chance.paretovariate(2))
    found = []
    for draw in draws:
        histogram = seconds(draw, 10_000)
        found.append(propose(histogram, 1, 1000 * MAXIMUM, 2.0) / histogram.longest)
    assert found == sorted(found)
    assert found[0] < 2.7
    assert found[2] > 2.9


def test_what_few_runs_have_shown_is_widened():
    """Twice as long after one run, and hardly after many: the next one may be on a slower machine."""
    found = [proposed(steps(10_000), runs=runs) for runs in (0, 1, 2, 10, None)]
    assert found[0] == found[1] == pytest.approx(2 * found[4])
    assert found[2] == pytest.approx(1.5 * found[4])
    assert found[3] == pytest.approx(1.1 * found[4])


@given(st.floats(0, 2), st.floats(0, 2))
def test_doubts_lead_back_to_the_maximum(one, two):
    """Step by step, and with two of them all the way."""
    less, more = sorted((one, two))
    histogram = steps(1000)
    assert proposed(histogram, doubts=less) <= proposed(histogram, doubts=more)
    assert proposed(histogram, doubts=2) == 600


def test_the_first_block_is_budgeted_apart():
    """From the first blocks alone, within a maximum of its own; without any, it is that maximum."""
    starts = Durations(steps(2000), seconds(lambda: 100.0, 200))
    first, steady = budgets(starts, SECOND, MAXIMUM, 3 * MAXIMUM, 2.0)
    assert steady < 5 * SECOND
    assert 200 * SECOND < first < 500 * SECOND
    assert budgets(Durations(steps(2000)), SECOND, MAXIMUM, 3 * MAXIMUM, 2.0).first == 3 * MAXIMUM
    assert budgets(None, SECOND, MAXIMUM, 3 * MAXIMUM, 2.0) == (3 * MAXIMUM, MAXIMUM)
    assert propose(Histogram.of([SECOND] * 4), 1, MAXIMUM, 2.0, evidence=START_UP) == MAXIMUM


class Life:
    """A scope that is seen minute by minute."""

    def __init__(self):
        self.memory = Memory()
        self.now = 1_000_000 * MINUTE

    def start(self, seconds=20):
        self.memory.add(Durations(first=Histogram.of([seconds * SECOND])), self.now)

    def minute(self, *blocks, killed=0, times=1):
        histogram = Histogram.of(int(each * SECOND) for each in blocks)
        for _ in range(times):
            self.memory.add(Durations(histogram, killed=killed), self.now)
            self.now += MINUTE

    @property
    def longest(self):
        return self.memory.durations.steady.longest / SECOND


def test_what_has_become_faster_is_learned_anew():
    """What took five seconds in ten runs, and one in twenty more, takes one."""
    life = Life()
    for seconds_each, runs in ((5, 10), (1, 20)):
        for _ in range(runs):
            life.start()
            life.minute(*[seconds_each] * 12, times=20)
    assert life.longest < 1.1
    assert life.memory.durations.steady.count == 20 * 20 * 12


def test_what_comes_with_each_start_is_not_forgotten_in_a_long_run():
    """However long that is."""
    life = Life()
    life.start()
    life.minute(15, 15)
    life.minute(*[1] * 60, times=20_000)
    assert life.longest == 15


def test_what_comes_late_is_not_forgotten_in_many_short_attempts():
    """They have not come so far."""
    life = Life()
    for _ in range(3):
        life.start()
        life.minute(*[1] * 60, times=59)
        life.minute(30)
    for _ in range(100):
        life.start()
        life.minute(*[1] * 60)
    assert life.longest == 30


def test_an_outlier_is_forgotten_in_the_end():
    """A thousand starts, and a thousand times as long as it took to come."""
    life = Life()
    life.start()
    life.minute(300)
    for _ in range(1100):
        life.start()
        life.minute(1, 1)
    assert life.longest < 1.1


def test_what_many_processes_see_at_once_is_one_event():
    """A stall that holds up eight hosts is not eight stalls, so its absence means as little."""
    life = Life()
    life.start()
    for _ in range(8):
        life.memory.add(Durations(Histogram.of([30 * SECOND] * 8)), life.now)
    for _ in range(100):
        life.start()
        life.minute(1, 1, times=2)
    assert life.longest == 30


def test_rounds_are_those_of_one_process():
    """As many as fit into the minutes in which there were blocks."""
    life = Life()
    for _ in range(10):
        life.memory.add(Durations(Histogram.of([SECOND] * 8000)), life.now)
    assert life.memory.durations.rounds == 60
    slow = Life()
    slow.minute(300, times=50)
    assert slow.memory.durations.rounds == 50


def test_starts_are_counted_by_the_minute():
    """A thousand processes that start at once have told one thing."""
    life = Life()
    for _ in range(1000):
        life.start()
    assert (life.memory.durations.starts, life.memory.durations.first.count) == (1, 1000)


def test_a_budget_that_kills_every_attempt_is_given_up():
    """The second kill in some thousand rounds leads back to the maximum; then the longer blocks can be learned."""
    life = Life()
    life.start()
    life.minute(*[1] * 60, times=50)
    assert budgets(life.memory.durations, SECOND, MAXIMUM, MAXIMUM, 2.0).steady < 5 * SECOND
    life.minute(killed=1)
    assert 20 * SECOND < budgets(life.memory.durations, SECOND, MAXIMUM, MAXIMUM, 2.0).steady < 100 * SECOND
    life.minute(killed=1)
    assert budgets(life.memory.durations, SECOND, MAXIMUM, MAXIMUM, 2.0).steady == MAXIMUM
    life.minute(*[8] * 8, times=1000)
    assert budgets(life.memory.durations, SECOND, MAXIMUM, MAXIMUM, 2.0).steady < 40 * SECOND


def test_workers_that_are_killed_together_are_one_doubt():
    """All ranks of a job hang with the one that hangs."""
    life = Life()
    life.minute(*[1] * 60, times=50)
    for _ in range(8):
        life.memory.add(Durations(killed=64), life.now)
    assert life.memory.durations.doubts == 1
    assert life.memory.durations.killed == 8 * 64


def test_a_clock_that_steps_back_counts_no_minute_twice():
    """Until it has caught up, or an hour has gone; then it counts again."""
    life = Life()
    life.minute(1)
    life.now -= 10 * MINUTE
    life.minute(1, times=5)
    assert life.memory.steady.minutes.now == 1
    life.now -= 100 * MINUTE
    life.minute(1)
    assert life.memory.steady.minutes.now == 2


def same(memory):
    return learned.decode(learned.encode(learned.Learned({"a": memory}))).scopes["a"]


@given(st.lists(st.tuples(some, st.integers(0, 2), st.booleans(), st.integers(0, 5000)), max_size=8))
def test_a_file_holds_all_that_is_remembered(adds):
    """What was written and read again goes on as if it had not been."""
    memory, now = Memory(), 0
    for blocks, killed, first, pause in adds:
        now += pause
        histogram = Histogram.of(blocks)
        more = Durations(Histogram() if first else histogram, histogram if first else None, killed=killed, budget=now)
        again = same(memory)
        memory.add(more, now)
        again.add(more, now)
        assert learned.encode(learned.Learned({"a": again})) == learned.encode(learned.Learned({"a": memory}))


@given(st.binary(max_size=200))
def test_what_is_no_file_of_these_is_refused(document):
    """With the one error that its readers expect."""
    with pytest.raises(learned.FormatError):
        learned.decode(document)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=7) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
numbers = st.integers(0, (1 << 63) - 1) | st.integers(0, 130)
rows = st.lists(st.lists(numbers, min_size=6, max_size=6), max_size=5)
levels = (
    st.fixed_dictionaries({"longest_ns": numbers, "minutes": numbers, "starts": numbers, "buckets": rows}) | anything
)
scopes = st.fixed_dictionaries(
    {"steady": levels, "first": levels},
    optional={"budget_ns": anything, "minute": numbers, "doubts": anything, "started": numbers, "killed": numbers},
)


@given(st.dictionaries(st.text(max_size=3), scopes | anything, max_size=2) | anything, some)
def test_a_file_that_somebody_made_up_does_no_harm(document, blocks):
    """It is refused, or its budgets keep within their bounds, and learning goes on."""
    text = learned.json.dumps({"unhang_learned": 1, "scopes": document}).encode()
    try:
        found = learned.decode(text)
    except learned.FormatError:
        return
    for memory in found.scopes.values():
        for _ in range(2):
            first, steady = budgets(memory.durations, 5, 100, 200, 2.0)
            assert 5 <= steady <= 100
            assert 5 <= first <= 200
            memory.add(Durations(Histogram.of(blocks), Histogram.of(blocks), killed=1), 12345)
    learned.encode(found)


def test_a_newer_format_is_told_from_a_broken_one():
    """So that a file of a later version is not put aside as corrupt."""
    with pytest.raises(learned.NewerFormatError, match="its format is 2"):
        learned.decode(b'{"unhang_learned": 2, "scopes": []}')


def test_of_too_many_scopes_the_least_used_are_dropped():
    """Those that were seen last stay, and of these the ones with the most blocks; it is counted."""
    found = learned.Learned()
    for number in range(learned.MOST_SCOPES + 10):
        memory = found.scopes[f"scope {number}"] = Memory()
        day = 10 if number % 2 else 11
        memory.add(Durations(Histogram.of([SECOND] * (1 + number % 7))), day * 24 * 60 * MINUTE)
    again = learned.decode(learned.encode(found))
    assert (len(again.scopes), again.dropped) == (learned.MOST_SCOPES, 10)
    gone = [number for number in range(learned.MOST_SCOPES + 10) if f"scope {number}" not in again.scopes]
    assert all(number % 2 and number % 7 == 0 for number in gone)


def test_a_file_is_small():
    """A scope of many blocks takes less than a kilobyte."""
    chance = seeded(5)
    life = Life()
    for _ in range(50):
        life.start()
        life.minute(*(chance.lognormvariate(0, 0.5) for _ in range(1000)))
    assert len(learned.encode(learned.Learned({"step": life.memory}))) < 1024


def test_the_rule_survives_extremes():
    """All blocks of one length, of none at all, and longer than anything."""
    for length in (0, 1, 5000, 1 << 62):
        budget = propose(Histogram.of([length] * 5000), 1, 1 << 62, 2.0)
        assert 1 <= budget <= 1 << 62
    huge = Histogram([1 << 62] * 128, (1 << 63) - 1)
    assert math.isfinite(propose(huge, 1, 1 << 62, 1e300))
