"""What a watchdog tells viewers: bounded answers, each worker once, and what has happened, by number."""

import os

import msgspec
import pytest

from unhang._core.identity import Identity
from unhang._core.messages import MessageError
from unhang._platform.descriptor import OwnFd
from unhang._watchdog.journal import Journal
from unhang._watchdog.viewers import Viewer, Viewers
from unhang._watchdog.watched import Expired, Origin, Watched
from unhang.report.live import Ask, News, Watchdog
from unhang.report.model import Report

EXPIRED = Expired("step", 60.0, 0.001, 60.001)


def watchdog():
    return Watchdog(pid=1, version="0", host="h", address="/run/x.sock", started=0.0, looked=0.0)


def worker(number, pages=1):
    watched = Watched(1000 + number, origin=Origin(Identity("job", rank=number), user=7))
    watched.number = number
    return watched, [OwnFd(os.open(os.devnull, os.O_RDONLY)) for _ in range(pages)]


class World:
    """Viewers over a journal, and whom their stacks were asked of."""

    def __init__(self):
        self.journal = Journal()
        self.asked = []
        self.takes = True
        self.viewers = Viewers(watchdog, self.journal, self.gather)
        self.viewer = Viewer()

    def gather(self, worker, done):
        self.asked.append((worker, done))
        return self.takes

    def ask(self, **asked):
        answer, pages = self.viewers.answer(self.viewer, msgspec.json.encode(Ask(**asked)))
        return msgspec.json.decode(answer, type=News), pages

    def ask_all(self, **asked):
        """Ask until there is no more, as a viewer does."""
        workers, events, pages = [], [], []
        ask = {"serial": 0, "revision": 0} | asked
        while True:
            news, more = self.ask(**ask)
            workers += news.workers
            events += news.events
            pages += more
            ask = {"serial": news.serial, "revision": max([ask["revision"], *(one.revision for one in news.workers)])}
            if not news.more:
                return workers, events, pages, ask


@pytest.fixture
def world():
    world = World()
    yield world
    world.viewers.close()  # gives hundreds of descriptors back now, and not when garbage is collected


def test_each_worker_is_told_once_with_its_pages(world):
    """A viewer that has asked for all hears no more of them, until one changes."""
    for number in range(1, 101):
        world.viewers.joined(*worker(number))
    workers, _, pages, ask = world.ask_all()
    assert [one.number for one in workers] == list(range(1, 101))
    assert len(pages) == 100
    assert (workers[0].pid, workers[0].rank, workers[0].job, workers[0].user) == (1001, 1, "job", 7)
    assert world.ask(**ask)[0].workers == ()


def test_one_answer_is_bounded(world):
    """However many there are, and however many pages each has."""
    for number in range(1, 101):
        world.viewers.joined(*worker(number, pages=9))
    for _ in range(1000):
        world.journal.add("connect")
    news, pages = world.ask()
    assert news.more
    assert (len(news.workers) <= 32, len(pages) <= 253, len(news.events) <= 64) == (True, True, True)
    assert sum(one.pages for one in news.workers) == len(pages)


def test_a_worker_that_has_handed_over_more_is_told_again(world):
    """With all of its pages."""
    watched, pages = worker(1)
    shown = world.viewers.joined(watched, pages)
    *_, ask = world.ask_all()
    world.viewers.has_more(shown, worker(1)[1])
    ((again,), _, pages, _) = world.ask_all(**ask)
    assert (again.number, again.pages, len(pages)) == (1, 2, 2)


def test_a_short_life_is_not_missed(world):
    """A worker that has come and gone between two questions is told with its pages, while anybody looks."""
    world.viewers.count = 1
    watched, pages = worker(1)
    world.viewers.left(world.viewers.joined(watched, pages))
    ((told,), _, pages, _) = world.ask_all()
    assert told.left is not None
    assert len(pages) == 1


def test_those_that_have_left_are_forgotten(world, monkeypatch):
    """At once if nobody looks, else some seconds later: no descriptor is kept for longer."""
    unseen, seen = worker(1), worker(2)
    world.viewers.left(world.viewers.joined(*unseen))
    assert world.ask_all()[0] == []
    world.viewers.count = 1
    world.viewers.left(world.viewers.joined(*seen))
    monkeypatch.setattr("unhang._watchdog.viewers._LINGER", -1.0)
    world.viewers.tidy()
    assert world.ask_all()[0] == []


def test_nobody_keeps_more_than_some_that_have_left(world):
    """A program that starts workers without end keeps few descriptors of them here."""
    world.viewers.count = 1
    for number in range(1, 1001):
        world.viewers.left(world.viewers.joined(*worker(number)))
    assert len(world.ask_all()[0]) <= 128


def test_events_are_told_by_number(world):
    """A viewer goes on where it was; it may begin with the last ones, and is told how many it has missed."""
    for pid in range(5000):
        world.journal.add("connect", Watched(pid))
    _, events, _, ask = world.ask_all(serial=-3)
    assert [event.pid for event in events] == [4997, 4998, 4999]
    world.journal.add("near miss", Watched(1), [EXPIRED])
    (event,) = world.ask(**ask)[0].events
    assert (event.event, event.scope, event.after, event.timers) == ("near miss", "step", 60.0, 1)
    news, _ = world.ask(serial=1)
    assert (news.missed, news.events[0].pid) == (5001 - 4096 - 1, 5001 - 4096)


def test_stacks_come_with_a_later_answer(world):
    """They are gathered in the meantime, once at a time for each viewer."""
    watched, pages = worker(1)
    world.viewers.joined(watched, pages)
    news, _ = world.ask(stacks=1)
    assert news.stacks is None
    world.ask(stacks=1)
    ((asked, done),) = world.asked
    assert asked is watched
    done(Report(id="x", time="now"))
    news, _ = world.ask(serial=7)
    assert (news.stacks.id, news.more, news.serial) == ("x", True, 7)
    assert world.ask()[0].stacks is None


@pytest.mark.parametrize(("number", "takes", "said"), [(2, True, "it is gone"), (1, False, "ask again in a moment")])
def test_it_is_said_why_there_are_no_stacks(world, number, takes, said):
    """The worker may have left, or too many may ask at once."""
    world.viewers.joined(*worker(1))
    world.takes = takes
    assert said in world.ask(stacks=number)[0].no_stacks
    assert world.ask()[0].no_stacks == ""


@pytest.mark.parametrize("message", [b"", b"{", b"[]", b'{"serial": "x"}', b'{"version": 99}', b'{"serial": 1e400}'])
def test_nonsense_is_refused(world, message):
    """A viewer of another version is told so."""
    with pytest.raises(MessageError):
        world.viewers.answer(world.viewer, message)


def test_an_observer_that_raises_does_no_harm(caplog):
    """The others hear of the event all the same, and it is logged."""
    heard = []

    def broken(event):
        raise RuntimeError(event.event)

    journal = Journal([broken, heard.append])
    journal.add("killed", Watched(5, origin=Origin(Identity(rank=3))), [EXPIRED], late=0.0, signal="SIGTERM")
    (event,) = heard
    assert (event.pid, event.rank, event.scope, event.late, event.signal) == (5, 3, "step", 0.0, "SIGTERM")
    assert "Error in an observer" in caplog.text
