"""What a watchdog tells of itself while it runs: events, and the news that viewers ask for.

Instants are seconds of the monotonic clock, which all processes of a host share, unless they are called ``time``.
Everything is frozen, so it can be handed to other threads.
"""

from __future__ import annotations

import msgspec

from unhang.report.model import Report

VERSION = 1


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that happened, with what is known of it; what is not known is left out.

    Attributes:
        time: when, UTC, as ISO 8601 with milliseconds.
        event: what: ``started``, ``stopped`` (the watchdog); ``connect``, ``disconnect`` (a worker);
            ``lost watchdog`` (a worker is back that was not watched for a while); ``report`` (one was made or added
            to); and those of ``on_event`` of `unhang.SharedTimerServer`: ``killed``, ``ended``, ``unkillable``,
            ``expired``, ``pretimeout``, ``near miss``, ``held``, ``refused``, ``failed``, ``died``, ``overslept``.
        at: when, monotonic seconds.
        pid: the worker's.
        number: of the worker, for this watchdog: a pid may be used again.
        rank, host, job, attempt: as the worker says; see `unhang.report.model.Worker`.
        scope: of the timer that it is about; the earliest, if there are several.
        timers: how many timers it is about.
        after: the timeout of that timer.
        running: seconds since it was armed.
        late: seconds from its deadline until it was judged; for ``overslept``, those that were given back.
        waited: for ``killed``: seconds from its deadline until the first signal was sent.
        signal: for ``killed`` the name of that signal; for ``ended`` and ``unkillable`` that of the last one.
        hang: for those: the class of the hang, if evidence was gathered; see `unhang.report.model.HangClass`.
        report: for ``report``: the id of the report.
        detail: more of it in words: how the worker ended, the headline of the report, the watchdog's address.
    """

    time: str
    event: str
    at: float
    pid: int | None = None
    number: int = 0
    rank: int | None = None
    host: str = ""
    job: str = ""
    attempt: int | None = None
    scope: str = ""
    timers: int = 0
    after: float | None = None
    running: float | None = None
    late: float | None = None
    waited: float | None = None
    signal: str = ""
    hang: str = ""
    report: str = ""
    detail: str = ""


class WorkerInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A worker that is connected, or has just left, with the pages of one of its connections.

    A process is one worker, and is told once for each of its clients: with the same number each time.

    Attributes:
        number: names it, for this watchdog: from 1 on, in the order in which they came.
        connection: names the connection, likewise.
        revision: grows whenever something here changes; see `Ask.revision`.
        pid: as the watchdog sees it.
        user: its user id.
        joined: when the worker came.
        changed_at: when it was seen to arm, restart or disarm a timer last; a second late at most.
        left: when the connection was closed, if it was.
        observed: whether it is never to be killed for the timers of this connection.
        returned: whether it was watched before: what stands in its pages by then may have been told already.
        pages: how many descriptors come with this message: the connection's pages, in the order in which they were
            made.
        rank, local_rank, host, job, attempt: as it says; see `unhang.report.model.Worker`.
    """

    number: int
    connection: int
    revision: int
    pid: int
    user: int | None = None
    joined: float = 0.0
    changed_at: float = 0.0
    left: float | None = None
    observed: bool = False
    returned: bool = False
    pages: int = 0
    rank: int | None = None
    local_rank: int | None = None
    host: str = ""
    job: str = ""
    attempt: int | None = None


class Watchdog(msgspec.Struct, frozen=True, kw_only=True):
    """The watchdog, at one moment.

    Attributes:
        pid: its process.
        version: of unhang.
        host: the name of its host.
        address: where it listens.
        started: when it was started.
        looked: when its loop turned last.
        turns: how often its loop has turned.
        busy: seconds that its loop has worked, altogether: what was not spent waiting.
        longest: seconds of the longest turn in the last minute or two.
        overslept: how often it was away when it should have looked.
        overslept_time: seconds that were given back for that, altogether.
        dropped: what was refused or left out, by kind: ``bad message``, ``refused``, ``silent connections``, ….
        workers: how many are connected.
        observe: whether it kills nobody.
    """

    pid: int
    version: str
    host: str
    address: str
    started: float
    looked: float
    turns: int = 0
    busy: float = 0.0
    longest: float = 0.0
    overslept: int = 0
    overslept_time: float = 0.0
    dropped: dict[str, int] = {}
    workers: int = 0
    observe: bool = False


class Ask(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a viewer asks for.

    Attributes:
        version: of these messages.
        serial: events from this number on; below 0: the last so many.
        revision: workers whose revision is greater.
        stacks: the number of a worker whose stacks are wanted; 0: of none. They come with a later answer.
    """

    version: int = VERSION
    serial: int = 0
    revision: int = 0
    stacks: int = 0


class News(msgspec.Struct, frozen=True, kw_only=True):
    """The answer; bounded, so that a viewer that is told of ``more`` asks again.

    Attributes:
        watchdog: as it is now.
        workers: those that are new or changed, by revision. Their pages come as descriptors, which can only be read.
        events: the oldest first.
        serial: the number of the event behind the last of these.
        missed: how many events were forgotten before they were asked for.
        more: whether there are more workers or events.
        stacks: what was found of the worker whose stacks were asked for, as a report with no other worker.
        no_stacks: why there are none, if they were asked for and cannot be had.
    """

    watchdog: Watchdog
    workers: tuple[WorkerInfo, ...] = ()
    events: tuple[Event, ...] = ()
    serial: int = 0
    missed: int = 0
    more: bool = False
    stacks: Report | None = None
    no_stacks: str = ""
