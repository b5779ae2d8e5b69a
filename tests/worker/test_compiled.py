"""What only the compiled block has: a memory for call sites, references to count, a signature that is a text."""

import contextlib
import gc
import inspect
import pickle
import re
import subprocess
import sys
import threading
import time
import warnings
import weakref
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import capabilities
import unhang
from unhang._core import page
from unhang._core.page import THREAD, PageWriter
from unhang._worker import choose, implementation, slots
from unhang._worker.client import SharedTimerClient
from unhang._worker.endings import parse

capabilities.extension(allow_module_level=True)
if implementation.WHY != implementation.COMPILED:
    if implementation.PURE in implementation.WHY:
        capabilities.is_not_for_this("plain Python was asked for", allow_module_level=True)
    pytest.fail(f"the extension is not in use: {implementation.WHY}", pytrace=False)

compiled = implementation.CHOSEN


class Memory:
    """A channel to nobody, whose pages are memory of this process."""

    def new_page(self, size):
        writer = PageWriter(bytearray(size))
        writer.watched[0] = writer.watched[1] = time.monotonic_ns() + 10**9
        return writer

    def attend(self, watched, deadline):
        watched[0] = deadline
        return True

    def connect(self): ...

    def tell(self): ...

    def abandon(self): ...


def new_client():
    return SharedTimerClient._over(Memory(), time.monotonic_ns)


def test_it_was_compiled_for_this_layout():
    """Every constant that the C code uses is the one of the page's module."""
    assert {name: getattr(page, name) for name in compiled.LAYOUT} == compiled.LAYOUT


def test_expires_is_what_it_is_in_plain_python():
    """Signature, documentation and name; it can be pickled by name, for a process that has another implementation."""
    plain = choose._plain_expires
    parameters = inspect.signature(unhang.expires).parameters.values()
    wanted = inspect.signature(plain).parameters.values()
    assert [(one.name, one.kind, one.default) for one in parameters] == [
        (one.name, one.kind, one.default) for one in wanted
    ]
    assert inspect.getdoc(unhang.expires) == inspect.getdoc(plain)
    assert pickle.loads(pickle.dumps(unhang.expires)) is unhang.expires
    assert unhang.expires.__module__ == "unhang"


@pytest.mark.parametrize("name", ["restart", "extend", "remaining", "__enter__", "__exit__", "suspended"])
def test_methods_have_their_documentation(name):
    """help() finds it, though it stands in a base class."""
    assert inspect.getdoc(getattr(unhang.Timer, name))
    assert inspect.getdoc(unhang.Timer).startswith("One block")
    assert inspect.getdoc(unhang.Heartbeat.beat).startswith("There was progress")


AFTERS = [60, 60.0, 61, 1, 1.0, True, timedelta(seconds=60), Decimal(60), Decimal("1.5")]
ASKED = st.tuples(
    st.sampled_from(["a", "b", None]),
    st.sampled_from(AFTERS),
    st.sampled_from([None, "TERM", "INT", 15]),
    st.sampled_from([None, 0, 1, 2.5]),
    st.sampled_from([None, 1]),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), ASKED), min_size=20, max_size=80))
def test_a_timer_is_what_was_asked_for(calls):
    """Of that client, scope, timeout and ending, whatever was asked before, by clients that come and go."""
    clients = [new_client() for _ in range(3)]
    for number, (which, (scope, after, signal, grace, pretimeout)) in enumerate(calls):
        if number % 17 == 16:
            clients[which] = new_client()
        options = {"signal": signal, "grace": grace, "pretimeout": pretimeout}
        place = {
            "expires": unhang.expires,
            "after": after,
            "client": clients[which],
            "options": options,
            "scope": scope,
        }
        exec(compile("\n" * which + "timer = expires(after, scope, client, **options)", "made.py", "exec"), place)  # noqa: S102
        site = place["timer"]._site
        seconds = after.total_seconds() if isinstance(after, timedelta) else float(after)
        assert site.slots is clients[which].slots
        assert site.after == int(seconds * 10**9)
        assert site.scope == (scope or f"made.py:{which + 1}")
        assert (site.ending, site.pretimeout) == parse(signal, grace, pretimeout)


def test_nothing_is_kept_of_a_client_that_is_gone():
    """Its sites, and the code that has called, are let go of: what is remembered of call sites holds no client."""
    client = new_client()
    code = compile("for _ in range(3):\n  with expires(5, client=client): pass", "gone.py", "exec")
    exec(code, {"expires": unhang.expires, "client": client})  # noqa: S102
    with unhang.expires(5, "named", client), unhang.expires(5, "named", client, signal="INT"):
        pass
    gone = [weakref.ref(code), weakref.ref(client.slots)]
    del client, code
    gc.collect()
    assert [ref() for ref in gone] == [None, None]


def blocks(client):
    """A block of each kind."""
    with unhang.expires(5, client=client), unhang.expires(5, "named", client, grace=1) as timer:
        timer.restart()
        timer.extend(1)
        with timer.suspended():
            timer.remaining()
    with pytest.raises(unhang.UnhangError), timer.suspended():
        pass
    with unhang.heartbeat(5, "beats", client) as heart:
        heart.beat()
        heart.beat()


def test_blocks_leave_no_objects_behind():
    """As many objects, and references to what they share, before ten thousand blocks as behind them."""
    client, scope = new_client(), "a scope " + "of its own"
    for _ in range(300):
        blocks(client)
    gc.collect()
    before = len(gc.get_objects()), sys.getrefcount(client), sys.getrefcount(scope)
    for number in range(2000):
        blocks(client)
        with unhang.expires(5, scope, client):
            pass
        with unhang.expires(5, f"made {number % 5}", client):
            pass
    gc.collect()
    objects, clients, scopes = len(gc.get_objects()), sys.getrefcount(client), sys.getrefcount(scope)
    assert objects - before[0] < 100
    assert clients == before[1]
    assert scopes - before[2] <= 5  # what is remembered of a call site, and the site


def test_a_slot_names_the_thread_that_arms_it():
    """Though another thread has used it before."""
    client = new_client()
    seen = []

    def work():
        with unhang.expires(5, "one", client) as timer:
            seen.append((timer._slot, timer._slot.cell[THREAD], threading.get_native_id()))

    work()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(30)
    assert [told for _, told, _ in seen] == [own for _, _, own in seen]
    assert seen[0][0] is seen[1][0]


@pytest.mark.parametrize(
    "misuse",
    [
        lambda timer: type(timer)(),
        lambda timer: type(timer)(7),
        lambda timer: timer.__exit__(None),
        lambda timer: timer._move(None, 1, 1),
        lambda timer: timer._slot._place(memoryview(b"short"), memoryview(bytearray(16))),
        lambda timer: timer._slot._place(memoryview(bytearray(8)), memoryview(bytearray(16))),
        lambda timer: timer._slot._place(memoryview(bytearray(257))[1:], memoryview(bytearray(16))),
        lambda timer: timer._slot._place(None, None),
        lambda timer: setattr(timer._site, "after", "soon"),
        lambda timer: unhang.expires(),
        lambda timer: unhang.expires(1, "a", None, "TERM"),
        lambda timer: unhang.expires(1, after=2),
        lambda timer: unhang.expires(1, until=2),
    ],
)
def test_wrong_types_are_refused(misuse):
    """With an exception, and the timer is armed as before."""
    client = new_client()
    with unhang.expires(5, "step", client) as timer:
        with pytest.raises((TypeError, ValueError, BufferError)):
            misuse(timer)
        assert timer.state == "armed"


def test_a_list_that_holds_no_slots_is_told():
    """It would be a fault of ours: it raises, and does not crash."""
    timer = unhang.expires(5, "step", new_client())
    timer._site.free = ["no slot"]
    with pytest.raises(TypeError, match="no idle slot"), timer:
        pass
    with timer:
        assert timer.state == "armed"


def test_timers_of_plain_python_work_beside_it():
    """A client with the other implementation is served by the same expires()."""
    from unhang._worker import plain

    client = SharedTimerClient._over(Memory(), time.monotonic_ns, plain)
    with unhang.expires(5, client=client) as timer:
        assert type(timer) is plain.Timer
        assert timer.state == "armed"
    assert choose.timers_like(timer, timer.scope)()._site is timer._site


IN_A_SUBINTERPRETER = """
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
import unhang
code = '''
import time, unhang
from unhang._core.page import PageWriter
from unhang._worker import implementation
from unhang._worker.client import SharedTimerClient
class Memory:
    def new_page(self, size): return PageWriter(bytearray(size))
    def attend(self, watched, deadline): return True
    def connect(self): ...
    def tell(self): ...
    def abandon(self): ...
client = SharedTimerClient._over(Memory(), time.monotonic_ns)
with unhang.expires(5, "there", client) as timer:
    assert timer.state == "armed"
print(implementation.WHY, flush=True)
'''
if hasattr(interpreters, "new_config"):
    failure = interpreters.exec(interpreters.create("legacy"), code)
    assert failure is None, failure
else:
    interpreters.run_string(interpreters.create(isolated=False), code)
with unhang.expires(5, "here", unhang.SharedTimerClient("/nowhere")) as timer:
    print(type(timer).__module__)
"""


def test_a_subinterpreter_gets_plain_python():
    """The extension refuses it, and says why; the main interpreter keeps it."""
    done = subprocess.run(
        [sys.executable, "-c", IN_A_SUBINTERPRETER], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].startswith("plain Python: the extension is for the main interpreter")


def test_every_word_that_the_source_names_is_compared():
    """With the page's module, when it is loaded; but for the size of a slot, which is that of its words."""
    source = (Path(__file__).parents[2] / "src/unhang/_worker/_block.c").read_text()
    assert set(re.findall(r"PAGE_([A-Z_]+)", source)) - {"SLOT_BYTES"} <= set(compiled.LAYOUT)


ARGUMENTS = {
    "after": st.sampled_from([5, 60.5, None, "5", float("nan")]),
    "scope": st.sampled_from(["a", None, 7]),
    "client": st.sampled_from(["ours", None, 7]),
    "signal": st.sampled_from(["INT", None, "STOP"]),
    "grace": st.sampled_from([1, None, -1]),
    "pretimeout": st.sampled_from([1, None, "1"]),
    "until": st.just(9),
}


@given(
    st.lists(st.one_of(ARGUMENTS["after"], ARGUMENTS["scope"], ARGUMENTS["client"]), max_size=4),
    st.fixed_dictionaries({}, optional=ARGUMENTS),
    st.booleans(),
)
def test_any_call_of_expires_is_answered_as_by_the_plain_one(args, options, is_default):
    """The same timer, or the same exception, however the arguments are given, and when it is asked again."""
    client = new_client()
    choose.set_client(client if is_default else None)
    args = [client if argument == "ours" else argument for argument in args]
    options = {name: client if value == "ours" else value for name, value in options.items()}

    def answer(expires):
        try:
            timer = expires(*args, **options)
        except Exception as error:  # noqa: BLE001 - whatever it is, both raise it
            return type(error), str(error)
        return type(timer), getattr(timer, "_site", None)

    answers = [answer(expires) for expires in (unhang.expires, choose._plain_expires, unhang.expires, unhang.expires)]
    kinds, sites = zip(*answers, strict=True)
    assert set(kinds) == {kinds[1]}
    # Each call of answer() is a place of its own, but the line is one.
    assert [getattr(site, "scope", site) for site in sites] == [getattr(sites[1], "scope", sites[1])] * 4
    assert sites[2] is sites[3] or not isinstance(sites[2], compiled.Site)


def refused(action, *args, **options):
    with contextlib.suppress(Exception):
        action(*args, **options)


def enter_twice(client):
    with unhang.expires(5, "one", client) as timer:
        refused(timer.__enter__)


def drop_armed(client):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        unhang.expires(5, "one", client).__enter__()


def lose(client):
    client.slots.channel.is_lost = True
    client.slots.channel.watched[0] = 2**62
    refused(unhang.expires(5, "one", client).__enter__)
    client.slots.channel.is_lost = False


class Losing(Memory):
    is_lost = False

    def new_page(self, size):
        writer = super().new_page(size)
        self.watched = writer.watched
        return writer

    def attend(self, watched, deadline):
        if self.is_lost:
            raise unhang.errors.WatchdogLostError("memory", "gone")
        return super().attend(watched, deadline)


@pytest.mark.parametrize(
    ("action", "times"),
    [
        (lambda client: refused(unhang.expires), 2000),
        (lambda client: refused(unhang.expires, 5, "one", client, 7), 2000),
        (lambda client: refused(unhang.expires, 5, "one", client, until=7), 2000),
        (lambda client: refused(unhang.expires, -5, "one", client), 2000),
        (lambda client: refused(unhang.expires, 5, 7, client), 2000),
        (lambda client: refused(unhang.expires, 5, "one", 7), 2000),
        (lambda client: refused(compiled.Timer), 2000),
        (lambda client: refused(unhang.expires(5, "one", client).restart), 2000),
        (lambda client: refused(unhang.expires(5, "one", client).remaining), 2000),
        (lambda client: refused(unhang.expires(5, "one", client).__exit__, None, None, None), 2000),
        (lambda client: refused(unhang.expires(5, "one", client).__exit__), 2000),
        (lambda client: unhang.expires(float("5.5"), "one", client), 10_000),
        (lambda client: unhang.expires(5, f"o{'ne'}", client), 10_000),
        (lambda client: unhang.expires(timedelta(seconds=5), client=client), 10_000),
        (lambda client: unhang.expires(5, client=client, signal="INT", grace=1), 10_000),
        (lambda client: exec("expires(5, client=client)", {"expires": unhang.expires, "client": client}), 500),  # noqa: S102
        (enter_twice, 2000),
        (drop_armed, 500),
        (lose, 500),
        (lambda client: client.slots.start_over() or unhang.expires(5, "one", client).__enter__().restart(), 1000),
        (lambda client: SharedTimerClient._over(Memory(), time.monotonic_ns), 500),
        (lambda client: unhang.heartbeat(5, "one", client), 2000),
        (lambda client: unhang.expires(5, "one", client)(len)([]), 1000),
    ],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_nothing_leaks(monkeypatch, action, times):
    """As many blocks of memory before as behind, also where something is refused, dropped, or lost."""
    monkeypatch.setattr(slots, "_MOST_SITES", 50)
    client = SharedTimerClient._over(Losing(), time.monotonic_ns)
    with unhang.expires(5, "one", client):
        pass
    used = []
    for _ in range(2):
        for _ in range(times):
            action(client)
        gc.collect()
        used.append(sys.getallocatedblocks())
    assert used[1] - used[0] < times / 10 + 50


NOTHING_IN_IT = """
import unhang
from unhang._worker import implementation
from unhang._worker.client import SharedTimerClient
import unhang._worker._block as block

site, slot = object.__new__(block.Site), object.__new__(block.Slot)
timer, heart = block.Timer(site), object.__new__(block.Heartbeat)
actions = [
    timer.__enter__,
    timer.restart,
    timer.remaining,
    lambda: timer.__exit__(None, None, None),
    lambda: timer._move(slot, 1, 1),
    lambda: timer.extend(1),
    lambda: timer.suspended().__enter__(),
    lambda: timer.scope,
    lambda: repr(timer),
    lambda: timer(print),
    heart.beat,
    heart.close,
    lambda: repr(heart),
    lambda: slot.cut_off(is_ours=True),
    lambda: block.Site(None, 7, 7, None),
    lambda: block.Slot(None, None).put(None, None),
]
for action in actions:
    try:
        action()
    except Exception as error:
        print(type(error).__name__)
for attribute in ("slots", "scope", "clock", "free"):
    client = SharedTimerClient("/nowhere")
    timer = unhang.expires(5, "a", client)
    for value in (None, 7, [slot], [site], [None], (slot,)):
        setattr(timer._site, attribute, value)
        try:
            timer.__enter__()
            timer.restart()
            timer.__exit__(None, None, None)
        except Exception as error:
            print(type(error).__name__)
    delattr(timer._site, attribute)
    try:
        timer.__enter__()
    except Exception as error:
        print(type(error).__name__)
print("alive")
"""


def test_what_was_never_filled_is_refused():
    """Objects without what belongs into them, and sites that somebody has spoilt: exceptions, and no crash."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "ignore", "-c", NOTHING_IN_IT],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["alive"]), done.stderr


def test_a_subinterpreter_with_a_gil_of_its_own_gets_plain_python():
    """Where Python has those, the extension is refused before it is asked."""
    if sys.version_info < (3, 12):
        capabilities.is_not_for_this("there are none")
    code = IN_A_SUBINTERPRETER.replace('"legacy"', '"isolated"').replace("isolated=False", "isolated=True")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("plain Python: ")
    assert done.stdout.splitlines()[1] == "unhang"
