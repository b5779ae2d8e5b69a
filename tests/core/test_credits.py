"""Time that is given back."""

import math

from hypothesis import given
from hypothesis import strategies as st

from unhang._core import credits as credits_module
from unhang._core.credits import LEAST, MOST_PAUSES, PAUSE, Credits

SECOND = 1_000_000_000


def test_a_timer_gets_back_what_it_lost():
    """All of a stretch behind its arming, the part of one in its middle, nothing of one before."""
    credit = Credits()
    credit.add(until=100, lost=10)
    assert credit.given(armed_at=50) == 10
    assert credit.given(armed_at=95) == 5
    assert credit.given(armed_at=100) == 0
    credit.add(until=200, lost=50)
    assert credit.given(armed_at=50) == 60
    assert credit.given(armed_at=120) == 50


def test_a_pause_of_any_length_is_given_back():
    """A block of a minute in a machine that was frozen for a day has its minute."""
    credit = Credits()
    day = 86_400 * SECOND
    credit.add(until=day + 30 * SECOND, lost=day)
    assert credit.given(armed_at=0, timeout=60 * SECOND) == day


def test_a_worker_s_own_credits_count_with_those_of_all():
    """Within one bound."""
    everybody = Credits()
    own = Credits(everybody)
    everybody.add(until=10 * SECOND, lost=SECOND)
    own.add(until=12 * SECOND, lost=2 * SECOND)
    assert own.given(armed_at=0, timeout=60 * SECOND) == 3 * SECOND
    assert own.given(armed_at=0, timeout=SECOND) == LEAST
    assert Credits(everybody).given(armed_at=0, timeout=60 * SECOND) == SECOND


def test_the_end_of_a_time_moves_by_what_it_gets_back():
    """In seconds; what never ends still does not."""
    credit = Credits()
    credit.add(until=10 * SECOND, lost=SECOND)
    assert credit.moved(5.0, 15.0) == 16.0
    assert credit.moved(10.0, 15.0) == 15.0
    assert credit.moved(5.0, math.inf) == math.inf


STRETCHES = st.lists(st.tuples(st.integers(1, 10), st.integers(1, 2 * PAUSE)), max_size=200)


@given(STRETCHES, st.integers(0, 3000), st.integers(1, 100 * PAUSE))
def test_no_timer_gets_back_more_than_its_bounds(stretches, armed_at, timeout):
    """However often nobody looked, a worker that hangs is ended: only so many pauses come on top of a timeout."""
    credit, now = Credits(), 0
    for awake, lost in stretches:
        now += awake + lost
        credit.add(now, lost)
    most_pauses = MOST_PAUSES * (2 * PAUSE if len(credit._pauses) < credits_module._MOST else now)
    assert credit.given(armed_at, timeout) <= max(timeout, LEAST) + most_pauses


@given(st.lists(st.tuples(st.integers(1, 100), st.integers(1, 100)), max_size=200), st.integers(0, 3000))
def test_many_stretches_are_forgotten_in_the_timers_favour(stretches, armed_at):
    """However many there were, few are kept, and no timer gets less than it lost, up to its bound."""
    credit, now, exact = Credits(), 0, 0
    for pause, lost in stretches:
        now += pause + lost
        credit.add(now, lost)
        exact += min(lost, now - armed_at) if now > armed_at else 0
    assert len(credit._short) <= credits_module._MOST
    assert credit.given(armed_at) >= exact
