"""Reports at random: all that the model allows."""

from hypothesis import strategies as st

from unhang.report.model import (
    Block,
    Child,
    Departed,
    Evidence,
    Frame,
    HangClass,
    Process,
    Report,
    Socket,
    Step,
    Sure,
    Thread,
    Verdict,
    Worker,
)

numbers = st.integers(-(2**63), 2**63 - 1)
pids = st.integers(1, 9)
seconds = st.floats(allow_nan=False, allow_infinity=False) | st.floats(-100, 100)
texts = st.text(max_size=12) | st.sampled_from(
    ["\x1b[31mred", "a\nb", "\u202eevil", "/x/y.py", "<script>", "SIGKILL", "dead"]
)


def some(strategy, most=3):
    return st.lists(strategy, max_size=most).map(tuple)


frames = st.builds(Frame, function=texts, file=texts, line=numbers, source=texts, native=st.booleans())
threads = st.builds(
    Thread,
    id=numbers,
    name=texts,
    frames=some(frames),
    holds_gil=st.none() | st.booleans(),
    state=texts,
    wchan=texts,
    syscall=texts,
)
blocks = st.builds(
    Block, scope=texts, after=seconds, started=seconds, expired=st.booleans(), finished=st.booleans(), deadline=seconds
)
evidence = st.builds(
    Evidence,
    at=seconds,
    took=seconds,
    threads=some(threads, 2),
    stacks_from=texts,
    without=some(texts),
    hang=st.sampled_from(HangClass),
    facts=some(texts),
    process=st.builds(Process, command=texts, state=texts, window=seconds, cpu=seconds, memory=numbers),
    sockets=some(st.builds(Socket, kind=texts, local=texts, remote=texts, status=texts), 1),
    children=some(st.builds(Child, pid=numbers, name=texts, state=texts), 1),
    stderr=texts,
)
ranks = st.none() | st.integers(0, 6)
workers = st.builds(
    Worker,
    pid=pids,
    rank=ranks,
    local_rank=ranks,
    host=texts,
    attempt=st.none() | numbers,
    expired=st.booleans(),
    sequence=numbers,
    idle=seconds,
    blocks=some(blocks),
    finished=some(blocks),
    evidence=st.none() | evidence,
    steps=some(st.builds(Step, at=seconds, what=texts | st.sampled_from(["evidence", "SIGTERM", "SIGKILL", "dead"]))),
    outcome=texts,
    exit=texts,
)
departed = st.builds(Departed, pid=pids, rank=ranks, at=seconds, exit=texts, blocks=some(blocks, 1), sequence=numbers)
reports = st.builds(
    Report,
    id=texts,
    time=texts | st.datetimes().map(lambda time: time.isoformat() + "Z"),
    host=texts,
    job=texts,
    kind=st.sampled_from(["expired", "pretimeout"]) | texts,
    headline=st.just("") | texts,
    verdict=st.builds(Verdict, culprits=some(pids), victims=some(pids), sure=st.sampled_from(Sure), why=texts),
    workers=some(workers),
    progressing=st.integers(0, 9),
    departed=some(departed, 2),
    omitted=some(texts),
    complete=st.booleans(),
    watchdog=numbers,
    version=texts,
)
