"""One implementation of a block against the other: the same operations leave the same bytes, and say the same."""

import asyncio
import contextlib
import copy
import gc
import importlib
import pickle
import warnings
import weakref
from datetime import timedelta
from fractions import Fraction
from signal import SIGINT

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import capabilities
from unhang._core.duration_pages import DurationWriter
from unhang._core.page import PageWriter
from unhang._worker import plain, slots
from unhang._worker.client import SharedTimerClient
from unhang._worker.learned import learned
from unhang.errors import TimerStateError, WatchdogLostError

SECOND = 1_000_000_000
FEW_SITES = 6


@pytest.fixture(autouse=True, scope="module")
def compiled():
    """There is the extension: a failure if it could have been built, a skip where there is none."""
    capabilities.extension()


@pytest.fixture(autouse=True)
def few_sites(monkeypatch):
    """Scopes are forgotten soon; and garbage is collected when a test says so: both worlds see it at the same step."""
    monkeypatch.setattr(slots, "_MOST_SITES", FEW_SITES)
    for name, method in (("__exit__", plain._exit), ("restart", plain._restart)):
        monkeypatch.setattr(plain.Timer, name, method)  # until somebody learns
    gc.disable()
    yield
    gc.enable()
    gc.unfreeze()


class World:
    """A client with one implementation, over a channel that writes down what it is told, and a clock."""

    def __init__(self, made_of, learn=False):
        self.made_of = made_of
        self.now = 1_000_000 * SECOND
        self.lost = self.gone = False
        self.told = []
        self.pages = []
        self.memory = []
        self.timers = []
        self.suspensions = []
        self.hearts = []
        self.durations = []
        self.client = SharedTimerClient._over(self, lambda: self.now, made_of, learn=learn)

    def new_durations(self, size):
        self.told.append(("new durations", size))
        self._fail()
        self.durations.append(bytearray(size))
        return DurationWriter(memoryview(self.durations[-1]))

    def new_page(self, size):
        self.told.append(("new page", size))
        self._fail()
        self.memory.append(bytearray(size))
        self.pages.append(PageWriter(self.memory[-1]))
        return self.pages[-1]

    def attend(self, watched, deadline):
        (page,) = [number for number, page in enumerate(self.pages) if page.watched is watched]
        self.told.append(("attend", page, watched.tolist(), deadline))
        self._fail()
        return not self.gone

    def tell(self): ...

    def abandon(self):
        self.told.append(("abandon",))
        self.gone = False

    def _fail(self):
        if self.lost:
            raise WatchdogLostError("memory", "gone")

    def promise(self, wake, looked):
        for page in self.pages:
            page.watched[0], page.watched[1] = wake, looked

    def heartbeat(self, after, scope):
        # The signal keeps expires() from making timers of the other implementation; and from knowing sites that were
        # forgotten, as the compiled one does for what is of a type of C.
        return self.made_of.Heartbeat(after, scope, self.client, signal=SIGINT, grace=None, pretimeout=None)

    def look(self):
        """All that can be seen from outside."""
        timers = [(t.scope, t.after, t.state, repr(t), outcome(t.remaining)) for t in self.timers]
        hearts = [(h.state, repr(h)) for h in self.hearts]
        used = [page.used for page in self.pages]
        return timers, hearts, used, self.told, sorted(map(str, self.client.sites))

    def end(self):
        for timer in self.timers:
            timer.__exit__(LookupError, None, None)
        for heart in self.hearts:
            with contextlib.suppress(TimerStateError):  # arming it anew has failed
                heart.close()


def outcome(action):
    """What an action returns, or raises, and what it warns of."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            result = action()
        except Exception as error:  # noqa: BLE001 - whatever it is, both raise it
            result = (type(error), str(error))
    # Whether a page has a timer of this kind is to be seen there.
    return (None if "Timer" in type(result).__name__ else result), [str(one.message) for one in told]


def differences(first, second):
    """Where pages differ: the number of the page, of the slot (-1: the header) and of the word, and both words."""
    for number, pair in enumerate(zip(first, second, strict=True)):
        if pair[0] != pair[1]:
            words = zip(*(memoryview(memory).cast("q").tolist() for memory in pair), strict=True)
            yield from ((number, *divmod(at - 32, 32), *both) for at, both in enumerate(words) if both[0] != both[1])


AFTERS = st.sampled_from(
    [1, 1.0, True, 60, 60.5, 1e-9, Fraction(1, 2), timedelta(seconds=60), timedelta(milliseconds=1)]
)
NO_AFTERS = st.sampled_from([0, -1, float("nan"), float("inf"), 1e11, "60", None, [60], 1j, timedelta(0)])
SCOPES = st.sampled_from(["a", "b", "ü" * 150, "", "step \ud800", "x" * 192]) | st.text(max_size=3)
NO_SCOPES = st.sampled_from([7, b"step", None, ["step"]])
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "signal": st.sampled_from([None, "SIGINT", "term", 10, "none"]),
        "grace": st.sampled_from([None, 0, 1, 0.5, timedelta(seconds=1)]),
        "pretimeout": st.sampled_from([None, 1, 30.0]),
    },
)
NO_OPTIONS = st.sampled_from([{"signal": "SIGSTOP"}, {"signal": 1.5}, {"grace": -1}, {"pretimeout": 0}, {"grace": []}])
WORDS = st.integers(-(2**63), 2**63 - 1)


class Both(RuleBasedStateMachine):
    """Whatever is done, in any order, is done to both."""

    learn = False

    @initialize()
    def begin(self):
        """Two worlds, which nothing connects."""
        gc.freeze()  # what hypothesis keeps need not be looked at
        compiled = importlib.import_module("unhang._worker._block")
        self.worlds = [World(plain, self.learn), World(compiled, self.learn)]

    def both(self, action):
        """Do something in both; it comes to the same."""
        first, second = (outcome(lambda world=world: action(world)) for world in self.worlds)
        assert first == second
        return first

    def one(self, data, kind):
        among = range(len(getattr(self.worlds[0], kind)))
        return data.draw(st.sampled_from(among)) if among else None

    def on_one(self, data, kind, action):
        """Do something to one of a kind, if there is one."""
        index = self.one(data, kind)
        if index is not None:
            self.both(lambda world: action(getattr(world, kind)[index]))

    @rule(after=AFTERS, scope=SCOPES, options=OPTIONS)
    def timer(self, after, scope, options):
        """A timer."""
        self.both(lambda world: world.timers.append(world.client.timer(after, scope, **options)))

    @rule(after=AFTERS | NO_AFTERS, scope=SCOPES | NO_SCOPES, options=OPTIONS | NO_OPTIONS)
    def any_timer(self, after, scope, options):
        """Perhaps a timer."""
        self.both(lambda world: world.client.timer(after, scope, **options))

    @rule(after=AFTERS, scope=SCOPES)
    def enter_new(self, after, scope):
        """A block."""
        self.both(lambda world: world.timers.append(world.client.timer(after, scope).__enter__()))

    @rule(data=st.data())
    def enter(self, data):
        """A timer is entered, once more or at the wrong time."""
        self.on_one(data, "timers", lambda timer: timer.__enter__())

    @rule(data=st.data(), raised=st.sampled_from([None, LookupError()]))
    def leave(self, data, raised):
        """It is left."""
        self.on_one(data, "timers", lambda timer: timer.__exit__(raised and type(raised), raised, None))

    @rule(data=st.data())
    def restart(self, data):
        """There was progress."""
        self.on_one(data, "timers", lambda timer: timer.restart())

    @rule(data=st.data(), more=AFTERS | NO_AFTERS)
    def extend(self, data, more):
        """It needs more time."""
        self.on_one(data, "timers", lambda timer: timer.extend(more))

    @rule(data=st.data())
    def suspend(self, data):
        """It is to stand still."""

        def suspend(timer):
            suspension = timer.suspended()
            suspension.__enter__()
            return suspension

        index = self.one(data, "timers")
        if index is not None:
            self.both(lambda world: world.suspensions.append(suspend(world.timers[index])))

    @rule(data=st.data())
    def resume(self, data):
        """It goes on, perhaps twice, or behind its block."""
        self.on_one(data, "suspensions", lambda suspension: suspension.__exit__(None, None, None))

    @rule(data=st.data(), raises=st.booleans())
    def call(self, data, raises):
        """A function that it decorates."""
        index = self.one(data, "timers")
        if index is not None:
            self.both(lambda world: world.timers[index](lambda: 1 / (not raises))())

    @rule(data=st.data())
    def drop(self, data):
        """Nobody holds it any more: if it was armed, that is told."""
        index = self.one(data, "timers")
        if index is not None:
            self.both(lambda world: world.suspensions.clear())
            self.both(lambda world: world.timers.pop(index) and None)

    @rule(after=AFTERS, scope=SCOPES)
    def heart(self, after, scope):
        """A heartbeat."""
        self.both(lambda world: world.hearts.append(world.heartbeat(after, scope)))

    @rule(data=st.data(), beats=st.integers(1, 3))
    def beat(self, data, beats):
        """There was progress."""
        for _ in range(beats):
            self.on_one(data, "hearts", lambda heart: heart.beat())

    @rule(data=st.data())
    def close(self, data):
        """The loop is over, perhaps once more."""
        self.on_one(data, "hearts", lambda heart: heart.close())

    @rule(data=st.data())
    def drop_heart(self, data):
        """Nobody holds it any more."""
        index = self.one(data, "hearts")
        if index is not None:
            self.both(lambda world: world.hearts.pop(index) and None)

    @rule(nanoseconds=st.sampled_from([1, SECOND // 2, SECOND, 3 * SECOND, 60 * SECOND]))
    def advance(self, nanoseconds):
        """Time passes."""
        for world in self.worlds:
            world.now += nanoseconds

    @rule(wake=st.sampled_from([-3, -1.5, 0, 0.5, 1, 59, 60, 61]), looked=st.sampled_from([-4, 0]))
    def promise(self, wake, looked):
        """The watchdog says when it looks, in time, late or never."""
        for world in self.worlds:
            world.promise(world.now + round(wake * SECOND), world.now + looked * SECOND)

    @rule(wake=WORDS, looked=WORDS)
    def promise_anything(self, wake, looked):
        """It says nonsense."""
        for world in self.worlds:
            world.promise(wake, looked)

    @rule(lost=st.booleans())
    def lose(self, lost):
        """Nobody watches, and the client was told to raise; or somebody does again."""
        for world in self.worlds:
            world.lost = lost

    @rule()
    def take_pages_away(self):
        """What was handed over cannot be handed over again: the next that is told to attend finds out."""
        for world in self.worlds:
            world.gone = True

    @rule()
    def fork(self):
        """As in a child: all begins anew."""
        self.both(lambda world: world.client.slots.start_over())

    @rule(after=AFTERS, count=st.sampled_from([3, 260]))
    def many(self, after, count):
        """So many at once that a page is not enough; half of them are left."""

        def enter(world):
            timers = [world.client.timer(after, f"many {number % 4}") for number in range(count)]
            entered = [timer.__enter__() for timer in timers]
            world.timers.append(entered.pop())
            for timer in entered:
                timer.__exit__(None, None, None)

        with contextlib.suppress(WatchdogLostError):
            self.both(enter)

    @rule()
    def collect(self):
        """What was lost in cycles comes back; what was armed there is told."""
        outcome(gc.collect)

    @invariant()
    def they_are_the_same(self):
        """The bytes of all pages that there ever were, what was told, and what can be asked."""
        first, second = self.worlds
        assert first.look() == second.look()
        assert list(differences(first.memory, second.memory)) == []
        assert first.durations == second.durations

    def teardown(self):
        """Nothing is dropped while it is armed."""
        for world in getattr(self, "worlds", []):
            world.end()


class Learning(Both):
    """The same, while both write down how long blocks take, and some budgets are learned."""

    learn = True

    @rule(scope=SCOPES, startup=st.sampled_from([60, 90]))
    def enter_learned(self, scope, startup):
        """A block whose budget is learned."""
        after = learned(minimum=1, maximum=60, startup=startup)
        self.both(lambda world: world.timers.append(world.client.timer(after, scope).__enter__()))

    @rule(scope=SCOPES)
    def learned_heart(self, scope):
        """A heartbeat whose budget is learned."""
        self.both(lambda world: world.hearts.append(world.heartbeat(learned(maximum=60, startup=90), scope)))

    @rule(nanoseconds=st.integers(0, 2**46))
    def advance_anyhow(self, nanoseconds):
        """A block may take as long as it likes."""
        self.advance(nanoseconds)


TestBoth = Both.TestCase
TestBoth.settings = settings(max_examples=60, stateful_step_count=40)
TestLearning = Learning.TestCase
TestLearning.settings = TestBoth.settings


@pytest.fixture(params=["compiled", "plain"])
def world(request):
    """A world of one of the two."""
    world = World(plain if request.param == "plain" else importlib.import_module("unhang._worker._block"))
    yield world
    world.end()


def test_a_generator_that_is_collected_in_its_block_gives_its_slot_back_once(world):
    """Garbage that is still in a block leaves it: afterwards no two timers share a place, and each is armed."""

    def work(box):
        with world.client.timer(60, "work"):
            yield box

    for is_used in (False, True):
        if is_used:
            with world.client.timer(60, "work"):
                pass
        box = []
        box.append(work(box))
        next(box[0])
        del box
        outcome(gc.collect)  # one that is finalized before its generator is told as dropped
        timers = [world.client.timer(60, scope).__enter__() for scope in ("work", "other", "work", "third")]
        timers.pop().__exit__(None, None, None)
        assert [timer.state for timer in timers] == ["armed"] * 3
        world.timers += timers


def test_a_slot_may_be_collected_while_its_weak_references_are_told(world):
    """A collection that is started there, by whatever it calls, does not find it a second time."""
    told = []
    slot = world.client.slots.take(world.client.slots.site("key", "a", SECOND))
    reference = weakref.ref(slot, lambda _: told.append(gc.collect()))
    del slot
    assert (len(told), reference()) == (1, None)
    with world.client.timer(60, "b") as timer:
        assert timer.state == "armed"


def test_an_async_block_is_armed_inside_and_disarmed_when_it_is_left(world):
    """As a plain one: twice in turn, not twice at once, and the exception of the block comes out."""

    async def use():
        async with world.client.timer(60, "step") as timer:
            assert timer.state == "armed"
            with pytest.raises(TimerStateError, match="enter the timer 'step': it is armed"):
                await timer.__aenter__()
            assert timer.state == "armed"
        assert timer.state == "disarmed"
        with pytest.raises(LookupError):
            async with timer:
                raise LookupError
        assert timer.state == "disarmed"

    asyncio.run(use())


def test_neither_timers_nor_heartbeats_can_be_copied(world):
    """A copy would leave the block of the other one; nor can they be sent to another process."""
    with world.client.timer(60, "step") as timer:
        for one in (timer, world.heartbeat(60, "steps")):
            for copied in (copy.copy, copy.deepcopy, pickle.dumps):
                with pytest.raises(TypeError, match="cannot be copied or pickled"):
                    copied(one)
        assert timer.state == "armed"


def test_a_heartbeat_that_could_not_be_armed_anew_goes_on_later(world):
    """Armed before a fork, or its page lost, and nobody watches for a while: the client was told to raise."""
    heart = world.heartbeat(60, "steps")
    heart.beat()
    world.client.slots.start_over()
    world.lost = True
    for _ in range(2):
        with pytest.raises(WatchdogLostError):
            heart.beat()
    world.lost = False
    heart.beat()
    assert heart.state == "armed"
    heart.close()


def test_a_heartbeat_that_could_not_be_armed_anew_can_be_closed(world):
    """What the beat has raised is what comes out of its block."""
    heart = world.heartbeat(60, "steps")
    heart.beat()
    world.client.slots.start_over()
    world.lost = True
    with pytest.raises(WatchdogLostError), heart:
        heart.beat()
    assert heart.state == "closed"


def test_a_timer_that_is_not_suspended_is_not_moved(world):
    """Its suspension was refused, or ends a second time, or its block was left and entered again."""
    with world.client.timer(60, "step") as timer:
        refused = timer.suspended()
        refused.__exit__(None, None, None)
        assert timer.remaining() == 60
        with timer.suspended():
            world.now += 7 * SECOND
            timer.__exit__(None, None, None)
            timer.__enter__()
            world.now += 7 * SECOND
        assert timer.remaining() == 53
