"""Whether the watchdog was there all the time."""

import os

from support import in_a_thread
from unhang._watchdog.presence import Presence
from unhang.testing import ManualClock


def test_a_pause_before_the_first_wait_counts():
    """What is watched may be older than the watchdog's first wait."""
    clock = ManualClock()
    presence = Presence(clock)
    clock.advance(40)
    presence.waits(1)
    assert presence.is_back() == 40


def turn(presence):
    presence.waits(1)
    return presence.is_back()


def test_a_watchdog_that_is_started_long_after_it_was_made_was_not_away():
    """It measures from the first turn of its loop's thread on, or of a forked child's."""
    clock = ManualClock()
    presence = Presence(clock)
    clock.advance(40)
    assert in_a_thread(lambda: turn(presence)) == 0
    clock.advance(40)
    child = os.fork()
    if child == 0:
        os._exit(int(turn(presence)))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
