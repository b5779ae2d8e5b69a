"""What happens is counted once, whoever tells it how often, and what is counted begins at 0."""

import bisect
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from observe import looks
from observe.looks import NOW, event, picture, row
from unhang.observe.counters import CLASSES, DROPPED, Counters, by_kind
from unhang.observe.measures import State
from unhang.observe.metrics import render
from unhang.observe.site import Site

SOURCE = Path(__file__).parents[2] / "src/unhang"
KILLED = 'unhang_kills_total{class="lock",signal="SIGTERM"}'


def killed(at, **other):
    return event("killed", at=at, signal="SIGTERM", hang="lock", **other)


def value(site, name):
    """The value of a metric of a site."""
    return next(
        float(line.split()[-1])
        for line in site.answer("/metrics").body.decode().splitlines()
        if line.startswith(f"{name} ")
    )


def test_what_is_told_again_behind_a_look_that_failed_is_counted_once():
    """The next look is a new view's, which hears all that the watchdog still knows."""
    site = Site(clock=lambda: NOW)
    site.saw(picture(events=[killed(1)]))
    site.lost("it does not answer")
    site.lost("it does not answer")
    site.saw(picture(events=[killed(1), killed(2)]))
    site.saw(picture(events=[killed(3)]))
    assert value(site, KILLED) == 3


instants = st.lists(st.integers(0, 5), max_size=30).map(sorted)


@given(instants, st.lists(st.booleans(), max_size=30), st.integers(0, 30))
def test_whenever_looks_fail_each_event_is_counted_once(times, fails, known):
    """Also of several that happened at the same instant, and when not all are known any more."""
    counters = Counters()
    told = 0
    for seen, fail in enumerate(fails):
        heard = min(len(times), seen + 1)
        if fail:
            counters.begin_anew()
            told = min(told, max(0, heard - known))
            told = bisect.bisect_left(times, times[told]) if told < len(times) else told
        counters.see(picture(events=[killed(at) for at in times[told:heard]]))
        told = heard
    assert counters.events["killed"] == min(len(times), len(fails))


def test_all_that_another_watchdog_tells_is_news():
    """One that was started again knows nothing of what the one before has told."""
    counters = Counters()
    counters.see(picture(events=[killed(5)]))
    counters.begin_anew()
    counters.see(picture(events=[killed(5), killed(6)], watchdog=looks.watchdog(started=4.0)))
    assert counters.events["killed"] == 3


def test_events_that_were_missed_are_kept_in_mind():
    """A new view has missed none, and its own are added."""
    counters = Counters()
    counters.see(picture(missed=3))
    counters.begin_anew()
    counters.see(picture(missed=0))
    assert counters.missed == 3
    counters.see(picture(missed=2))
    assert counters.missed == 5


def test_what_a_worker_armed_under_another_watchdog_is_not_counted():
    """A watchdog that is started again sees all of it at once; one worker's number is another one's by then."""
    counters = Counters()
    counters.see(picture(row(1, sequence=100_000), row(2, sequence=7)))
    again = looks.watchdog(started=500.0)
    counters.begin_anew()
    counters.see(picture(row(1, sequence=300), row(2, sequence=100_093, inherited=100_093), watchdog=again))
    counters.see(picture(row(1, sequence=301), row(2, sequence=100_103, inherited=100_093), watchdog=again))
    assert counters.armings == 100_007 + 300 + 1 + 10


def test_a_look_that_failed_loses_no_armings():
    """The worker goes on meanwhile, and has the same number."""
    counters = Counters()
    counters.see(picture(row(1, sequence=10, inherited=10)))
    counters.begin_anew()
    counters.see(picture(row(1, sequence=15, inherited=15)))
    assert counters.armings == 5


def test_another_client_of_a_worker_brings_along_what_it_armed_before():
    """That was under another watchdog, too; what it arms from now on is new."""
    counters = Counters()
    counters.see(picture(row(1, sequence=10, inherited=10)))
    counters.see(picture(row(1, sequence=512, inherited=510)))
    assert counters.armings == 2


@pytest.mark.parametrize("signal", ["SIGTERM", "SIGKILL"])
def test_the_first_kill_is_an_increase(signal):
    """Its series is there before, at 0: of one that appears, Prometheus sees no increase."""
    text = render(State(picture=picture())).decode()
    for each in CLASSES:
        assert f'unhang_kills_total{{class="{each}",signal="{signal}"}} 0.0\n' in text
        assert f'unhang_kill_endings_total{{class="{each}",outcome="unkillable",signal="{signal}"}} 0.0\n' in text


def test_all_that_a_watchdog_drops_begins_at_0():
    """Each kind that its source names."""
    named = re.findall(r'limits_met\.add\("([^"]+)"', (SOURCE / "_watchdog/reception.py").read_text())
    assert set(DROPPED) == set(named)
    assert by_kind({}) == dict.fromkeys(DROPPED, 0)
    assert by_kind({"refused": 2, "more": 1}) == dict.fromkeys(DROPPED, 0) | {"refused": 2, "more": 1}
