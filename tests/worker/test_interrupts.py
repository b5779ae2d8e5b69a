"""Signal handlers come at any instant: some raise, some use timers themselves. Both implementations of a block.

Python runs a handler at certain instants: as a function begins, and behind a call of C code. The tests here let one
come at each of them, one after the other; and at random ones, with real signals.
"""

import contextlib
import os
import subprocess
import sys
import time
import warnings

import pytest

import capabilities
import unhang
from unhang._core.page import DEADLINE, HEADER_WORDS, NEVER, SLOT_WORDS, PageWriter
from unhang._worker import plain
from unhang._worker.client import SharedTimerClient
from unhang.errors import TimerStateError

PACKAGE = os.path.dirname(unhang.__file__)


@pytest.fixture(params=["compiled", "plain"])
def made_of(request):
    """An implementation of a block."""
    if request.param == "plain":
        return plain
    return capabilities.extension()


class World:
    """A client over a channel in memory, whose watchdog is told of each arming: it never says when it looks."""

    def __init__(self, made_of):
        self.made_of = made_of
        self.pages = []
        self.client = SharedTimerClient._over(self, time.monotonic_ns, made_of)
        self.slots = self.client.slots
        self.timer = self.client.timer(60, "a")
        # An option keeps it from taking timers of the other implementation.
        self.heart = made_of.Heartbeat(60, "heart", self.client, signal="SIGINT")

    def new_page(self, size):
        self.pages.append(PageWriter(bytearray(size)))
        return self.pages[-1]

    def attend(self, watched, deadline):
        return True

    def tell(self): ...

    def abandon(self):
        """The memory stays, as it does for a process that was forked."""

    def block(self, scope="a"):
        with self.client.timer(60, scope):
            pass

    def end(self):
        """Leave nothing armed that would be told when it is dropped."""
        self.heart.close()
        if self.timer is not None and self.timer.state in ("armed", "suspended"):
            self.timer.__exit__(None, None, None)

    def armed(self):
        """How many slots are armed."""
        deadlines = (
            page._words[HEADER_WORDS + SLOT_WORDS * index + DEADLINE]
            for page in self.pages
            for index in range(page.used)
        )
        return sum(deadline < NEVER for deadline in deadlines)

    def places(self):
        """The places that can be found again: in a timer, in the idle lists, in none."""
        idle = [slot for site in self.slots.sites.values() for slot in site.free]
        held = [timer._slot for timer in (self.timer, self.heart._timer) if timer is not None and timer._slot]
        slots = {id(slot): slot for slot in (*idle, *held, *self.slots._retired)}
        return [id(slot.cell) for slot in slots.values()] + [id(cell) for cell, _ in self.slots._spare]


class Handler:
    """A signal handler that comes at the instant with this number, while it is used as a profiler.

    Not inside ``__del__``, whose exceptions Python drops.
    """

    def __init__(self, instant, act):
        self._left = instant
        self._act = act
        self.came = None

    def __call__(self, frame, event, arg):
        is_one = event in ("call", "c_return") or (event == "return" and frame.f_code.co_name == "__init__")
        if is_one and self.came is None and is_ours(frame):
            self._left -= 1
            if self._left < 0:
                self.came = f"{event} {frame.f_code.co_name}:{frame.f_lineno} {getattr(arg, '__name__', '')}".strip()
                self._act()


def is_ours(frame):
    """Whether it is of the package, or of a body."""
    code = frame.f_code
    if not code.co_filename.startswith(PACKAGE) and not code.co_name.startswith("in_"):
        return False
    while frame and frame.f_code.co_name != "__del__":
        frame = frame.f_back
    return frame is None


def handled(handler, body, world):
    """Run a body with a handler, if there is one, and then do not use it any more."""
    before = sys.getprofile()
    sys.setprofile(handler)
    try:
        body(world)
    finally:
        sys.setprofile(before)


def in_block(world):
    with world.timer:
        pass


def in_changes(world):
    with world.timer:
        world.timer.restart()
        world.timer.extend(5)
        with world.timer.suspended():
            pass
        world.timer.restart()


def in_async_block(world):
    async def in_it():
        async with world.timer:
            pass

    with contextlib.suppress(StopIteration):
        in_it().send(None)


def in_beats(world):
    with world.heart:
        world.heart.beat()
        world.heart.beat()


def nothing(world):
    pass


def used(world):
    """The scopes were used before: their idle slots are there."""
    world.block()
    with world.client.timer(60, "heart", signal="SIGINT"):
        pass


def spare(world):
    """There is a slot that belongs to no scope."""
    world.slots.take(world.slots.site("key", "gone", 10**9))


def full(world):
    """The page is full, and has an idle slot of another scope."""
    world.block("other")
    world.pages[0].slots = world.pages[0].used


def one(world):
    """There is a page."""
    world.block("first")


BODIES = [in_block, in_changes, in_async_block, in_beats]


def raises():
    raise KeyboardInterrupt


def interrupted(world, body, instant):
    """Where the handler came that raises, and how many timers were armed while its exception was handled."""
    handler = Handler(instant, raises)
    armed = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            handled(handler, body, world)
        except KeyboardInterrupt:
            armed = world.armed()
        world.timer = None
    return handler.came, armed


def each_instant(made_of, before, body, act):
    """Yield a world and what ``act(world, body, instant)`` returns, for one instant after the other."""
    for instant in range(1000):
        world = World(made_of)
        for prepare in before:
            prepare(world)
        where, *rest = act(world, body, instant)
        if where is None:
            assert instant > 0
            world.end()
            return
        yield world, where, *rest
        world.end()
    pytest.fail("it does not end")


PREPARED = pytest.mark.parametrize(
    "before", [(nothing,), (used,), (one,), (one, spare), (one, full)], ids=["first", "used", "one", "spare", "full"]
)


@pytest.mark.parametrize("body", BODIES)
@PREPARED
def test_nothing_is_armed_behind_a_handler_that_raised(made_of, before, body):
    """At any instant; and the next block is as any other."""
    bad = []
    for world, where, _ in each_instant(made_of, before, body, interrupted):
        world.heart.close()
        armed = [world.armed()]
        with world.client.timer(60, "a"):
            armed.append(world.armed())
        if [*armed, world.armed()] != [0, 1, 0]:
            bad.append(where)
    assert not bad, "\n".join(map(str, bad))


@pytest.mark.parametrize("body", BODIES)
@PREPARED
def test_nothing_is_armed_while_an_exception_of_a_handler_is_handled(made_of, before, body):
    """But if it comes before __exit__ has begun, as a plain Python or async block or a heartbeat is left.

    Here a variable holds the timer. From Python 3.14 on a profiler is called after __enter__, before the block; in 3.14
    signal handlers are, too.
    """
    bad = []
    for _, where, armed in each_instant(made_of, before, body, interrupted):
        is_gap = where.startswith(("call __exit__", "call close", "c_return close")) and (
            made_of is plain or body is in_beats
        )
        is_gap = is_gap or where.startswith("call __aexit__")
        is_gap_of_python = sys.version_info >= (3, 14) and where.endswith(("__enter__", "__aenter__"))
        if armed and not is_gap and not is_gap_of_python:
            bad.append(where)
    assert not bad, "\n".join(map(str, bad))


@pytest.mark.parametrize("body", BODIES)
@PREPARED
def test_no_slot_is_lost_to_a_handler_that_raised(made_of, before, body):
    """All that were ever made are idle, or in no scope's list, and each of them once."""
    bad = []
    for world, where, _ in each_instant(made_of, before, body, interrupted):
        places = world.places()
        if not len(places) == len(set(places)) == sum(page.used for page in world.pages):
            bad.append(where)
    assert not bad, "\n".join(map(str, bad))


def in_inherited(world):
    """A block that was armed before a fork: in the child a restart arms it anew."""
    with world.timer:
        world.slots.start_over()
        world.timer.restart()


def test_the_exception_of_a_handler_comes_out_of_a_block_as_it_went_in(made_of):
    """Also where the timer was not armed any more, or not yet again."""
    bad = []
    for instant in range(1000):
        handler, world = Handler(instant, raises), World(made_of)
        try:
            handled(handler, in_inherited, world)
        except KeyboardInterrupt:
            continue
        except TimerStateError as error:
            bad.append((handler.came, error))
        else:
            break
        finally:
            world.end()
    assert not bad, "\n".join(map(str, bad))


def acting(*actions):
    """Lets a handler do something with timers; what is misuse at that instant is refused there, and goes on."""

    def act(world, body, instant):
        def in_handler():
            for action in actions:
                try:
                    action(world)
                except TimerStateError:
                    continue

        handler = Handler(instant, in_handler)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", ResourceWarning)
            with contextlib.suppress(TimerStateError):
                handled(handler, body, world)
        return handler.came, told

    return act


def arm_others(world):
    for scope in ("a", "others", "third"):
        world.block(scope)


def enter(world):
    world.timer.__enter__()


def leave(world):
    world.timer.__exit__(None, None, None)


def restart(world):
    world.timer.restart()


def extend(world):
    world.timer.extend(7)


def suspend(world):
    with world.timer.suspended():
        pass


def beat(world):
    world.heart.beat()


def close(world):
    world.heart.close()


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("before", [(nothing,), (used,), (one, full)], ids=["first", "used", "full"])
@pytest.mark.parametrize(
    "actions",
    [
        (arm_others,),
        (leave,),
        (enter,),
        (leave, enter),
        (restart, extend, suspend),
        (beat,),
        (close,),
    ],
    ids=lambda actions: "+".join(action.__name__ for action in actions),
)
def test_a_handler_may_use_timers_at_any_instant(made_of, before, body, actions):
    """Even that which it has interrupted: armed is what says so, and no slot is lost or used twice."""
    bad = []
    for world, where, told in each_instant(made_of, before, body, acting(*actions)):
        states = [world.timer.state, world.heart.state]
        is_right = world.armed() == states.count("armed")
        places = world.places()
        is_right &= len(places) == len(set(places)) == sum(page.used for page in world.pages)
        if world.timer.state == "armed":
            leave(world)
        world.heart.close()
        # Plain Python does not look again: it drops the timer of a handler that has entered this very one.
        is_fine = not told or (made_of is plain and enter in actions)
        if not is_fine or not is_right or world.armed():
            bad.append((where, states, [str(one.message) for one in told]))
    assert not bad, "\n".join(map(str, bad))


RANDOM = """
import itertools, random, signal, sys, time, warnings
import unhang
from unhang._core.page import NEVER, PageWriter
from unhang._worker.client import SharedTimerClient

class Memory:
    pages = []

    def new_page(self, size):
        self.pages.append(PageWriter(bytearray(size)))
        return self.pages[-1]

    def attend(self, watched, deadline):
        watched[0] = deadline + random.choice([-1, 1]) * 10**6
        return True

    def tell(self): ...

    def abandon(self):
        pass

    def armed(self):
        return sum(page._words[32 + 32 * slot] < NEVER for page in self.pages for slot in range(page.used))

    def used(self):
        return sum(page.used for page in self.pages)

def named():
    while True:
        with unhang.expires(60, "named", client):
            pass

def unnamed():
    while True:
        with unhang.expires(60, client=client):
            with unhang.expires(60, client=client):
                pass

def nested():
    while True:
        with unhang.expires(60, "nested", client) as timer, unhang.expires(60, "nested", client):
            timer.restart()
            timer.extend(1)
            with timer.suspended(), unhang.expires(9, "nested", client, grace=1):
                pass

@unhang.expires(60, "decorated", client := SharedTimerClient._over(Memory(), time.monotonic_ns))
def decorated(levels):
    levels and decorated(levels - 1)

def calls():
    while True:
        decorated(3)

def beats():
    with unhang.heartbeat(60, "beats", client) as heart:
        while True:
            heart.beat()

def made_up():
    while True:
        with unhang.expires(60, f"made up {next(numbers)}", client):
            pass

def interrupt(*_):
    global comes
    if comes:
        comes = False
        raise KeyboardInterrupt

def again(unraisable):
    # Python drops what a handler raises inside __del__: the next one comes in a moment.
    global comes, dropped
    if unraisable.exc_type is not KeyboardInterrupt:
        print(unraisable.exc_value, file=sys.stderr)
    dropped += 1
    comes = True

numbers = itertools.count()
memory = client.slots.channel
random.seed(5)
late = dropped = 0
sys.unraisablehook = again
warnings.simplefilter("ignore", ResourceWarning)
signal.signal(signal.SIGALRM, interrupt)
works = [globals()[name] for name in sys.argv[2:]]
for number in range(int(sys.argv[1])):
    work = works[number % len(works)]
    try:
        comes = True
        signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 1e-4), 1e-3)
        work()
    except KeyboardInterrupt:
        late += memory.armed() > 0
    assert memory.armed() == 0
signal.setitimer(signal.ITIMER_REAL, 0)
with unhang.expires(60, "named", client), unhang.expires(60, client=client):
    assert memory.armed() == 2
print(late, memory.used() - dropped)
"""


def at_random(made_of, rounds, *works):
    """In how many rounds a timer was still armed in the except clause, and how many slots were ever used.

    But for those that plain Python may have lost, as its ``__del__`` was kept from running.
    """
    done = subprocess.run(
        [sys.executable, "-c", RANDOM, str(rounds), *works],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, "UNHANG_PURE": "1" if made_of is plain else ""},
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [int(number) for number in done.stdout.split()]


def test_signals_at_random_leave_nothing_behind(made_of):
    """Some thousands, in and around blocks of all kinds: nothing is armed, and no more slots than at once were used."""
    late, slots = at_random(made_of, 3000, "named", "unnamed", "nested", "calls")
    assert made_of is plain or late == 0
    # A name, two places and that of the last block, three of one scope of which one has a grace, four calls.
    assert slots <= 1 + 3 + 3 + 4


def test_signals_at_random_close_heartbeats(made_of):
    """They are armed until close() has begun, and not behind."""
    _, slots = at_random(made_of, 2000, "beats")
    assert slots <= 3


def test_signals_at_random_lose_no_slot_of_scopes_that_are_made_up(made_of):
    """Each block takes a slot that had another scope: one page is enough."""
    late, slots = at_random(made_of, 2000, "made_up")
    assert made_of is plain or late == 0
    assert slots <= 255
