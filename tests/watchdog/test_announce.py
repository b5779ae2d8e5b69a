"""What the log says about a worker, one line each."""

import logging

import pytest

from unhang._core.identity import Identity
from unhang._watchdog.announce import announce
from unhang._watchdog.watched import Expired, Origin, Watched

RANK = Watched(7, origin=Origin(identity=Identity(rank=2)))
NEAR = Expired(scope="near", after=1.0, late=0.1, running=1.25)
OTHER = Expired(scope="far", after=9.0, late=0.1, running=9.5)


@pytest.mark.parametrize(
    ("event", "worker", "timers", "detail", "line"),
    [
        (
            "near miss",
            RANK,
            [NEAR],
            "",
            "rank 2 (pid 7) left 'near' after 1.25 s (timeout 1 s), just before the first signal: spared",
        ),
        (
            "killed",
            Watched(7),
            [NEAR, OTHER],
            "SIGTERM",
            "worker 7 is still in 'near' and 1 more after 1.25 s (timeout 1 s): ending it with SIGTERM",
        ),
        ("died", Watched(7), [NEAR], "SIGSEGV", "worker 7 died in 'near': SIGSEGV"),
        ("died", Watched(7), [], "exit code 1", "worker 7 died: exit code 1"),
        ("overslept", None, [NEAR], "", "the watchdog overslept: all deadlines are given 0.1 s back"),
    ],
)
def test_each_event_is_a_line(caplog, event, worker, timers, detail, line):
    """Who, in which block, for how long, and what follows."""
    with caplog.at_level(logging.DEBUG, "unhang.watchdog"):
        announce(event, worker, timers, detail)
    assert caplog.messages == [line]
