"""How long a server lets requests gather."""

import math

from unhang._platform.naps import LONGEST, SHORTEST, Naps


class Waits:
    """Says what it is asked, and that there is something."""

    def __init__(self):
        self.asked = []

    def wait(self, timeout):
        self.asked.append("wait")
        return True

    def poll(self):
        self.asked.append("poll")
        return True


def taken(naps, remaining, waits):
    """The length of the nap that is taken."""
    slept = []
    naps._sleep = slept.append
    naps.take(remaining, waits)
    return sum(slept)


def grown(shortest, size=100):
    naps = Naps()
    for _ in range(100):
        naps.saw(size, shortest)
    return naps


def test_naps_get_as_long_as_timeouts_allow():
    """An eighth of the shortest, within their bounds."""
    assert taken(Naps(), 60, Waits()) == SHORTEST
    assert taken(grown(3600), 60, Waits()) == LONGEST
    assert taken(grown(math.inf), 60, Waits()) == LONGEST
    assert taken(grown(0.16), 60, Waits()) == 0.02
    assert taken(grown(-1), 60, Waits()) == SHORTEST


def test_a_short_timeout_counts_at_once():
    """And slowly no more."""
    naps = grown(3600)
    naps.saw(100, 0.02)
    short = taken(naps, 60, Waits())
    assert short == 0.0025
    naps.saw(100, 3600)
    assert short < taken(naps, 60, Waits()) < 2 * short


def test_no_nap_outlasts_the_next_deadline():
    """Half the time that is left at most, and none at all when that is short."""
    assert taken(grown(3600), 0.02, Waits()) == 0.01
    assert taken(grown(3600), 0.0015, Waits()) == 0.0


def test_a_flood_shortens_naps():
    """The pipe would be full before the end of one."""
    assert taken(grown(3600, size=1 << 20), 60, Waits()) == SHORTEST


def test_while_requests_flow_none_is_waited_for():
    """The nap comes first; what became ready otherwise is looked after."""
    naps, waits = grown(3600), Waits()
    taken(naps, 60, waits)
    naps.flowing = True
    taken(naps, 60, waits)
    taken(naps, 0.001, waits)
    assert waits.asked == ["wait", "poll", "wait"]
