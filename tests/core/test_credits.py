"""Time that is given back."""

from hypothesis import given
from hypothesis import strategies as st

from unhang._core import credits as credits_module
from unhang._core.credits import Credits


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


@given(st.lists(st.tuples(st.integers(1, 100), st.integers(1, 100)), max_size=200), st.integers(0, 3000))
def test_many_stretches_are_forgotten_in_the_timers_favour(stretches, armed_at):
    """However many there were, few are kept, and no timer gets less than it lost."""
    credit, now, exact = Credits(), 0, 0
    for lost, pause in stretches:
        now += pause + lost
        credit.add(now, lost)
        exact += min(lost, now - armed_at) if now > armed_at else 0
    assert len(credit._stretches) <= credits_module._MOST
    assert credit.given(armed_at) >= exact
