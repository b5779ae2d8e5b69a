"""Pictures for tests, made by hand and at random."""

from hypothesis import strategies as st

from report.random_reports import reports
from unhang.observe.picture import Armed, Picture, Row
from unhang.report.live import Event, Watchdog, WorkerInfo

NOW = 1000.0
WATCHDOG = Watchdog(
    pid=4711, version="1", host="node-1", address="/run/unhang/watchdog.sock", started=0.0, looked=NOW, longest=0.0012
)


def row(place, scope="step", running=1.0, after=60.0, idle=0.5, **more):
    """A worker in one block, or in none."""
    info = {"host": "node-1", "job": "train", "rank": place}
    info |= {name: more.pop(name) for name in list(more) if name in WorkerInfo.__struct_fields__}
    armed = () if scope is None else (Armed(scope, after, running, after - running, 1),)
    worker = WorkerInfo(number=place + 1, connection=place + 1, revision=place + 1, pid=20000 + place, **info)
    return Row(worker, **{"armed": armed, "timers": len(armed), "sequence": 100, "rate": 2.0, "idle": idle, **more})


def picture(rows, events=(), **more):
    return Picture(at=NOW, watchdog=WATCHDOG, rows=tuple(rows), recent=tuple(events), **more)


def event(name, ago, **more):
    return Event(time="2026-03-01T12:00:00.000Z", event=name, at=NOW - ago, **more)


numbers = st.integers(-(2**62), 2**62)
counts = st.integers(0, 2**62)
seconds = st.floats() | st.floats(-10, 1000)
texts = st.text(max_size=30) | st.sampled_from(
    [
        "\x1b[2J\x1b]0;x\x07",
        "a\nb\tc",
        "\u202eevil",
        "/very/" * 40 + "long.py:88",
        "日本語のブロック" * 9,
        "é" * 99,
        "\u0301" * 60,
    ]
)
armed = st.builds(Armed, scope=texts, after=seconds, running=seconds, left=seconds, thread=numbers)
infos = st.builds(
    WorkerInfo,
    number=st.integers(1, 50),
    revision=numbers,
    pid=numbers,
    rank=st.none() | numbers,
    host=texts,
    job=st.sampled_from(["a", "b"]) | texts,
    attempt=st.none() | numbers,
)
rows = st.builds(
    Row,
    info=infos,
    armed=st.lists(armed, max_size=3).map(tuple),
    timers=counts,
    sequence=numbers,
    rate=st.none() | seconds,
    idle=seconds,
)
names = st.sampled_from(["killed", "near miss", "report", "connect", "overslept", "died"]) | texts
events = st.builds(
    Event,
    time=texts,
    event=names,
    at=seconds,
    pid=st.none() | numbers,
    rank=st.none() | numbers,
    scope=texts,
    running=st.none() | seconds,
    late=st.none() | seconds,
    signal=texts,
    hang=texts,
    report=texts,
    detail=texts,
)
watchdogs = st.builds(
    Watchdog,
    pid=numbers,
    version=texts,
    host=texts,
    address=texts,
    started=seconds,
    looked=seconds,
    longest=seconds,
    overslept=counts,
    overslept_time=seconds,
    dropped=st.dictionaries(texts, numbers, max_size=3),
    observe=st.booleans(),
)
pictures = st.builds(
    Picture,
    at=seconds,
    watchdog=watchdogs,
    rows=st.lists(rows, max_size=12).map(tuple),
    recent=st.lists(events, max_size=8).map(tuple),
    missed=counts,
    stacks=st.none() | reports,
    no_stacks=texts,
)
