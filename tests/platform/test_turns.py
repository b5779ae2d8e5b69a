"""What a thread got of the processor."""

import os
import threading
import time

from hypothesis import given
from hypothesis import strategies as st

from support import until
from unhang._platform.turns import Turns, turns


def seen(instant, ran, waited, *, is_ready=True):
    return Turns(1, 1, instant, is_ready, ran, waited)


def test_a_wait_that_is_not_over_yet_counts():
    """The kernel counts it later: a thread that is ready, did not run and did not sleep, has waited."""
    assert seen(2.0, 0.5, 0.0).share_of_waiting(seen(1.0, 0.5, 0.0)) == 1.0
    assert seen(2.0, 1.5, 0.0).share_of_waiting(seen(1.0, 0.5, 0.0)) == 0.0
    assert seen(2.0, 0.75, 0.25).share_of_waiting(seen(1.0, 0.5, 0.0)) == 0.75


def test_a_thread_that_sleeps_is_not_starved():
    """It asks for no processor; only waits that are over count then."""
    assert seen(2.0, 0.0, 0.0, is_ready=False).share_of_waiting(seen(1.0, 0.0, 0.0)) == 0.0
    assert seen(2.0, 0.0, 0.0).share_of_waiting(seen(1.0, 0.0, 0.0, is_ready=False)) == 0.0
    assert seen(2.0, 0.0, 0.5, is_ready=False).share_of_waiting(seen(1.0, 0.0, 0.0)) == 0.5


SEEN = st.builds(Turns, st.just(1), st.just(1), *[st.floats(-1e6, 1e6)], st.booleans(), *[st.floats(-1e6, 1e6)] * 2)


@given(SEEN, SEEN)
def test_a_share_is_a_share(before, after):
    """Whatever the kernel says."""
    assert 0.0 <= after.share_of_waiting(before) <= 1.0


def test_another_thread_says_nothing():
    """Two looks at different threads are not compared."""
    other = Turns(1, 2, 2.0, True, 0.0, 0.0)
    assert other.share_of_waiting(seen(1.0, 0.0, 0.0)) == 0.0


def test_a_thread_is_found_by_its_number_else_the_main_thread():
    """A number of another pid namespace names nobody here; of a process that is gone there is nothing."""
    mine = turns(os.getpid(), threading.get_native_id(), time.monotonic())
    assert (mine.thread, mine.is_ready) == (threading.get_native_id(), True)
    assert mine.ran > 0
    assert turns(os.getpid(), 2**30, time.monotonic()).thread == os.getpid()
    assert turns(2**30, 0, time.monotonic()) is None


def test_a_thread_that_sleeps_is_not_ready():
    """As the kernel sees it."""
    go_on = threading.Event()
    thread = threading.Thread(target=go_on.wait, args=(30,))
    thread.start()
    try:
        until(lambda: not turns(os.getpid(), thread.native_id, time.monotonic()).is_ready)
    finally:
        go_on.set()
        thread.join()
