"""Whatever a worker says, in any of the ways in which it can say it: nothing raises, and nobody else's request is lost.

One fuzzer (hypothesis) finds small examples, the other one (seeded) has more of them at once.
"""

import functools
import json
import math
import os
import pickle
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

import unhang
from unhang._core.identity import Identity
from unhang._core.messages import MessageError, hello, parse_hello
from unhang._core.page import HEADER_WORDS, SLOT_WORDS, SMALLEST_PAGE, PageError, PageWriter
from unhang._core.page_reader import PageReader
from unhang._core.requests import MalformedRequestError
from unhang._core.texts import described, error_described, escaped
from unhang._watchdog.journal import Journal
from unhang._watchdog.request_lines import read_line
from unhang._watchdog.viewers import Viewer, Viewers
from unhang._watchdog.watch import Watch
from unhang.api import TimerRequest
from unhang.report.live import VERSION, Watchdog


def refuse(*args, **kwargs):
    raise RuntimeError("hostile")


METHODS = "repr str format eq ne hash lt le gt ge neg add radd bool int float index len iter"
HOSTILE = {f"__{name}__": refuse for name in METHODS.split()}
HostileInt, HostileFloat = type("HostileInt", (int,), HOSTILE), type("HostileFloat", (float,), HOSTILE)
HostileStr, Hostile = type("HostileStr", (str,), HOSTILE), type("Hostile", (), HOSTILE)
HostileName = type("Meta", (type,), {"__name__": property(refuse), "__repr__": refuse})("Hostile\x9b", (), HOSTILE)


def nested(depth):
    return functools.reduce(lambda inner, _: [inner], range(depth), [])


TEXTS = [
    "",
    "a",
    "\0",
    "\x1b[2J",
    "\x9b2J",
    "\u202eabc",
    "\ud800",
    "\udfff\ud800",
    "\u2028",
    "x" * 5000,
    "\U000e0001",
    "\n",
]
PLAIN = [
    *(None, True, False, 0, -1, 1, 2**22, 2**31, 2**63, -(2**64), 10**400, 10**5000, -(10**5000)),
    *(0.0, -0.0, 1.5, -1.0, 1e300, math.nan, math.inf, -math.inf, 5e-324),
    *(b"", b"\xff\x9b", [], {}, (), [10**5000], {"a": 10**5000}, nested(2000)),
    *TEXTS,
]
OBJECTS = [HostileInt(3), HostileInt(10**5000), HostileFloat(1), HostileFloat("nan"), HostileStr("\x9b"), Hostile()]
OBJECTS += [HostileName(), Hostile, HostileName, object()]

texts = st.one_of(st.sampled_from(TEXTS), st.text(st.characters(exclude_categories=()), max_size=20))
plain = st.one_of(st.sampled_from(PLAIN), st.integers(), st.floats(), texts, st.binary(max_size=20))
# As functions without arguments: hypothesis looks at what it hands over, which these do not stand.
values = st.one_of(
    plain.map(lambda value: lambda: value), st.sampled_from([lambda each=each: each for each in OBJECTS])
)


def drawn(dice, *, objects=True):
    """One value of a seeded fuzzer."""
    kind = dice.randrange(4 if objects else 3)
    if kind == 0:
        return dice.choice((1, -1)) * dice.getrandbits(dice.choice((1, 8, 31, 64, 2000, 20000)))
    if kind == 1:
        return "".join(
            chr(dice.choice((dice.randrange(0x110000), dice.randrange(256)))) for _ in range(dice.randrange(9))
        )
    return dice.choice(PLAIN if kind == 2 else OBJECTS)


def is_harmless(text):
    """It is short, moves no cursor, and can be written anywhere."""
    text.encode()
    return len(text) < 1000 and escaped(text) == text


@given(values)
def test_a_value_of_any_kind_can_be_described(value):
    """In a short line that a terminal can show, without a method of its own class."""
    assert is_harmless(described(value()))
    assert is_harmless(error_described(ValueError(value())))


@given(texts)
def test_what_is_escaped_is_harmless(text):
    """No control character, nothing that turns the direction, no half of a pair is left; what is harmless stays."""
    assert is_harmless(escaped(text)[:900])
    assert escaped("naïve 日本 🎉") == "naïve 日本 🎉"


class Odd:
    """A request with fields of any kind, some of which raise when they are asked for."""

    def __init__(self, *fields):
        self.fields = fields

    def field(self, index):
        if self.fields[index] is Hostile:
            raise RuntimeError("hostile")
        return self.fields[index]

    worker_id = property(lambda self: self.field(0))
    scope_id = property(lambda self: self.field(1))
    expiration_time = property(lambda self: self.field(2))
    _received = property(lambda self: (self.field(2), self.field(2)))


def apply_with_a_release(watch, make, fields):
    """Apply a request of any kind, and behind it a release; the release counts."""
    watch.timers.arm(os.getpid(), "innocent", 1e9, TimerRequest(os.getpid(), "innocent", 1e9))
    watch.register_all([make(*fields), TimerRequest(os.getpid(), "innocent", -1)])
    assert (os.getpid(), "innocent") not in watch.timers
    assert all(is_harmless(kind) for kind in watch.dropped.counts)


@given(st.sampled_from([TimerRequest, Odd]), values, values, values)
def test_no_request_takes_another_one_with_it(make, pid, scope, instant):
    """Whatever its fields are, what stands behind it in the batch counts."""
    apply_with_a_release(Watch(None), make, (pid(), scope(), instant()))


def test_no_request_takes_another_one_with_it_seeded():
    """As before, with thousands of requests at one watch."""
    dice, watch = seeded(13), Watch(None)
    for _ in range(3000):
        apply_with_a_release(watch, dice.choice([TimerRequest, Odd]), [drawn(dice) for _ in range(3)])
    watch.close()


def pickled(value):
    try:
        return pickle.dumps(value)
    except RecursionError:
        return b"\x80\x04" + b"]" * 5000 + b"a" * 4999 + b"."  # what it would be


@pytest.fixture
def queue_server(spawn):
    server = unhang.LocalTimerServer(spawn.Queue())
    yield server
    server.stop()


def test_no_pickle_takes_another_one_with_it(queue_server):
    """As they come through the pipe of a queue: any values, any bytes, and a release behind each."""
    dice, queue = seeded(14), queue_server._request_queue
    release = pickle.dumps(TimerRequest(os.getpid(), "innocent", -1))
    for _ in range(1000):
        request = TimerRequest(*[drawn(dice, objects=False) for _ in range(3)])
        payload = dice.choice([pickled(request), pickled(drawn(dice, objects=False)), dice.randbytes(40)])
        queue_server._timers.arm(os.getpid(), "innocent", 1e9, request)
        queue._receive([payload, release], 0.0)
        queue_server.register_timers(queue._take(10))
        assert (os.getpid(), "innocent") not in queue_server._timers
    assert all(is_harmless(kind) for kind in queue_server.dropped_requests)


def seeded(number):
    return Random(number)  # noqa: S311 - the same in each run


def refusal(action, *args):
    """Why it was refused, in words; empty if it was not."""
    try:
        action(*args)
    except MalformedRequestError as error:
        return f"{error.kind}: {error.detail}"
    except MessageError as error:
        return error_described(error)
    return ""


def line_is_read(line):
    assert is_harmless(refusal(read_line, line))


def line_of(**fields):
    """As JSON, without what JSON cannot hold."""
    return b"{%s}" % b", ".join(
        b'"%s": %s' % (name.encode(), text) for name, value in fields.items() if (text := written(value))
    )


def written(value):
    """A value as JSON, large integers too; empty if it cannot be written."""
    if isinstance(value, int) and value.bit_length() > 10000:
        return b"9" * 5000
    try:
        return json.dumps(value).encode()
    except (TypeError, ValueError, RecursionError):
        return b"[" * 600 + b"]" * 600 if isinstance(value, list) else b""


@given(plain, plain, plain, plain, plain)
def test_any_line_of_the_named_pipe_is_read_or_dropped(version, pid, scope, instant, number):
    """JSON of any values: it is a request, or says why not in a harmless line."""
    line = line_of(version=version, pid=pid, scope_id=scope, expiration_time=instant, signal=number)
    line_is_read(line)


def test_lines_that_are_damaged_are_read_or_dropped():
    """Good lines with bytes changed, cut out, doubled; and JSON that is nested deeply."""
    dice = seeded(15)
    good = line_of(version=1, pid=4711, scope_id="a\x9b\u202e\ud800", expiration_time=1.5, signal=9)
    for _ in range(5000):
        line = bytearray(good)
        for _ in range(dice.randrange(1, 4)):
            at = dice.randrange(len(line))
            line[at : at + dice.randrange(3)] = dice.choice(
                [dice.randbytes(1), b"9" * 600, b'"', b"[" * 500, b"}{", b""]
            )
        line_is_read(bytes(line))


@given(st.binary(max_size=512))
def test_any_first_message_is_a_greeting_or_none(data):
    """Who a worker says it is may be anything."""
    for message in (data, hello(0, 0, Identity())[:9] + data):
        assert is_harmless(refusal(parse_hello, message))
    identity = Identity.decode(data)
    assert is_harmless(described(identity.job) + described(identity.host) + described(identity.rank))


@given(st.binary(max_size=400), plain, plain, plain)
def test_any_question_of_a_viewer_is_answered_or_refused(data, version, number, other):
    """Numbers out of all ranges, nesting, other types: an answer, or a reason that can be shown."""
    watchdog = Watchdog(pid=1, version="", host="", address="", started=0, looked=0, turns=0, busy=0, longest=0)
    viewers = Viewers(lambda: watchdog, Journal(), lambda worker, done: False)
    for asked in (VERSION, version):
        question = line_of(version=asked, serial=number, revision=other, stacks=number, more=other)
        assert is_harmless(refusal(viewers.answer, Viewer(), question))
    assert is_harmless(refusal(viewers.answer, Viewer(), data))


def test_any_page_can_be_read():
    """Random words in all slots, and in the header's count of them: no reader raises, and each text can be shown."""
    dice = seeded(16)
    for _ in range(300):
        memory = bytearray(SMALLEST_PAGE)
        writer = PageWriter(memoryview(memory))
        while writer.add_slot() is not None:
            pass
        words = memoryview(memory).cast("q")
        for _ in range(dice.randrange(1, 200)):
            at = dice.randrange(HEADER_WORDS, HEADER_WORDS + 3 * SLOT_WORDS)
            words[at] = dice.choice(
                (dice.getrandbits(63), -dice.getrandbits(63), dice.randrange(300), -1, 0, 2**63 - 1)
            )
        try:
            page = PageReader(memoryview(memory), lambda: None)
        except PageError:
            continue
        for now in (0, 10**12, 2**62):
            page.due(now)
            page.soon(now)
        for seen in [*page.live(), *map(page.last, range(3))]:
            assert seen is None or is_harmless(described(seen.scope))
        page.counts()
        page.slots()
