"""The observer's looks: how they go on while durations are added up, and what becomes of those when one fails."""

import threading

import pytest

from observe import looks
from observe.looks import event, picture
from support import LONG
from unhang._core.histogram import Durations, Histogram
from unhang._worker.learned_file import read_durations
from unhang.errors import ViewError
from unhang.observe import observing
from unhang.observe.learner import Learner
from unhang.observe.learning import LearnedFile
from unhang.observe.observing import Looker
from unhang.observe.site import Site

SECOND = 1_000_000_000
ADDRESS = "/run/x.sock"


class FakeView:
    """A view that knows of so many blocks of a second, and sees these pictures; then its watchdog is gone."""

    def __init__(self, *pictures, blocks=0):
        self.pictures = list(pictures)
        self.blocks = blocks
        self.added_up = 0
        self.is_closed = False

    def look(self):
        if not self.pictures:
            raise ViewError(ADDRESS, "it does not answer")
        return self.pictures.pop(0)

    def durations(self):
        assert not self.is_closed
        self.added_up += 1
        return {"step": Durations(Histogram.of([SECOND] * self.blocks))}

    def close(self):
        self.is_closed = True


@pytest.fixture
def views(monkeypatch):
    """The views that lookers get, one after the other; then nobody listens."""
    given = []

    def connect(address, history):
        assert (address, history) == (ADDRESS, None)
        if not given:
            raise ViewError(ADDRESS, "nobody listens there")
        return given.pop(0)

    monkeypatch.setattr(observing, "View", connect)
    return given


@pytest.fixture
def path(tmp_path):
    tmp_path.chmod(0o700)
    return str(tmp_path / "learned.json")


@pytest.fixture
def site():
    return Site(clock=lambda: looks.NOW)


@pytest.fixture
def looker(path, site):
    """One that learns."""
    return Looker(ADDRESS, site, Learner(LearnedFile(path)))


def learned(path):
    return read_durations(path)["step"].steady.count


def test_what_was_seen_is_told_before_durations_are_added_up(views, looker, site):
    """That may take long: nobody is told meanwhile that the watchdog does not look."""
    reached, goes_on = threading.Event(), threading.Event()

    class SlowView(FakeView):
        def durations(self):
            reached.set()
            assert goes_on.wait(LONG)
            return super().durations()

    views.append(SlowView(picture(), picture(), blocks=3))
    look = threading.Thread(target=looker.look)
    look.start()
    assert reached.wait(LONG)
    assert site.answer("/livez").status == 200
    goes_on.set()
    look.join(LONG)
    looker.look()
    assert b'unhang_block_duration_seconds_count{scope="step"} 3.0' in site.answer("/metrics").body


def test_durations_are_added_up_from_time_to_time(views, looker, monkeypatch):
    """Less often where that takes long."""
    view = FakeView(*(picture(at=looks.NOW + second) for second in range(32)))
    views.append(view)
    monkeypatch.setattr(observing, "_REST", 0.0)
    for _ in range(32):
        looker.look()
    assert view.added_up == 3
    monkeypatch.setattr(observing, "_REST", 1e9)
    view.pictures = [picture(at=looks.NOW + 1000 + second) for second in range(32)]
    for _ in range(32):
        looker.look()
    assert view.added_up == 4


def test_what_a_view_knew_is_learned_when_a_look_fails(views, looker, path):
    """The next view has it from its beginning on, and it is not learned again."""
    first = FakeView(picture(), blocks=3)
    views.append(first)
    looker.look()
    first.blocks = 8
    looker.look()
    assert first.is_closed
    looker.last_look()
    assert learned(path) == 8


def test_each_block_is_learned_once_over_several_views(views, looker, path):
    """Each goes on where it has begun."""
    views += [FakeView(picture(), blocks=8), FakeView(picture(), blocks=8)]
    second = views[1]
    looker.look()
    looker.look()  # fails
    looker.look()
    second.blocks = 10
    looker.last_look()
    assert learned(path) == 10
    assert second.added_up == 2


def test_durations_that_cannot_be_read_end_nothing(views, looker, site):
    """The looks go on, with another view."""

    class BrokenView(FakeView):
        def durations(self):
            raise RuntimeError("broken")

    broken = BrokenView(picture())
    views += [broken, FakeView(picture())]
    looker.look()
    assert broken.is_closed
    assert b"a look failed: broken" in site.answer("/livez").body
    looker.look()
    assert site.answer("/livez").status == 200


def test_kills_are_counted_once_over_several_views(views, looker, site):
    """Each view is told of them again."""
    told = [event("killed", signal="SIGTERM", hang="lock")]
    views += [FakeView(picture(events=told)), FakeView(picture(events=told))]
    for _ in range(3):
        looker.look()
    assert b'unhang_kills_total{class="lock",signal="SIGTERM"} 1.0' in site.answer("/metrics").body
