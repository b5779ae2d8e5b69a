"""Whether all is well: a table of what stalls, and what holds for all pictures."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from observe import looks
from observe.looks import armed, event, picture, row
from unhang.observe.health import LATE, Limits, in_words, stall, stalled, why_late, why_not

WELL = [
    ("nobody is there", picture(), Limits()),
    ("a worker has just entered a block", picture(row(1, armed(), idle=0.1)), Limits(max_stall=1)),
    ("one between two blocks has nothing to finish", picture(row(1, idle=5000)), Limits(max_stall=1)),
    ("one that has just come may start up", picture(row(1, armed(), idle=500, joined=500)), Limits(60, startup=501)),
    ("workers may still come", picture(), Limits(min_workers=2, startup=901)),
    ("behind the deadline, but not for long", picture(row(1, armed(after=1, running=2), idle=0)), Limits(max_stall=3)),
    ("no limit", picture(row(1, armed(running=9e9), idle=9e9)), Limits(max_stall=math.inf)),
]
ILL = [
    ("in one block", picture(row(1, armed(running=412), idle=412)), Limits(),
     "worker 4001 makes no progress for 412 s: in 'step' for 412 s, timeout 600 s"),
    ("a rank", picture(row(1, armed(running=412), idle=412, rank=3)), Limits(),
     "rank 3 (pid 4001) makes no progress for 412 s: in 'step' for 412 s, timeout 600 s"),
    ("the longest is told", picture(row(1, armed(), idle=301), row(2, armed(), idle=302), row(3)), Limits(),
     "2 of 3 workers stall; worker 4002 makes no progress for 302 s: in 'step' for 1 s, timeout 600 s"),
    ("in no block, where that counts", picture(row(1, idle=400)), Limits(idle_too=True),
     "worker 4001 makes no progress for 400 s: it is in no block"),
    ("behind its deadline, while other threads go on",
     picture(row(1, armed(after=10, running=400), armed(running=1), idle=0)), Limits(),
     "worker 4001 makes no progress for 400 s: in 'step' for 400 s, timeout 10 s"),
    ("timers that could not be read", picture(row(1, idle=400, timers=3)), Limits(),
     "worker 4001 makes no progress for 400 s: it has 3 timers armed"),
    ("one is missing", picture(row(1)), Limits(min_workers=2), "1 worker connected, not 2"),
    ("all are missing, behind the start", picture(), Limits(min_workers=2, startup=900), "0 workers connected, not 2"),
    ("it had its time", picture(row(1, armed(), idle=500, joined=500)), Limits(60, startup=500),
     "worker 4001 makes no progress for 500 s: in 'step' for 1 s, timeout 600 s"),
    ("the watchdog hangs", picture(watchdog=looks.watchdog(looked=looks.NOW - 9)), Limits(),
     "the watchdog has not looked for 9 s"),
]  # fmt: skip


@pytest.mark.parametrize(("seen", "limits"), [case[1:] for case in WELL], ids=[case[0] for case in WELL])
def test_well(seen, limits):
    """There is nothing to say against it."""
    assert why_not(seen, limits) == ""


@pytest.mark.parametrize(("seen", "limits", "why"), [case[1:] for case in ILL], ids=[case[0] for case in ILL])
def test_not_well(seen, limits, why):
    """One line says why, with the worst case."""
    assert why_not(seen, limits) == why


def test_time_in_which_the_host_did_not_run_is_nobodys():
    """What the watchdog has given back is no stall, as far as it lies in the time of the stall."""
    slept = event("overslept", late=400.0, at=looks.NOW - 10)
    long_ago = event("overslept", late=400.0, at=looks.NOW - 600)
    assert why_not(picture(row(1, armed(running=500), idle=500), recent=[slept])) == ""
    assert "for 500 s" in why_not(picture(row(1, armed(running=500), idle=500), recent=[long_ago]))
    partly = event("overslept", late=400.0, at=looks.NOW - 450)
    assert "for 450 s" in why_not(picture(row(1, armed(running=500), idle=500), recent=[partly]))


def test_words_for_a_good_picture():
    """How many there are, and what they wait for."""
    assert in_words(picture(row(1, armed()), row(2))) == "2 workers, 1 of them in no block"
    assert in_words(picture(row(1, armed()))) == "1 worker"
    assert in_words(picture(), Limits(min_workers=8)) == "0 workers of 8; the watchdog has just started"


def test_a_late_watchdog():
    """Its loop turns once a second; some seconds more are the host's."""
    assert why_late(100.0, 100.0 + LATE) == ""
    assert why_late(100.0, 109.0) == "the watchdog has not looked for 9 s"


seconds = st.floats(0, 1e9)
blocks = st.builds(armed, st.text(st.characters(exclude_categories=[])), st.floats(-1e9, 1e9), st.floats(-1e9, 1e9))
rows = st.builds(
    lambda number, found, idle, joined, rank: row(number, *found, idle=idle, joined=joined, rank=rank),
    st.integers(1, 100), st.lists(blocks, max_size=3), seconds, st.floats(0, looks.NOW), st.none() | st.integers(),
)  # fmt: skip
pictures = st.lists(rows, max_size=4).map(lambda found: picture(*found))
limits = st.builds(Limits, seconds, st.integers(0, 5), seconds, st.booleans())


@given(pictures, limits)
def test_why_not_is_one_line(seen, given_limits):
    """Whatever a worker calls its blocks, nothing in the line steers a terminal or ends it early."""
    why = why_not(seen, given_limits)
    assert why.isprintable()
    assert in_words(seen, given_limits).isprintable()
    why.encode()


@given(pictures, limits, seconds)
def test_more_patience_never_makes_it_worse(seen, given_limits, more):
    """Each limit, made wider, leaves what was well as it was."""
    if why_not(seen, given_limits) == "":
        for wider in (
            Limits(
                given_limits.max_stall + more, given_limits.min_workers, given_limits.startup, given_limits.idle_too
            ),
            Limits(given_limits.max_stall, 0, given_limits.startup, given_limits.idle_too),
            Limits(
                given_limits.max_stall, given_limits.min_workers, given_limits.startup + more, given_limits.idle_too
            ),
            Limits(given_limits.max_stall, given_limits.min_workers, given_limits.startup),
        ):
            assert why_not(seen, wider) == ""


@given(pictures, limits)
def test_who_is_told_stalls(seen, given_limits):
    """The longest first, and none within the limit."""
    found = [each for each, _ in stalled(seen, given_limits)]
    assert found == sorted(found, reverse=True)
    assert all(each > given_limits.max_stall for each in found)
    assert all(stall(each, given_limits) > given_limits.max_stall for _, each in stalled(seen, given_limits))
