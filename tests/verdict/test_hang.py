"""Facts, and the class of a hang that follows from them."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unhang._platform.look import ThreadLook
from unhang._platform.waits import Target
from unhang._verdict import calls, running
from unhang._verdict.hang import classify
from unhang._verdict.symptoms import Motion, Sample, Symptoms, motion
from unhang.report.model import Frame, HangClass, Thread

LIB = "/usr/lib/python3.11/"
TORCH = "/usr/lib/python3.11/site-packages/torch/distributed/"
USER = Frame(function="step", file="/job/train.py", line=3, source="x = f(y)")
RESTS = Motion(("S", "S"), rests=True, stayed=True, turns=0)
STAYS = Motion(("S", "S"), cpu=0.1, turns=9)
RUNS = Motion(("R", "R"), cpu=0.99)
# Arguments of a poll or an epoll_wait without a timeout.
NEVER = (5, 0, 0xFFFFFFFF, 0xFFFFFFFF, 0, 0)


def lib(file, function, line=1):
    return Frame(function=function, file=LIB + file, line=line)


def c(function, file="/usr/lib/libpython3.11.so.1.0"):
    return Frame(function=function, file=file, native=True)


def blocked(syscall, *frames, targets=None, arguments=(), state="S", wchan="", **more):
    """A main thread that is blocked."""
    thread = Thread(id=1, name="MainThread", frames=frames or (USER,), holds_gil=more.pop("holds_gil", False))
    others = more.pop("others", ())
    seen = {1: dataclasses.replace(RESTS, states=(state, state)), **more.pop("motions", {})}
    looks = {1: ThreadLook(1, "python", state, wchan, syscall, arguments), **more.pop("looks", {})}
    return Symptoms(
        threads=(thread, *others), motions=seen, looks=looks, window=more.pop("window", 0.5), targets=targets, **more
    )


def runs(*samples, symbols=True, seen=RUNS, frames=(USER,), **more):
    """A main thread on a processor."""
    thread = Thread(id=1, name="MainThread", frames=frames, holds_gil=samples[0].holds_gil if samples else None)
    look = ThreadLook(1, "python", "R", "", "running")
    options = {"window": 0.5, "symbols": symbols, **more}
    return Symptoms(threads=(thread,), motions={1: seen}, looks={1: look}, samples={1: samples}, **options)


def sample(*above, line=3, gil=True):
    return Sample((*above, at(line)), native=True, holds_gil=gil)


def at(line):
    return Frame(function=USER.function, file=USER.file, line=line)


def plain(line=3, gil=True):
    return Sample((at(line),), holds_gil=gil)


TCP = Target("tcp", "tcp a:1 -> b:2")
PIPE = Target("pipe", "a pipe")
WAKE_UP = Target("unix", "a unix socket")
LOOP = (lib("selectors.py", "select"), lib("asyncio/base_events.py", "_run_once"), USER)
WITH = Frame(function="f", file="/job/a.py", line=2, source="with self.lock:")
SRE = (c("sre_ucs1_match"), c("_sre_SRE_Pattern_match"))
MATCH = lib("re/__init__.py", "match", 166)

CASES = {
    "a debugger": (blocked("read", tracer=9, tracer_name="gdb"), HangClass.DEBUGGER, "pid 9 (gdb)"),
    "stopped": (blocked("", state="T"), HangClass.STOPPED, "state T"),
    "a frozen group": (blocked("futex", wchan="do_freezer_trap"), HangClass.STOPPED, "frozen"),
    "state D": (blocked("read", state="D", wchan="folio_wait_bit_common"), HangClass.DISK, "folio_wait_bit_common"),
    "vfork": (blocked("vfork", state="D", wchan="kernel_clone"), HangClass.CHILD, "start its program"),
    "swapping": (
        runs(seen=Motion(("D", "R"), cpu=0.1), major_faults=100, swapped=5 << 20),
        HangClass.DISK,
        "100 pages",
    ),
    "starved": (runs(seen=Motion(("R", "R"), cpu=0.01, waited=0.99)), HangClass.STARVED, "waited for a processor 99%"),
    "busy for a moment": (
        runs(plain(3), plain(4), seen=Motion(("R", "R"), cpu=0.01, waited=0.99), window=0.01),
        HangClass.PYTHON_LOOP,
        "its line changes",
    ),
    "a loop of some lines": (runs(plain(3), plain(4)), HangClass.PYTHON_LOOP, "its line changes"),
    "a loop of one line": (runs(plain(), sample()), HangClass.PYTHON_LOOP, "no C code"),
    "a stripped interpreter": (runs(plain(), sample(), symbols=False), HangClass.UNKNOWN, "do not tell"),
    "a loop that calls": (runs(sample(c("a")), sample(c("b"))), HangClass.PYTHON_LOOP, "C code above its line changes"),
    "a loop that waits for the GIL": (
        runs(sample(c("x"), c("pthread_cond_timedwait"))),
        HangClass.PYTHON_LOOP,
        "no C code",
    ),
    "a loop that does nothing": (
        runs(plain(), frames=(Frame(function="f", file="/a.py", line=1, source="while True: pass"),)),
        HangClass.PYTHON_LOOP,
        "calls nothing",
    ),
    "backtracking": (runs(*[sample(*SRE)] * 3), HangClass.NATIVE_GIL, "_sre_SRE_Pattern_match()"),
    "twice is chance": (runs(*[sample(*SRE)] * 2), HangClass.UNKNOWN, "do not tell"),
    "an extension": (runs(*[sample(c("spin", "/x.so"))] * 2), HangClass.NATIVE_GIL, "spin()"),
    "re, as far as can be seen": (
        runs(*[Sample((MATCH, USER))] * 3, frames=(MATCH, USER)),
        HangClass.NATIVE_GIL,
        "re.match()",
    ),
    "C code without the GIL": (runs(plain(gil=False), plain(gil=False)), HangClass.NATIVE, "without the GIL"),
    "one stack": (runs(plain()), HangClass.UNKNOWN, "do not tell"),
    "C code that sleeps with the GIL": (
        blocked("clock_nanosleep", owners=(1,), holds_gil=True),
        HangClass.NATIVE_GIL,
        "holds the GIL in C code, blocked in clock_nanosleep()",
    ),
    "another thread keeps the GIL": (
        blocked(
            "futex",
            owners=(2, 2),
            others=(Thread(id=2, name="io", holds_gil=True),),
            motions={2: RESTS},
            looks={2: ThreadLook(2, "io", "S", "", "clock_nanosleep")},
        ),
        HangClass.NATIVE_GIL,
        "thread 'io' holds the GIL in C code",
    ),
    "another thread spins in C with the GIL": (
        blocked(
            "futex",
            others=(Thread(id=2, name="io", holds_gil=True, frames=(USER,)),),
            motions={2: RUNS},
            samples={2: tuple([sample(c("spin", "/x.so"))] * 2)},
        ),
        HangClass.NATIVE_GIL,
        "thread 'io'",
    ),
    "another thread is in a Python loop": (
        blocked(
            "futex",
            WITH,
            others=(Thread(id=2, name="io", holds_gil=True, frames=(USER,)),),
            motions={2: RUNS},
            samples={2: (plain(3), plain(4))},
        ),
        HangClass.LOCK,
        "MainThread waits for a lock",
    ),
    "queue.get": (
        blocked("futex", lib("threading.py", "Condition.wait"), lib("queue.py", "Queue.get"), USER),
        HangClass.LOCK,
        "get() of queue.py",
    ),
    "an import that waits for another": (
        blocked("futex", Frame(function="acquire", file="<frozen importlib._bootstrap>"), USER),
        HangClass.LOCK,
        "acquire()",
    ),
    "with a lock": (blocked("futex", WITH), HangClass.LOCK, "MainThread waits for a lock"),
    "a lock without its source": (
        blocked("futex", samples={1: (sample(c("0x7f", "libc.so.6"), c("PyThread_acquire_lock_timed"), gil=False),)}),
        HangClass.LOCK,
        "PyThread_acquire_lock_timed()",
    ),
    "C code's own lock": (
        blocked("futex", samples={1: (sample(c("wait", "/lib/libc.so.6"), c("join_all", "/x.so"), gil=False),)}),
        HangClass.NATIVE,
        "join_all()",
    ),
    "a collective": (
        blocked("futex", Frame(function="all_reduce", file=TORCH + "distributed_c10d.py", line=1), USER),
        HangClass.NETWORK,
        "all_reduce() of torch/distributed",
    ),
    "a collective that was started before": (
        blocked("futex", samples={1: (sample(c("c10d::Work::wait", "/x.so"), gil=False),)}),
        HangClass.NETWORK,
        "other ranks",
    ),
    "a collective, by its threads": (
        blocked(
            "futex",
            Frame(function="f", file="/a.py", line=1, source="work.wait()"),
            looks={3: ThreadLook(3, "pt_gloo_runloop")},
        ),
        HangClass.NETWORK,
        "torch.distributed",
    ),
    "any futex": (blocked("futex"), HangClass.UNKNOWN, "does not tell"),
    "recv": (blocked("recvfrom", targets=(TCP,)), HangClass.NETWORK, "recvfrom() on tcp a:1 -> b:2"),
    "read of a socket": (blocked("read", targets=(TCP,)), HangClass.NETWORK, "read() on tcp"),
    "read of a pipe": (blocked("read", targets=(PIPE,)), HangClass.PIPE, "read() on a pipe"),
    "a named pipe": (
        blocked("read", targets=(Target("file", "/run/fifo"),), wchan="pipe_read"),
        HangClass.PIPE,
        "/run/fifo",
    ),
    "a terminal": (
        blocked("read", targets=(Target("terminal", "/dev/pts/0"),), wchan="n_tty_read"),
        HangClass.UNKNOWN,
        "/dev/pts/0",
    ),
    "poll": (blocked("poll", targets=(PIPE, TCP)), HangClass.NETWORK, "poll() on tcp"),
    "poll of a child": (blocked("poll", targets=(Target("pidfd", "pidfd"),)), HangClass.CHILD, "pidfd"),
    "select on nothing": (blocked("pselect6", targets=()), HangClass.SLEEP, "on nothing"),
    "poll on who knows": (blocked("poll", targets=None), HangClass.UNKNOWN, "poll()"),
    "a child": (
        blocked("wait4", lib("subprocess.py", "Popen._wait"), USER, children=("sleep (pid 5)",)),
        HangClass.CHILD,
        "sleep (pid 5)",
    ),
    "a child's output": (
        blocked("poll", lib("selectors.py", "select"), lib("subprocess.py", "_communicate"), USER, targets=(PIPE,)),
        HangClass.CHILD,
        "subprocess.py",
    ),
    "a call without a name": (blocked("syscall 462"), HangClass.UNKNOWN, "waits in system call 462"),
    "sleep": (blocked("clock_nanosleep"), HangClass.SLEEP, "clock_nanosleep()"),
    "flock": (blocked("flock", targets=(Target("file", "/x"),)), HangClass.LOCK, "flock() on /x"),
    "an idle event loop": (
        blocked("epoll_wait", *LOOP, targets=(WAKE_UP,), arguments=NEVER),
        HangClass.LOCK,
        "watches nothing and has no timer",
    ),
    "an event loop with a timer": (
        blocked("epoll_wait", *LOOP, targets=(WAKE_UP,), arguments=(5, 0, 9, 1000, 0, 0)),
        HangClass.UNKNOWN,
        "it has a timer",
    ),
    "an event loop that reads": (
        blocked("epoll_wait", *LOOP, targets=(WAKE_UP, TCP), arguments=NEVER),
        HangClass.NETWORK,
        "watches tcp",
    ),
    "an event loop that ran a moment ago": (
        blocked("epoll_wait", *LOOP, targets=(WAKE_UP,), arguments=NEVER, motions={1: STAYS}),
        HangClass.UNKNOWN,
        "epoll_wait() on a unix socket",
    ),
    "an event loop that reads, and ran a moment ago": (
        blocked("epoll_wait", *LOOP, targets=(WAKE_UP, TCP), arguments=NEVER, motions={1: STAYS}),
        HangClass.NETWORK,
        "tcp a:1",
    ),
    "an event loop, unseen": (blocked("", *LOOP), HangClass.UNKNOWN, "event loop is idle"),
    "a line that sleeps, unseen": (
        blocked("", Frame(function="f", file="/a.py", line=1, source="time.sleep(9)")),
        HangClass.SLEEP,
        "MainThread sleeps, as its line says",
    ),
    "a line that could be anything, unseen": (
        blocked("", Frame(function="f", file="/a.py", line=1, source="s.recv(1); time.sleep(9)")),
        HangClass.UNKNOWN,
        "asleep",
    ),
    "nothing at all": (Symptoms(), HangClass.UNKNOWN, ""),
}


@pytest.mark.parametrize("case", CASES)
def test_the_class_follows_from_the_facts(case):
    """Each set of facts has its class, and the facts tell why."""
    symptoms, expected, why = CASES[case]
    hang, facts = classify(symptoms)
    assert (hang, why in "\n".join(facts)) == (expected, True), facts
    assert len(facts) == len(set(facts))


def test_no_fact_is_told_twice():
    """That it sleeps follows from what it waits for; who keeps the GIL in C code is said to hold it."""
    unseen = blocked("", Frame(function="f", file="/a.py", line=1, source="time.sleep(9)"))
    assert classify(unseen)[1] == ("MainThread sleeps, as its line says",)
    keeps = blocked("clock_nanosleep", owners=(1,), holds_gil=True)
    assert classify(keeps)[1] == ("MainThread holds the GIL in C code, blocked in clock_nanosleep()",)
    assert classify(blocked("futex", WITH))[1] == ("MainThread waits for a lock", "it is in futex()")


def test_a_call_without_a_name_has_a_number():
    """It is told as one, not as a function."""
    nameless = blocked("syscall 462", lib("threading.py", "Condition.wait"), owners=(1,))
    assert "blocked in system call 462" in classify(nameless)[1][0]


@pytest.mark.parametrize("call", sorted(calls._BY_NAME))
def test_each_call_has_a_class(call):
    """A thread that is blocked in a call whose name says what it waits for."""
    assert classify(blocked(call))[0] is calls._BY_NAME[call]


def test_a_moment_with_the_gil_is_no_hang():
    """Two dumps that show two owners, or one dump of a thread that was run since, say nothing."""
    assert running.owner(blocked("futex", owners=(1, 0))) is None
    was_run = {1: Motion(("S", "S"), rests=True, stayed=True, turns=3)}
    symptoms = blocked("futex", owners=(1,), motions=was_run)
    assert running.owner(symptoms) is None
    assert running.wants_owner_again(symptoms)
    assert not running.wants_owner_again(blocked("futex", owners=(1,)))


def test_more_stacks_are_wanted_where_they_tell_more():
    """Of a thread that runs, and of a futex that nobody names; not of one that is known."""
    assert running.suspect(runs(plain())) == 1
    assert running.suspect(blocked("read")) == 0
    assert calls.wants_native(blocked("futex"))
    assert not calls.wants_native(blocked("futex", WITH))
    assert not calls.wants_native(blocked("read"))


def test_two_looks_make_a_motion():
    """Shares are those of the window; a thread without a turn has waited all the time."""
    before = ThreadLook(1, state="R", cpu=1.0, delayed=1.0, turns=5)
    ran = motion(before, dataclasses.replace(before, cpu=1.5, delayed=1.25, turns=9), 1.0)
    assert (ran.cpu, ran.waited, ran.turns, ran.rests) == (0.5, 0.25, 4, False)
    assert motion(before, before, 1.0).waited == 1.0
    awake = dataclasses.replace(before, sleeps=3)
    assert motion(awake, dataclasses.replace(awake, turns=9, cpu=1.1), 1.0).waited == pytest.approx(0.9)
    slept = dataclasses.replace(before, state="S", syscall="read", arguments=(3,))
    assert motion(slept, dataclasses.replace(slept, syscall="restart_syscall"), 1.0).stayed
    assert motion(slept, slept, 1.0).rests
    assert motion(slept, slept, 0.0).states == ("S", "S")


frames = st.sampled_from([USER, WITH, MATCH, *LOOP, c("x"), lib("queue.py", "get"), lib("subprocess.py", "_wait")])
threads = st.builds(
    Thread,
    id=st.integers(0, 3),
    frames=st.lists(frames, max_size=4).map(tuple),
    holds_gil=st.sampled_from([None, True, False]),
)
motions = st.builds(
    Motion,
    states=st.tuples(*[st.sampled_from("RSDTt")] * 2),
    cpu=st.floats(0, 1),
    waited=st.floats(0, 1),
    turns=st.integers(-1, 3),
    stayed=st.booleans(),
    rests=st.booleans(),
)
syscalls = st.sampled_from(["", "running", "futex", "poll", "epoll_wait", "read", "syscall 7", *calls._BY_NAME])
looks = st.builds(
    ThreadLook,
    id=st.integers(0, 3),
    state=st.sampled_from("RSDTt"),
    syscall=syscalls,
    arguments=st.sampled_from([(), NEVER, (0,) * 6]),
)
targets = st.builds(
    Target, kind=st.sampled_from(["tcp", "unix", "pipe", "pidfd", "file", ""]), name=st.text(max_size=3)
)
samples = st.builds(
    Sample, frames=st.lists(frames, max_size=3).map(tuple), native=st.booleans(), holds_gil=st.booleans()
)


@given(
    st.builds(
        Symptoms,
        threads=st.lists(threads, max_size=3).map(tuple),
        motions=st.dictionaries(st.integers(0, 3), motions, max_size=3),
        looks=st.dictionaries(st.integers(0, 3), looks, max_size=3),
        window=st.floats(0, 2),
        targets=st.none() | st.lists(targets, max_size=3).map(tuple),
        owners=st.lists(st.integers(0, 3), max_size=3).map(tuple),
        samples=st.dictionaries(st.integers(0, 3), st.lists(samples, max_size=4).map(tuple), max_size=3),
        major_faults=st.integers(0, 50),
        symbols=st.booleans(),
    )
)
def test_any_facts_have_a_class(symptoms):
    """Whatever was found, there is a class, and asking for more never fails."""
    hang, facts = classify(symptoms)
    assert isinstance(hang, HangClass)
    assert all(isinstance(fact, str) for fact in facts)
    running.suspect(symptoms)
    running.wants_owner_again(symptoms)
    calls.wants_native(symptoms)


def test_a_sleep_that_another_thread_may_prolong_is_not_decided_by_its_line():
    """Nobody sees the system call; what was a short sleep may be the wait for the GIL behind it."""
    line = Frame(function="main", file="/app/main.py", line=3, source="time.sleep(0.01)")
    thread = Thread(id=7, name="MainThread", frames=(line,))
    looks = {7: ThreadLook(7, state="S")}
    motions = {7: Motion(("S", "S"), rests=True)}
    alone = Symptoms(threads=(thread,), looks=looks, motions=motions)
    assert classify(alone)[0] is HangClass.SLEEP
    other = Thread(id=8, frames=(line,))
    assert classify(Symptoms(threads=(thread, other), looks=looks, motions=motions))[0] is HangClass.UNKNOWN
