"""The slots of a process: how many there may be, who has which, and what a fork does to them."""

import functools
import itertools
import logging
import mmap
import os
import sys
import threading
import time

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

import unhang
import workers
from support import until
from unhang._core.page import DEADLINE, NEVER, PageWriter
from unhang._core.page_reader import PageReader
from unhang._worker import slots
from unhang._worker.client import SharedTimerClient
from unhang._worker.connection import NotWatchedError
from unhang.errors import TooManyTimersError
from unhang.testing import InMemoryWatchdog


def pages(watchdog):
    return len(watchdog.client.slots._pages)


def test_ten_thousand_timers_at_once(unhang_watchdog):
    """All are live, all expire, each under its own name, and a second round needs no more memory."""
    timers = [unhang.expires(10, f"timer {number}") for number in range(10_000)]
    for timer in timers:
        timer.__enter__()
    assert len(unhang_watchdog.live) == 10_000
    unhang_watchdog.advance(10)
    assert {timer.scope for timer in unhang_watchdog.expired} == {f"timer {number}" for number in range(10_000)}
    for timer in timers:
        timer.__exit__(None, None, None)
    assert unhang_watchdog.live == []
    used = pages(unhang_watchdog)
    assert used == 6
    for timer in timers:
        timer.__enter__()
    for timer in timers:
        timer.__exit__(None, None, None)
    assert pages(unhang_watchdog) == used


def test_a_client_is_closed_while_threads_arm(unhang_watchdog, monkeypatch):
    """Each of their blocks is armed, before that or behind it, and nothing is raised."""
    monkeypatch.setattr(unhang_watchdog.client.slots.channel, "abandon", lambda: None)
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    done = threading.Event()
    errors = []

    def arm(name):
        try:
            for number in itertools.count():
                with unhang.expires(10, f"{name} {number % 50}"):
                    if done.is_set():
                        return
        except Exception as error:  # noqa: BLE001 - told by the test
            errors.append(error)

    threads = [threading.Thread(target=arm, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    try:
        for _ in range(500):
            unhang_watchdog.client.close()
    finally:
        done.set()
        sys.setswitchinterval(switch)
        for thread in threads:
            thread.join()
    assert errors == []


def test_a_block_is_left_while_its_slot_is_cut_off(unhang_watchdog, monkeypatch):
    """Whichever moment another thread leaves it in: its timer was not dropped, and nobody is told so."""
    timer = unhang.expires(10, "block").__enter__()
    slot = timer._slot
    made = []

    def leave(words):
        if not made:
            made.append(words)
            timer.__exit__(None, None, None)
        return memoryview(words)

    monkeypatch.setattr("unhang._worker.slot.memoryview", leave, raising=False)
    slot.cut_off(is_ours=True)
    assert made
    assert slot.cell[DEADLINE] >= NEVER


def test_a_timer_that_is_armed_while_the_client_is_closed_is_watched(unhang_watchdog, monkeypatch):
    """It waits until all of what was before is gone, and gets a page that stays."""
    channel = unhang_watchdog.client.slots.channel
    entered = threading.Event()
    timer = unhang.expires(10, "behind")
    thread = threading.Thread(target=lambda: timer.__enter__() and entered.set())
    abandon = channel.abandon

    def while_one_is_armed():
        thread.start()
        entered.wait(0.1)
        abandon()

    with unhang.expires(10, "before"):
        monkeypatch.setattr(channel, "abandon", while_one_is_armed)
        unhang_watchdog.client.close()
        thread.join()
        assert unhang_watchdog.live == ["behind"]
    timer.__exit__(None, None, None)


def test_a_log_handler_may_use_timers_while_another_thread_finds_nobody(tmp_path, monkeypatch):
    """What is told of a lost watchdog is told when nothing is locked that a block in a handler needs."""
    client = SharedTimerClient(str(tmp_path / "nobody.sock"))
    in_handler, connecting = threading.Event(), threading.Event()
    told = []

    class Timed(logging.Handler):
        def emit(self, record):
            told.append(record.getMessage())
            in_handler.set()
            connecting.wait(30)
            with unhang.expires(5, "send it", client):
                pass

    class Nobody:
        def __init__(self, *_):
            in_handler.wait(30)
            connecting.set()
            raise NotWatchedError("nobody is there", nobody=True)

    def block():
        with unhang.expires(5, "step", client):
            pass

    monkeypatch.setattr("unhang._worker.link.Connection", Nobody)
    handler = Timed()
    logger = logging.getLogger("unhang")
    logger.addHandler(handler)
    try:
        says = functools.partial(logger.warning, "something")
        threads = [threading.Thread(target=each, daemon=True) for each in (block, says)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert not any(thread.is_alive() for thread in threads)
    finally:
        logger.removeHandler(handler)
    client.close()
    assert told[0] == "something"
    assert "nobody is there" in told[1]


def test_more_timers_than_pages_hold_are_refused(unhang_watchdog, monkeypatch):
    """A program that never leaves its blocks is told so, and what it has armed stays armed."""
    monkeypatch.setattr(slots, "LARGEST_PAGE", slots.SMALLEST_PAGE)
    timers = [unhang.expires(10, "leak") for _ in range(255)]
    for timer in timers:
        timer.__enter__()
    with pytest.raises(TooManyTimersError, match="are their blocks ever left"):
        unhang.expires(10, "one more").__enter__()
    assert len(unhang_watchdog.live) == 255
    for timer in timers:
        timer.__exit__(None, None, None)
    with unhang.expires(10, "one more"):
        assert unhang_watchdog.live == ["one more"]


def test_scopes_made_on_the_fly_need_one_page(unhang_watchdog):
    """Idle slots change hands; what is remembered of the scopes is bounded."""
    for number in range(3 * slots._MOST_SITES):
        with unhang.expires(10, f"batch {number}"):
            pass
    assert pages(unhang_watchdog) == 1
    assert len(unhang_watchdog.client.sites) <= slots._MOST_SITES


def test_code_made_on_the_fly_needs_one_page(unhang_watchdog):
    """The places of code that is gone are forgotten, and none is taken for another one."""
    for number in range(slots._MOST_SITES + 10):
        scope = {"unhang": unhang}
        exec(compile("with unhang.expires(5) as timer: pass", f"made-{number}.py", "exec"), scope)  # noqa: S102
        assert scope["timer"].scope == f"made-{number}.py:1"
    assert pages(unhang_watchdog) == 1


def test_slots_of_a_place_that_was_forgotten_come_back(unhang_watchdog):
    """A block that is left after its place was forgotten gives its slot back all the same."""
    with unhang.expires(10, "long"):
        for number in range(slots._MOST_SITES + 10):
            with unhang.expires(10, f"batch {number}"):
                pass
        assert unhang_watchdog.live == ["long"]
    assert unhang_watchdog.live == []
    assert pages(unhang_watchdog) == 1


def test_threads_that_arm_all_the_time_lose_no_timer():
    """Eight threads with scopes of their own: afterwards nothing is armed, and the count is right."""
    with InMemoryWatchdog() as watchdog:

        def work(name):
            for number in range(2000):
                with unhang.expires(1000, f"{name} {number % 70}") as outer, unhang.expires(1000):
                    assert outer.state == "armed"

        threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert watchdog.live == []
        assert watchdog._worker.timers.sequence == 8 * 2000 * 2


class Blocks(RuleBasedStateMachine):
    """Any order of arming, leaving, restarting, extending and suspending agrees with a list of deadlines."""

    def __init__(self):
        super().__init__()
        self.watchdog = InMemoryWatchdog()
        self.armed = []  # of [timer, scope, deadline]
        self.expired = 0

    @property
    def now(self):
        return self.watchdog.clock.now_ns()

    @rule(after=st.integers(1, 20), scope=st.sampled_from("abc"))
    def enter(self, after, scope):
        """A new block."""
        timer = self.watchdog.client.timer(after, scope)
        timer.__enter__()
        self.armed.append([timer, scope, self.now + after * 10**9, after])

    def one(self, data, *, in_time=False):
        among = [entry for entry in self.armed if entry[2] > self.now or not in_time]
        return data.draw(st.sampled_from(among)) if among else None

    @rule(data=st.data())
    def leave(self, data):
        """Any of the blocks ends."""
        if entry := self.one(data):
            entry[0].__exit__(None, None, None)
            self.armed.remove(entry)

    @rule(data=st.data())
    def restart(self, data):
        """A heartbeat."""
        if entry := self.one(data):
            entry[0].restart()
            entry[2] = self.now + entry[3] * 10**9

    @rule(data=st.data(), more=st.integers(1, 20))
    def extend(self, data, more):
        """More time."""
        if entry := self.one(data, in_time=True):
            entry[0].extend(more)
            entry[2] += more * 10**9

    @rule(data=st.data(), seconds=st.integers(1, 5))
    def suspend(self, data, seconds):
        """A stretch that does not count."""
        if entry := self.one(data, in_time=True):
            with entry[0].suspended():
                self.pass_time(seconds, entry)
            entry[2] += seconds * 10**9

    @rule(seconds=st.integers(1, 5))
    def advance(self, seconds):
        """Time passes."""
        self.pass_time(seconds)

    def pass_time(self, seconds, but=None):
        before, after = self.now, self.now + seconds * 10**9
        self.expired += sum(before < entry[2] <= after for entry in self.armed if entry is not but)
        self.watchdog.advance(seconds)

    @invariant()
    def it_agrees(self):
        """The live timers and their deadlines, and how many have expired."""
        seen = sorted((seen.scope, seen.deadline) for seen in self.watchdog._worker.timers.live())
        assert seen == sorted((scope, deadline) for _, scope, deadline, _ in self.armed)
        assert len(self.watchdog.expired) == self.expired

    def teardown(self):
        """Nothing is dropped while it is armed."""
        for entry in self.armed:
            entry[0].__exit__(None, None, None)


TestBlocks = Blocks.TestCase
TestBlocks.settings = settings(max_examples=60)


def in_child(look):
    """What ``look`` returns in a forked child, as a string."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writer, repr(look()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    return said


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_does_not_touch_its_parents_timers(unhang_watchdog):
    """It leaves and extends inherited timers as if nothing had happened; one that it restarts becomes its own."""
    unhang_watchdog.clock.now_ns = time.monotonic_ns
    with unhang.expires(1000, "outer") as outer, unhang.expires(1000, "inner") as inner:
        before = [(seen.scope, seen.deadline, seen.sequence) for seen in unhang_watchdog._live()]

        def leave():
            outer.restart()
            inner.extend(5)
            inner.__exit__(None, None, None)
            return inner.state, outer.state, len(unhang_watchdog.live)

        assert in_child(leave) == "('disarmed', 'armed', 1)"
        assert [(seen.scope, seen.deadline, seen.sequence) for seen in unhang_watchdog._live()] == before


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_begins_anew(unhang_watchdog):
    """Its first block takes a slot of a page of its own, also from a place that its parent has used."""

    def block():
        return unhang.expires(1000, "same")

    with block():
        pass

    def arm():
        with block() as timer:
            return timer.state, pages(unhang_watchdog), timer._slot.count

    assert in_child(arm) == "('armed', 1, 1)"
    assert unhang_watchdog.live == []


def test_a_signal_handler_may_arm_a_timer_while_the_first_one_connects(start, shared_server):
    """It comes in the middle of the greeting, and neither hangs nor loses a timer."""
    worker = start(workers.alarm_while_connecting, shared_server.address)
    assert worker.heard() == ["armed", "armed"]
    until(lambda: shared_server.workers == 1)


def test_a_fork_while_another_thread_takes_a_slot(unhang_watchdog):
    """The child does not wait for a lock whose holder it has not, and lets the timers of its parent alone."""
    slots_of_client = unhang_watchdog.client.slots
    inherited = unhang.expires(5, "inherited")
    inherited.__enter__()
    inside, go, find = threading.Event(), threading.Event(), slots_of_client._unused_place

    def slowly():
        inside.set()
        go.wait(30)
        return find()

    slots_of_client._unused_place = slowly

    def work():
        with unhang.expires(5, "another"):
            pass

    thread = threading.Thread(target=work)
    thread.start()
    assert inside.wait(30)
    slots_of_client._unused_place = find

    def look():
        inherited.__exit__(None, None, None)
        free = slots_of_client._lock.acquire(timeout=20)
        return free, slots_of_client._pages

    assert in_child(look) == "(True, [])"
    assert unhang_watchdog.live == ["inherited"]
    go.set()
    thread.join(30)
    inherited.__exit__(None, None, None)


def test_a_fork_leaves_the_timers_that_other_threads_keep_for_themselves():
    """A child drops what is in a threading.local before anything of ours runs in it: the page is the parent's."""
    memory = mmap.mmap(-1, slots.SMALLEST_PAGE)
    page = PageWriter(memoryview(memory))

    class Shared:
        def new_page(self, size):
            return page

        def attend(self, watched, deadline):
            return True

        def tell(self): ...

        def abandon(self): ...

    client = SharedTimerClient._over(Shared(), time.monotonic_ns)
    kept, armed, stop = threading.local(), threading.Event(), threading.Event()

    def work():
        kept.heart = unhang.heartbeat(5, "steps", client)
        kept.heart.beat()
        armed.set()
        stop.wait(30)
        kept.heart.close()

    thread = threading.Thread(target=work)
    thread.start()
    assert armed.wait(30)
    assert in_child(lambda: "seen") == "'seen'"
    assert [snapshot.scope for snapshot in PageReader(memoryview(memory)).live()] == ["steps"]
    stop.set()
    thread.join(30)


def test_a_timer_that_outlives_its_client_begins_anew(unhang_watchdog):
    """Its next block is in a page of its own, which is handed over, and not in one that nobody looks at any more."""
    client = unhang_watchdog.client
    timer = client.timer(5, "step")
    with timer:
        pass
    client.slots.leave()
    assert client.slots._pages == []
    with timer:
        assert len(client.slots._pages) == 1
