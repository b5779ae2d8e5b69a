"""Workers write down how long their blocks take, and take their budgets from what is known."""

import os
import sys
import threading
import time
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import capabilities
import unhang
from support import Reentrant
from unhang._core.duration_pages import DurationReader, DurationWriter
from unhang._core.durations import MOST_DURATIONS, PAGE_BYTES, bucket_of
from unhang._core.histogram import Durations, Histogram
from unhang._core.page import LARGEST_PAGE, MOST_BYTES, SMALLEST_PAGE, PageWriter
from unhang._core.page_reader import PageReader
from unhang._worker import learned as learned_module
from unhang._worker import plain, slots
from unhang._worker.client import SharedTimerClient
from unhang.errors import WatchdogLostError

SECOND = 1_000_000_000


class World:
    """A client over memory of this process, and a clock."""

    def __init__(self, made_of, learn=True):
        self.now = 1_000_000 * SECOND
        self.lost = False
        self.pages = []
        self.durations = []
        self.client = SharedTimerClient._over(self, lambda: self.now, made_of, learn=learn)

    def new_page(self, size):
        self.pages.append(bytearray(size))
        return PageWriter(self.pages[-1])

    def new_durations(self, size):
        self.durations.append(bytearray(size))
        return DurationWriter(memoryview(self.durations[-1]))

    def attend(self, watched, deadline):
        if self.lost:
            raise WatchdogLostError("memory", "gone")
        return True

    def connect(self):
        return None

    def tell(self): ...

    def abandon(self):
        pass

    def take(self, nanoseconds, after=60, scope="step"):
        """A block that takes so long; returns its timeout."""
        with self.client.timer(after, scope) as timer:
            self.now += nanoseconds
            return timer.after

    def known(self, page=-1):
        """What was written down, by scope."""
        return dict(DurationReader(memoryview(self.durations[page])).scopes())

    def timeouts(self):
        """Those of the timers that are armed."""
        readers = [PageReader(memoryview(page)) for page in self.pages]
        return [seen.timeout / SECOND for reader in readers for seen in reader.live()]


@pytest.fixture(params=["compiled", "plain"])
def made_of(request, monkeypatch):
    """One of the two implementations, as it is before anybody learns."""
    for name, method in (("__exit__", plain._exit), ("restart", plain._restart)):
        monkeypatch.setattr(plain.Timer, name, method)
    return plain if request.param == "plain" else capabilities.extension()


@pytest.fixture
def world(made_of):
    """A world that learns."""
    return World(made_of)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(durations=st.lists(st.integers(0, 2**46), max_size=20))
def test_each_block_but_the_first_is_counted_in_its_bucket(made_of, durations):
    """The first one of a process is kept apart, and the longest of the others is known."""
    world = World(made_of)
    for duration in durations:
        world.take(duration, after=10**8)
    expected = {}
    if durations:
        first, *steady = durations
        expected["step"] = Durations(Histogram.of(steady), Histogram.of([max(first, 1)]), budget=10**8 * SECOND)
    assert (world.known() if durations else {}) == expected


def test_whoever_does_not_learn_asks_for_no_memory(made_of):
    """It is off, unless it is asked for."""
    world = World(made_of, learn=False)
    world.take(SECOND)
    assert world.durations == []


def test_the_environment_says_whether_a_client_learns(monkeypatch):
    """UNHANG_LEARN names a file; yes and no may be said, too."""
    monkeypatch.setenv("UNHANG_LEARN", "/tmp/learned.json")
    learns = [SharedTimerClient("/run/x.sock", learn=learn).slots._pupils is not None for learn in (None, False)]
    monkeypatch.setenv("UNHANG_LEARN", "0")
    learns.append(SharedTimerClient("/run/x.sock").slots._pupils is not None)
    assert learns == [True, False, False]


def test_beats_are_blocks(world):
    """A heartbeat learns the times between its beats, the first of them apart."""
    heart = unhang.heartbeat(60, "steps", client=world.client)
    for seconds in (1, 50, 2, 3):
        world.now += seconds * SECOND
        heart.beat()
    heart.close()
    known = world.known()["steps"]
    assert (known.first.longest, known.steady.longest, known.steady.count) == (50 * SECOND, 3 * SECOND, 3)


def test_blocks_that_were_suspended_or_extended_do_not_count(world):
    """How long they would have taken otherwise, nobody knows."""
    world.take(SECOND)
    with world.client.timer(60, "step") as timer, timer.suspended():
        world.now += 7 * SECOND
    with world.client.timer(60, "step") as timer:
        timer.extend(7)
    with world.client.timer(60, "step") as timer:
        timer.suspended().__enter__()
    assert world.known()["step"].steady.count == 0


def test_scopes_with_the_same_name_share_a_record(world):
    """It has their blocks together, and the timeout of the one that came last."""
    world.take(SECOND, after=60)
    world.take(2 * SECOND, after=30)
    world.take(3 * SECOND, after=60)
    (known,) = world.known().values()
    assert (known.steady.count, known.budget) == (2, 30 * SECOND)


def test_scopes_without_end_are_left_out(world):
    """A page has room for some hundred; blocks of others go on as ever."""
    for number in range(600):
        world.take(SECOND, scope=f"scope {number}")
    reader = DurationReader(memoryview(world.durations[0]))
    assert len(list(reader.scopes())) + reader.left_out == 600
    assert len(world.durations) == 1


def test_a_forked_child_leaves_its_parents_page_alone(world):
    """Blocks that it leaves there are not written down for its parent; its own have a page of their own."""
    with world.client.timer(60, "step"):
        world.client.slots.start_over()
    before = bytes(world.durations[0])
    for _ in range(3):
        world.take(SECOND)
    assert bytes(world.durations[0]) == before
    assert world.known()["step"].steady.count == 2


def test_sites_may_be_forgotten_while_threads_leave_their_blocks(world):
    """What is written down in that moment may be lost; nothing is raised in a block."""
    world.client.slots.clock = time.monotonic_ns
    done = threading.Event()
    errors = []

    def work():
        try:
            while not done.is_set():
                with world.client.timer(60, "step"):
                    pass
        except Exception as error:  # noqa: BLE001 - told by the test
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    for thread in threads:
        thread.start()
    slots = world.client.slots
    try:
        for _ in range(5000):
            with slots._lock:
                slots._pupils.forget()
                for site in list(slots.sites.values()):
                    slots._pupils.add(site)
    finally:
        done.set()
        sys.setswitchinterval(switch)
        for thread in threads:
            thread.join()
    assert errors == []


def test_without_memory_nothing_is_learned(world, monkeypatch):
    """A worker that is short of descriptors goes on."""
    monkeypatch.setattr(world, "new_durations", lambda size: None)
    assert world.take(SECOND) == 60


def test_without_data_a_learned_budget_is_its_maximum(world):
    """The first block of a process may take as long as a start-up does."""
    after = unhang.learned(maximum=10, startup=100)
    assert [world.take(SECOND, after) for _ in range(3)] == [100, 10, 10]


def test_as_long_as_the_first_block_runs_others_start_up_too(world):
    """Threads that begin together wait for the same things."""
    after = unhang.learned(maximum=10, startup=100)
    with world.client.timer(after, "step"), world.client.timer(after, "step"):
        assert world.timeouts() == [100, 100]
    with world.client.timer(after, "step"), world.client.timer(after, "step"):
        assert world.timeouts() == [10, 10]


def test_a_restart_in_a_first_block_keeps_its_timeout(world):
    """Another thread has got through its start-up: this one has as much time for its own as before."""
    after = unhang.learned(maximum=10, startup=100)
    with world.client.timer(after, "step") as timer:
        for _ in range(2):
            with world.client.timer(after, "step"):
                pass
        timer.restart()
        assert (world.timeouts(), timer.remaining()) == ([100], 100)
    assert world.take(SECOND, after) == 10


def test_scopes_that_are_made_up_leak_nothing(world, monkeypatch):
    """What is known of their start-ups is forgotten with them, and their places are used again."""
    monkeypatch.setattr(slots, "_MOST_SITES", 50)
    after = unhang.learned(maximum=10, startup=100)
    for number in range(1000):
        world.take(SECOND, after, scope=f"request {number}")
    known = world.client.slots
    assert max(len(known._starting._starts), len(known._pupils._sites)) <= 50
    assert len(world.pages) == 1


def test_a_heartbeat_whose_second_beat_could_not_be_armed_goes_on(world):
    """The watchdog was away for a while, and the client was told to raise."""
    heart = unhang.heartbeat(unhang.learned(maximum=10, startup=100), "steps", client=world.client)
    heart.beat()
    world.lost = True
    for _ in range(2):
        with pytest.raises(WatchdogLostError):
            heart.beat()
    world.lost = False
    heart.beat()
    assert (world.timeouts(), heart.state) == ([10], "armed")
    heart.close()


def test_a_heartbeat_starts_up_once_in_a_forked_child(world):
    """It was inherited between its first two beats: in the end it has the other budget there too."""
    heart = unhang.heartbeat(unhang.learned(maximum=10, startup=100), "steps", client=world.client)
    heart.beat()
    world.client.slots.start_over()
    world.pages.clear()
    for _ in range(3):
        heart.beat()
    assert world.timeouts() == [10]
    heart.close()


def test_all_that_a_worker_can_arm_leaves_room_for_what_it_learns():
    """A watchdog takes its nine pages of timers and one of durations."""
    sizes = [SMALLEST_PAGE << number for number in range(9)]
    assert (sizes[-1], sum(sizes) <= MOST_BYTES, PAGE_BYTES <= MOST_DURATIONS) == (LARGEST_PAGE, True, True)


def test_a_heartbeat_starts_up_until_its_second_beat(world):
    """From then on it has the other budget."""
    heart = unhang.heartbeat(unhang.learned(maximum=10, startup=100), "steps", client=world.client)
    seen = []
    for _ in range(3):
        heart.beat()
        seen += world.timeouts()
    heart.close()
    assert (seen, world.timeouts(), heart.state) == ([100, 10, 10], [], "closed")


def test_a_decorated_function_starts_up_once(world):
    """Its calls have the other budget from the second one on."""
    timeouts = unhang.expires(unhang.learned(maximum=10, startup=100), "call", world.client)(world.timeouts)
    assert [timeouts() for _ in range(3)] == [[100], [10], [10]]


def test_a_forked_child_starts_up(world):
    """It is a worker of its own, whose first block may take longer again."""
    after = unhang.learned(maximum=10, startup=100)
    before = [world.take(SECOND, after) for _ in range(2)]
    world.client.slots.start_over()
    assert before + [world.take(SECOND, after) for _ in range(2)] == [100, 10, 100, 10]


def test_a_budget_follows_from_what_is_known(world, monkeypatch):
    """The same scope has another budget when much is known of it; another scope has not."""
    steady = Histogram.of([SECOND + step * 1_000_000 for step in range(2000)])
    known = {"step": Durations(steady, Histogram.of([5 * SECOND] * 200))}
    monkeypatch.setattr(learned_module, "_read", lambda: known)
    after = unhang.learned(minimum=1, maximum=600)
    first, other = [world.take(SECOND, after) for _ in range(2)]
    assert 5 < first < 600
    assert 3 < other < 60
    assert world.take(SECOND, after, scope="another") == 600


def test_the_file_is_read_once(monkeypatch, tmp_path):
    """A worker does not wait for a file system in each new place."""
    calls = []
    monkeypatch.setattr("unhang._worker.learned_file.read_durations", lambda path: calls.append(path) or {})
    monkeypatch.setenv("UNHANG_LEARN", str(tmp_path / "learned.json"))
    monkeypatch.setattr(learned_module, "_known", {})
    for scope in ("a", "b"):
        assert unhang.learned(maximum=10).budgets(scope) == (10 * SECOND, 10 * SECOND)
    assert calls == [str(tmp_path / "learned.json")]


def test_the_same_words_are_the_same_budget():
    """A call in the line of a block does not make a new timer each time."""
    one, other = (unhang.learned(minimum=1, maximum=timedelta(seconds=60)) for _ in range(2))
    assert one is other
    assert repr(one) == "learned(minimum=1, maximum=60, margin=2, startup=60)"


def test_a_client_of_the_timer_contract_gets_seconds(monkeypatch):
    """It knows no start-up, so the longer one of both is meant."""
    asked = []

    class Client(unhang.TimerClient):
        def acquire(self, scope_id, expiration_time):
            asked.append(expiration_time)

        def release(self, scope_id):
            pass

    monkeypatch.setattr("unhang._core.real_time.time", lambda: 1000.0)
    with unhang.expires(unhang.learned(maximum=10, startup=100), "step", Client()):
        assert asked == [1100.0]


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"maximum": 0}, ValueError, "maximum is a time above 0"),
        ({"maximum": "1"}, TypeError, "maximum is a number of seconds"),
        ({"maximum": 10, "minimum": [1]}, TypeError, "minimum is a number of seconds"),
        ({"maximum": 10, "minimum": 11}, ValueError, "minimum=11 is above maximum"),
        ({"maximum": 10, "minimum": 5, "startup": 4}, ValueError, "minimum=5 is above startup"),
        ({"maximum": 10, "margin": 0.5}, ValueError, "margin is a number from 1 on"),
        ({"maximum": 10, "margin": True}, TypeError, "margin is a number, not bool"),
    ],
)
def test_a_wrong_budget_is_refused(options, error, said):
    """The message has the name and the value."""
    with pytest.raises(error, match=said):
        unhang.learned(**options)


def test_configure_says_where_to_learn(monkeypatch, tmp_path):
    """It sets the environment variable, for children too; False removes it."""
    monkeypatch.setenv("UNHANG_LEARN", "")
    monkeypatch.chdir(tmp_path)
    unhang.configure(None, learn="learned.json")
    named = os.environ["UNHANG_LEARN"]
    unhang.configure(None, learn=True)
    default = os.environ["UNHANG_LEARN"]
    unhang.configure(None, learn=False)
    assert (named, default) == (str(tmp_path / "learned.json"), learned_module.default_path())
    assert "UNHANG_LEARN" not in os.environ


def test_a_page_is_read_with_distrust():
    """Whatever stands in it, what is read is a number of scopes with histograms that are consistent."""
    memory = bytearray(PAGE_BYTES)
    writer = DurationWriter(memoryview(memory))
    record = writer.record(b"step", 60)
    for index in range(len(record)):
        record[index] = -1 if index % 2 else 2**62
    memoryview(memory).cast("q")[4] = 2**40
    for scope, durations in DurationReader(memoryview(memory)).scopes():
        assert len(scope.encode()) <= 192 * 3
        assert durations.steady.count >= 0


@given(st.integers(0, 2**60))
def test_a_bucket_says_how_long_within_a_quarter(duration):
    """Between 4 µs and some hours, it is never wider than that."""
    from unhang._core.durations import bounds_of

    lowest, end = bounds_of(bucket_of(duration))
    if 5120 <= duration < 2**43:
        assert lowest <= duration < end <= lowest * 1.25


def test_a_scope_that_is_added_in_the_middle_of_another_one():
    """Each gets a record of its own, and whoever looks sees both."""
    memory = bytearray(PAGE_BYTES)
    writer = DurationWriter(memoryview(memory))
    writer._words = Reentrant(writer._words, lambda: writer.record(b"two", 2))
    writer.record(b"one", 1)
    reader = DurationReader(memoryview(memory))
    assert {scope: durations.budget for scope, durations in reader.scopes()} == {"one": 1, "two": 2}
