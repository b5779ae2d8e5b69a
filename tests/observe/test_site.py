"""What is answered from the last look, while others ask and look."""

import threading

import pytest

from observe import looks
from observe.looks import picture, row
from support import LONG
from unhang.observe import metrics
from unhang.observe.health import LATE
from unhang.observe.site import Site


@pytest.fixture
def clock():
    return looks.Clock()


@pytest.fixture
def site(clock):
    """One that has seen a watchdog without workers."""
    site = Site(clock=clock)
    site.saw(picture())
    return site


@pytest.fixture
def halt(monkeypatch):
    """Stop in the rendering of metrics, until the second event; the first one says that it has got there."""
    reached, goes_on = threading.Event(), threading.Event()
    render = metrics.render

    def wait(state):
        reached.set()
        assert goes_on.wait(LONG)
        return render(state)

    monkeypatch.setattr(metrics, "render", wait)
    yield reached, goes_on
    goes_on.set()


def test_whoever_asks_for_metrics_changes_nothing(site, clock):
    """What was seen too long ago is told as such, also behind a scrape."""
    clock.now += LATE + 1
    before = site.answer("/livez")
    assert b"was looked at 6 s ago" in before.body
    assert b"unhang_watchdog_up 0.0" in site.answer("/metrics").body
    assert site.answer("/livez") == before


def test_while_metrics_are_rendered_others_are_answered_and_the_looks_go_on(site, clock, halt):
    """What comes meanwhile stays, and is in the next metrics."""
    reached, goes_on = halt
    clock.now += LATE + 1
    found = []
    scrape = threading.Thread(target=lambda: found.append(site.answer("/metrics").body))
    scrape.start()
    assert reached.wait(LONG)
    site.saw(picture(row(1), at=clock.now, watchdog=looks.watchdog(looked=clock.now)))
    assert site.answer("/livez").status == 200
    goes_on.set()
    scrape.join(LONG)
    assert b"unhang_watchdog_up 0.0" in found[0]
    assert b"unhang_workers 1.0" in site.answer("/metrics").body


def test_metrics_are_rendered_once_a_look(site, clock, monkeypatch):
    """However often they are asked for; and once more when what was seen has grown old."""
    rendered = []
    render = metrics.render
    monkeypatch.setattr(metrics, "render", lambda state: rendered.append(1) or render(state))
    assert [site.answer("/metrics").body for _ in range(3)] == [site.answer("/metrics").body] * 3
    assert len(rendered) == 1
    site.saw(picture(row(1)))
    assert b"unhang_workers 1.0" in site.answer("/metrics").body
    clock.now += LATE + 1
    assert b"unhang_watchdog_up 0.0" in site.answer("/metrics").body
    site.lost("it is gone")
    assert b"unhang_watchdog_up 0.0" in site.answer("/metrics").body
    assert len(rendered) == 4
