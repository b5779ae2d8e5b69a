"""Clocks, oversleeping, retries, counting, call sites."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unhang._core.clock import SystemClock, WallTime
from unhang._core.oversleep import Oversleep
from unhang._core.retries import ATTEMPTS, pause_after
from unhang._core.tally import Tally
from unhang.testing import ManualClock


def test_a_wall_instant_becomes_monotonic():
    """An instant in ten seconds by the wall clock is ten monotonic seconds away."""
    clock = ManualClock()
    assert WallTime(clock).monotonic(clock.wall() + 10) == pytest.approx(clock.now() + 10)


def test_now_stays_now_when_the_wall_clock_steps():
    """The instant that was read means the moment of reading, also after a step."""
    clock = ManualClock()
    wall = WallTime(clock)
    read, then = wall.read(), clock.now()
    clock.step_wall(-3600)
    assert wall.monotonic(read) == then


def test_the_system_clock_turns_forward():
    """The monotonic clock does not go back."""
    clock = SystemClock()
    assert clock.now() <= clock.now()
    assert clock.wall() > 1_700_000_000


def test_a_watchdog_on_time_gives_nothing_back():
    """Small delays are nobody's loss."""
    oversleep = Oversleep(0.0)
    for second in range(10):
        oversleep.plan(second, second + 1.0)
        assert oversleep.looked(second + 1.2) == 0


def test_the_whole_stretch_without_a_look_is_given_back():
    """The pause may have begun right after the last look, so all of it counts."""
    oversleep = Oversleep(100.0)
    oversleep.plan(100.0, 101.0)
    assert oversleep.looked(111.0) == 11.0
    assert oversleep.looked(111.1) == 0


def test_a_pause_between_a_look_and_the_next_wait_counts():
    """A plan that is made after the pause does not hide it."""
    oversleep = Oversleep(100.0)
    oversleep.plan(105.0, 106.0)
    assert oversleep.looked(106.0) == 6.0


@given(st.lists(st.floats(0, 100), max_size=20))
def test_no_more_is_given_back_than_has_passed(gaps):
    """However irregular the looks, what is given back never exceeds the time since the start."""
    oversleep, now, given_back = Oversleep(0.0), 0.0, 0.0
    for gap in gaps:
        oversleep.plan(now, now + 1)
        now += gap
        given_back += oversleep.looked(now)
    assert given_back <= now + 1e-6


def test_pauses_grow_and_end():
    """Each pause is at least as long as the one before, none exceeds 30 s, and there is a last one."""
    pauses = [pause_after(attempt) for attempt in range(1, ATTEMPTS)]
    assert pauses == sorted(pauses)
    assert pauses[0] == pytest.approx(0.1)
    assert pauses[-1] <= 30
    assert pause_after(ATTEMPTS) is None


def test_each_kind_is_told_once_and_counted_always():
    """A flood of bad requests is one line in the log for each kind."""
    told = []
    tally = Tally(lambda kind, detail: told.append((kind, detail)))
    for number in range(5):
        tally.add("bad pid", str(number))
    tally.add("too long", "x", 3)
    assert told == [("bad pid", "0"), ("too long", "x")]
    assert tally.counts == {"bad pid": 5, "too long": 3}
