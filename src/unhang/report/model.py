"""What a report holds: one JSON document about one incident.

An incident is one hang: the workers of one job whose timers expired together, and the others of that job beside them.
Times are seconds; instants (``at``, ``started``) count from the first expiry of the incident, negative before it.
Everything is frozen, so a report can be handed to other threads. `Report` is the document; docs/report-schema.json is
its JSON schema.
"""

from __future__ import annotations

import enum
import inspect
from typing import Any

import msgspec

from unhang.report.jsons import encoded

VERSION = 1


class HangClass(enum.StrEnum):
    """What a worker was doing while it hung."""

    PYTHON_LOOP = "python loop"
    NATIVE_GIL = "native call that keeps the GIL"
    NATIVE = "native call without the GIL"
    LOCK = "lock"
    NETWORK = "network"
    PIPE = "pipe"
    CHILD = "child process"
    SLEEP = "sleep"
    DISK = "disk"
    STOPPED = "stopped"
    DEBUGGER = "in a debugger"
    STARVED = "starved"
    UNKNOWN = "unknown"


class Sure(enum.StrEnum):
    """How sure a verdict is."""

    CERTAIN = "certain"
    LIKELY = "likely"
    CANNOT_TELL = "can't tell"


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """One call of a stack.

    Attributes:
        function: its name.
        file: the path of its source; of the shared object for native frames.
        line: the number of the line, 0 if it is not known.
        source: the text of that line, if it could be read.
        native: whether it is C code.
    """

    function: str
    file: str
    line: int = 0
    source: str = ""
    native: bool = False


class Thread(msgspec.Struct, frozen=True, kw_only=True):
    """One thread of a worker.

    Attributes:
        id: the kernel's number of it; that of the main thread is the pid. 0 if it is not known.
        name: what Python or the kernel calls it.
        frames: its stack, the innermost call first.
        holds_gil: whether it holds the GIL; None if that is not known.
        state: the kernel's letter: R running, S asleep, D in an uninterruptible wait, T stopped, t traced.
        wchan: the function of the kernel that it waits in, if that may be read.
        syscall: the name of the system call that it is in, if that may be read.
    """

    id: int = 0
    name: str = ""
    frames: tuple[Frame, ...] = ()
    holds_gil: bool | None = None
    state: str = ""
    wchan: str = ""
    syscall: str = ""


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """What procfs says about a worker.

    Attributes:
        command: its command line, cut.
        state: as `Thread.state`, of the main thread.
        window: seconds between the two looks at it that the next two are about.
        cpu: the share of one processor that it used.
        waited: the share of the time in which its busiest thread was ready to run and was not run.
        cpu_time: seconds of processor time since it was started.
        memory: bytes of resident memory.
        swapped: bytes of swapped memory.
        major_faults: pages that it read from disk between the two looks.
        threads: how many threads it has.
        tracer: the pid of the debugger that holds it, or 0.
    """

    command: str = ""
    state: str = ""
    window: float = 0.0
    cpu: float = 0.0
    waited: float = 0.0
    cpu_time: float = 0.0
    memory: int = 0
    swapped: int = 0
    major_faults: int = 0
    threads: int = 0
    tracer: int = 0


class Socket(msgspec.Struct, frozen=True, kw_only=True):
    """An open socket: ``tcp`` or ``udp``, its two addresses as ``host:port``, and the state of the connection."""

    kind: str
    local: str
    remote: str = ""
    status: str = ""


class Child(msgspec.Struct, frozen=True, kw_only=True):
    """A process that a worker has started."""

    pid: int
    name: str
    state: str = ""


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """One timer of a worker.

    Attributes:
        scope: its name.
        after: its timeout.
        started: when it was armed or restarted last.
        expired: whether it has expired.
        due: whether the report is about it: it has expired, or its pretimeout has come.
        finished: whether its block was left; when, is not known, but for the next block of the same worker.
        count: how often the worker has armed timers of this scope; 0 if that is not known.
        deadline: when it expires, with what was given back to it.
    """

    scope: str
    after: float
    started: float
    expired: bool = False
    finished: bool = False
    due: bool = False
    count: int = 0
    deadline: float = 0.0


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """What was done about a worker, such as ``SIGTERM``, ``SIGKILL``, ``dead``, ``spared``, ``unkillable``."""

    at: float
    what: str


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What was found in and around one worker.

    Attributes:
        at: when.
        took: seconds that it took.
        threads: the thread of the expired block first, if it is known; then the main thread.
        stacks_from: ``py-spy``, ``faulthandler``, or empty if there are no stacks.
        without: why something is missing, one reason a line.
        hang: the class of the hang.
        facts: what the class rests on, a phrase each.
        waits_for: the addresses, as ``host:port``, that it waits to hear from; ``torch.distributed`` if it waits there.
        process: what procfs says.
        sockets: those that are open, not all if there are many.
        children: its child processes, not all if there are many.
        stderr: the end of what it wrote to its standard error, if that could be had.
    """

    at: float = 0.0
    took: float = 0.0
    threads: tuple[Thread, ...] = ()
    stacks_from: str = ""
    without: tuple[str, ...] = ()
    hang: HangClass = HangClass.UNKNOWN
    facts: tuple[str, ...] = ()
    waits_for: tuple[str, ...] = ()
    process: Process = Process()
    sockets: tuple[Socket, ...] = ()
    children: tuple[Child, ...] = ()
    stderr: str = ""


class Worker(msgspec.Struct, frozen=True, kw_only=True):
    """One worker of the job.

    Attributes:
        pid: as its watchdog sees it.
        rank: its rank in the job, if it has one.
        local_rank: its rank on its host, if it has one.
        host: the name of its host.
        attempt: which start of the job this is, from 0, if its launcher counts.
        expired: whether a timer of it has expired.
        timers: whether it has ever armed any; else it is only a process of the command.
        sequence: how often its timers have been armed or restarted, all together.
        idle: seconds since it armed, restarted or disarmed a timer last, a second more or less.
        armed: how many of its timers are armed.
        blocks: these, the earliest armed first. Of more than 32: the first of those that the report is about, those
            that expire next, and those that were armed last.
        finished: the last blocks that it has left, the latest armed first.
        evidence: what was found; None if nobody looked.
        steps: what was done about it, in order.
        outcome: ``pending``, ``killed``, ``spared``, ``observed``, ``held``, ``refused``, ``failed``, ``unkillable``,
            ``gone`` (it ended by itself), or empty for a worker that was left alone.
        exit: how it ended, if it has and that is known: ``exit code 1``, ``SIGTERM``, ``SIGKILL (out of memory)``.
    """

    pid: int
    rank: int | None = None
    local_rank: int | None = None
    host: str = ""
    attempt: int | None = None
    expired: bool = False
    timers: bool = True
    sequence: int = 0
    idle: float = 0.0
    armed: int = 0
    blocks: tuple[Block, ...] = ()
    finished: tuple[Block, ...] = ()
    evidence: Evidence | None = None
    steps: tuple[Step, ...] = ()
    outcome: str = ""
    exit: str = ""


class Departed(msgspec.Struct, frozen=True, kw_only=True):
    """A worker of the job that had ended, or left its watchdog, before.

    Attributes:
        pid: what it was.
        rank: as `Worker.rank`.
        attempt: as `Worker.attempt`.
        at: when it left.
        exit: as `Worker.exit`.
        by_unhang: whether unhang has ended it.
        blocks: the timers that were armed then.
        sequence: as `Worker.sequence`.
    """

    pid: int
    rank: int | None = None
    attempt: int | None = None
    at: float = 0.0
    exit: str = ""
    by_unhang: bool = False
    blocks: tuple[Block, ...] = ()
    sequence: int = 0


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Who is to blame.

    Attributes:
        culprits: the pids of those that the others wait for, or that hang by themselves.
        victims: the pids of those that only wait.
        sure: how sure that is.
        why: the reason, one sentence.
    """

    culprits: tuple[int, ...] = ()
    victims: tuple[int, ...] = ()
    sure: Sure = Sure.CANNOT_TELL
    why: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The document.

    Attributes:
        unhang_report: the version of this format.
        id: names the incident; also the name of its file.
        time: the instant that all others count from, UTC, as ISO 8601.
        host: the name of the watchdog's host.
        job: what its workers have in common, if they say so.
        kind: ``expired``; ``pretimeout`` as long as nothing has expired; ``command`` if it is no block but the command
            as a whole that has taken longer than it may; ``asked`` if somebody only wanted to know.
        command: of that kind, the command, cut.
        budget: of that kind, the seconds that the command was given.
        headline: one line that says who hangs where and how.
        verdict: who is to blame.
        workers: those of the job, the culprits first, then those that have expired, then by rank.
        progressing: how many more workers of the job make progress; they are left out.
        departed: those that were gone before, the last one first.
        omitted: what was left out, and why.
        complete: whether all that was to be done has been done; the file is written before the first signal too.
        watchdog: the pid of the watchdog.
        version: of unhang.
    """

    unhang_report: int = VERSION
    id: str
    time: str
    host: str = ""
    job: str = ""
    kind: str = "expired"
    command: str = ""
    budget: float = 0.0
    headline: str = ""
    verdict: Verdict = Verdict()
    workers: tuple[Worker, ...] = ()
    progressing: int = 0
    departed: tuple[Departed, ...] = ()
    omitted: tuple[str, ...] = ()
    complete: bool = False
    watchdog: int = 0
    version: str = ""


def schema() -> dict[str, object]:
    """The JSON schema of `Report`: the same with every version of Python, which indent docstrings differently."""
    return {name: _unindented(part) for name, part in msgspec.json.schema(Report).items()}


def _unindented(part: Any) -> Any:
    if isinstance(part, str):
        return inspect.cleandoc(part)
    if isinstance(part, list):
        return [_unindented(each) for each in part]
    if isinstance(part, dict):
        return {name: _unindented(each) for name, each in part.items()}
    return part


def encode(report: Report) -> bytes:
    """The document as JSON."""
    return encoded(report)


def decode(document: bytes) -> Report:
    """The report of a JSON document.

    Raises:
        ValueError: (a `msgspec.DecodeError` or ``ValidationError``) it is none; the message says where.
    """
    return msgspec.json.decode(document, type=Report)
