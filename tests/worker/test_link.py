"""A worker's link to its watchdog: what is handed over, lost, found again, and told."""

import contextlib
import errno
import gc
import os
import signal
import sys
import threading
import time

import pytest

import unhang
from unhang._platform import ptracer
from unhang._worker import embedded, link
from unhang._worker.client import SharedTimerClient
from unhang._worker.connection import NotWatchedError
from unhang._worker.slot import UNWATCHED
from unhang.errors import NotSupportedError, WatchdogLostError

SECOND = 10**9


class Watchdog:
    """Stands for the one at the other end, and for the connections to it."""

    def __init__(self):
        self.is_there = True
        self.connections = []
        self.on_connect = lambda: None

    def __call__(self, address, hello, pages, patience):
        self.on_connect()
        if not self.is_there:
            raise NotWatchedError("nobody is there", nobody=True)
        self.connections.append(Connection(list(pages)))
        return self.connections[-1]


class Connection:
    """One connection, and the descriptors that went over it."""

    stack_file = -1

    def __init__(self, pages):
        self.pages = pages
        self.is_open = True

    def send(self, message, pages=()):
        self.pages += pages if self.is_open else []
        return self.is_open

    def is_alive(self):
        return self.is_open

    def close(self):
        self.is_open = False


@pytest.fixture
def watchdog(monkeypatch):
    watchdog = Watchdog()
    monkeypatch.setattr(link, "Connection", watchdog)
    monkeypatch.setattr(link, "_PAUSE", 0.0)
    monkeypatch.setattr(link, "_RARELY", 0)
    return watchdog


def client(**options):
    return SharedTimerClient("/nowhere/watchdog.sock", **options)


def told(caplog):
    """What was said of the watchdog."""
    return [record.unhang["event"].removeprefix("watchdog ") for record in caplog.records]


def many(client):
    """As many timers as fit into the first page, entered."""
    timers = [unhang.expires(600, "one of many", client) for _ in range(255)]
    for timer in timers:
        timer.__enter__()
    return timers


def leave(timers):
    for timer in timers:
        timer.__exit__(None, None, None)


def test_a_client_that_is_closed_leaves_nothing_armed_in_its_pages(unhang_watchdog):
    """A watchdog may see these for a while: a block that is left behind that has its worker killed otherwise."""
    with unhang.expires(5, "before"):
        timers = unhang_watchdog._worker.timers
        assert [timer.scope for timer in timers.live()] == ["before"]
        unhang_watchdog.client.close()
        assert [timer.scope for timer in timers.live()] == []


def test_a_handler_closes_the_client_while_it_connects(watchdog):
    """What was handed over before is not used any more: it connects anew."""
    ours = client()
    with unhang.expires(5, "one", ours):
        watchdog.connections[-1].close()

        def close():
            watchdog.on_connect = lambda: None
            ours.close()

        watchdog.on_connect = close
        assert ours.connect() is None
        assert [connection.is_open for connection in watchdog.connections] == [False, False, True]
        assert watchdog.connections[-1].pages == []
        with unhang.expires(5, "two", ours):
            assert len(watchdog.connections[-1].pages) == 1
    ours.close()


def test_an_interrupt_leaves_the_link_unlocked(watchdog):
    """Python looks for signals right behind a call, so also behind the one that locks."""
    ours = client()
    channel = ours.slots.channel

    class Interrupted:
        """Interrupts behind each call that locks it; a with statement has no such moment."""

        def __init__(self):
            self.lock = channel._lock

        def acquire(self, *args, **options):
            self.lock.acquire(*args, **options)
            raise KeyboardInterrupt

        def release(self):
            self.lock.release()

        def __enter__(self):
            return self.lock.__enter__()

        def __exit__(self, *error):
            return self.lock.__exit__(*error)

    timer = unhang.expires(5, "one", ours).__enter__()
    lock, channel._lock = channel._lock, Interrupted()
    with contextlib.suppress(KeyboardInterrupt):
        channel.attend(timer._slot.watched, 1)
    had = []
    thread = threading.Thread(target=lambda: lock.acquire(timeout=5) and (had.append(True), lock.release()))
    thread.start()
    thread.join()
    assert had
    channel._lock = lock
    timer.__exit__(None, None, None)


def test_a_page_that_a_dead_connection_does_not_take_is_handed_to_the_next_watchdog(watchdog):
    """All pages are, at once: nothing else would tell who needs a new one that nobody sees it."""
    ours = client()
    timers = many(ours)
    watchdog.connections[-1].close()
    with unhang.expires(5, "in a new page", ours):
        assert len(watchdog.connections) == 2
        assert len(watchdog.connections[-1].pages) == 2
    leave(timers)
    ours.close()


def test_a_page_that_nobody_takes_is_told(watchdog):
    """With on_lost="raise" the arming raises, as any other does."""
    ours = client(on_lost="raise")
    timers = many(ours)
    watchdog.connections[-1].close()
    watchdog.is_there = False
    with pytest.raises(WatchdogLostError, match="nobody is there"):
        unhang.expires(5, "in a new page", ours).__enter__()
    leave(timers)
    ours.close()


def test_a_moment_without_descriptors_costs_no_timer_its_watchdog(watchdog, monkeypatch, caplog):
    """What is armed in a page that is shared stays there; what is not gets a new page as soon as there is one."""
    ours = client()
    create = link.memfd.create
    timers = many(ours)

    def fails(size):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(link.memfd, "create", fails)
    monkeypatch.setattr(link, "_PAUSE", 60.0)
    poor = unhang.expires(5, "poor", ours).__enter__()
    for _ in range(3):
        with unhang.expires(5, "poor, too", ours):
            pass
    assert told(caplog) == ["lost"]
    monkeypatch.setattr(link.memfd, "create", create)
    ours.slots.channel._try_at = 0.0
    with unhang.expires(5, "rich", ours):
        assert len(watchdog.connections) == 1
        assert len(watchdog.connections[0].pages) == 2
    assert told(caplog) == ["lost", "back"]
    assert all(timer._slot.watched is not UNWATCHED for timer in timers)
    assert poor._slot.watched is UNWATCHED
    poor.restart()
    assert poor._slot.watched is not UNWATCHED
    leave([*timers, poor])
    assert [page.shared for page in ours.slots._pages] == [True, True]
    ours.close()


def test_a_client_that_goes_in_a_suspension_leaves_the_timer_watched(watchdog):
    """As when another one is configured inside: behind the suspension the timer runs on."""
    ours = client()
    with ours.timer(5, "one") as timer:
        with timer.suspended():
            del ours
            gc.collect()
        assert timer._slot.watched is not UNWATCHED


def test_a_handler_closes_the_client_while_a_slot_is_taken(watchdog, monkeypatch):
    """At any moment of it: the block is armed in a page of behind."""
    ours = client()
    with unhang.expires(5, "one", ours):
        pass
    page = ours.slots._pages[0]
    add_slot = page.add_slot

    def closes():
        ours.close()
        return add_slot()

    monkeypatch.setattr(page, "add_slot", closes)
    with unhang.expires(5, "two", ours) as timer:
        assert timer._slot.watched is ours.slots._pages[0].watched
        assert len(watchdog.connections[-1].pages) == 1
    ours.close()


def test_a_page_of_before_is_not_taken_for_one_of_behind(watchdog, monkeypatch):
    """A handler closes the client while the first page is made."""
    ours = client()
    new_page = ours.slots.channel.new_page

    def closes(size):
        monkeypatch.setattr(ours.slots.channel, "new_page", new_page)
        page = new_page(size)
        ours.close()
        return page

    monkeypatch.setattr(ours.slots.channel, "new_page", closes)
    with unhang.expires(5, "one", ours):
        assert len(ours.slots._pages) == len(watchdog.connections[-1].pages) == 1
    ours.close()


def test_a_watchdog_that_goes_on_is_told_and_so_is_the_next_outage(watchdog, caplog):
    """It was stopped, and looks again; later it is stopped again."""
    ours = client()
    with unhang.expires(60, "one", ours) as timer:
        watched = timer._slot.watched

        def looked(ago):
            now = time.monotonic_ns()
            watched[0], watched[1] = now - ago + SECOND, now - ago
            timer.restart()

        looked(6 * SECOND)
        assert told(caplog) == ["lost"]
        watched[1] = time.monotonic_ns()
        assert ours.connect() is None
        assert told(caplog) == ["lost", "back"]
        looked(6 * SECOND)
        assert told(caplog) == ["lost", "back", "lost"]
        # It has looked since, unnoticed, and is stopped again.
        ours.slots.channel._lost_at -= 60 * SECOND
        looked(7 * SECOND)
        assert told(caplog) == ["lost", "back", "lost", "back", "lost"]
    ours.close()


def test_descriptors_that_were_closed_are_not_handed_over(watchdog):
    """Their numbers may be the program's own by now."""
    ours = client()
    with unhang.expires(60, "one", ours):
        os.close(watchdog.connections[0].pages[0])
        watchdog.connections[0].close()
        assert "closed behind its back" in ours.connect()
        assert len(watchdog.connections) == 1
    ours.close()


def test_reconnecting_leaves_no_stack_file_open(watchdog, monkeypatch):
    """Nor where the program has taken the signal for itself, so that a new one is needed each time."""
    made = []

    class Report:
        number = signal.SIGRTMAX - 1

        def __init__(self):
            made.append(self)
            self.is_open = True

        def is_usable(self):
            return False

        def close(self):
            self.is_open = False

    monkeypatch.setattr(link, "SelfReport", Report)
    ours = client()
    for _ in range(3):
        assert ours.connect() is None
        watchdog.connections[-1].close()
    assert [report.is_open for report in made] == [False, False, True]
    ours.close()


def test_without_ctypes_nobody_is_allowed_to_trace(monkeypatch, tmp_path):
    """Some Pythons are built without it: stacks are had in other ways then, and the block goes on."""
    scope = tmp_path / "ptrace_scope"
    scope.write_text("1\n")
    monkeypatch.setattr(ptracer, "_SCOPE", str(scope))
    monkeypatch.setitem(sys.modules, "ctypes", None)
    assert ptracer.allow(os.getpid()) is False


@pytest.mark.parametrize("what", ["os.pipe", "socket.socket"])
def test_a_watchdog_that_cannot_be_started_for_want_of_descriptors(monkeypatch, what, tmp_path):
    """Is one that cannot be started: nothing else comes out of a block that wants it back; nothing is left open."""
    before = set(os.listdir("/proc/self/fd"))

    def fails(*_):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(what, fails)
    with pytest.raises(NotSupportedError, match="Too many open files"):
        embedded._launch(str(tmp_path / "one.sock"))
    assert set(os.listdir("/proc/self/fd")) <= before
