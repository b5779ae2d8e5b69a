"""The document of `unhang status --json` and of `/workers`."""

import json
import math

from hypothesis import given
from hypothesis import strategies as st

from observe import looks
from observe.looks import armed, event, picture, row
from unhang.observe.document import VERSION, decode, document, encode

finite = st.floats(-1e9, 1e9)
blocks = st.builds(armed, st.text(), finite, finite)
rows = st.builds(
    lambda number, found, job, rank: row(number, *found, job=job, rank=rank),
    st.integers(1, 9), st.lists(blocks, max_size=8), st.text(), st.none() | st.integers(0, 10**6),
)  # fmt: skip


@given(st.lists(rows, max_size=3), st.lists(st.builds(event, st.text(), scope=st.text()), max_size=3))
def test_it_comes_back_as_it_was(found, happened):
    """Through JSON, with every text in it."""
    made = document(picture(*found, events=happened))
    assert decode(encode(made)) == made
    assert made.version == VERSION


def test_what_a_worker_without_a_timer_has_not_is_null():
    """JSON has no infinity."""
    found = json.loads(encode(document(picture(row(1)))))["workers"][0]
    assert (found["left"], found["running"], found["blocks"]) == (None, None, [])


def test_times_are_seconds_from_then_to_now():
    """Nobody elsewhere can read the monotonic clock of this host."""
    made = document(picture(row(1, armed(after=60, running=20), idle=3.0, joined=looks.NOW - 50)))
    worker = made.workers[0]
    assert (worker.connected, worker.idle, worker.left, worker.running) == (50, 3, 40, 20)
    assert (made.watchdog.up, made.watchdog.looked) == (900, 0.5)


def test_an_instant_that_lies_ahead():
    """Two clocks that were read one after the other make no negative time."""
    assert document(picture(watchdog=looks.watchdog(looked=math.nextafter(looks.NOW, math.inf)))).watchdog.looked == 0
