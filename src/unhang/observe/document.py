"""What is known of a watchdog and its workers as one JSON document: of ``unhang status --json`` and of ``/workers``.

Unlike a `Picture` it has no instants of the monotonic clock, which only this host could read, but for those in events:
times are seconds from then to now, or until then.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime

import msgspec

from unhang.observe.picture import Armed, Picture, Row
from unhang.report.jsons import encoded
from unhang.report.live import Event

VERSION = 1
# Of a second: finer than anybody looks.
_DIGITS = 6


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """An armed timer.

    Attributes:
        scope: its name.
        after: its timeout, seconds.
        running: seconds since it was armed or restarted.
        left: seconds until its deadline; negative behind it.
        thread: the kernel's id of the thread that armed it; a hint.
    """

    scope: str
    after: float
    running: float
    left: float
    thread: int = 0


class Worker(msgspec.Struct, frozen=True, kw_only=True):
    """A worker that is connected.

    Attributes:
        number: names it, for this watchdog: from 1 on, in the order in which they came.
        pid: as the watchdog sees it.
        user: its user id.
        rank, local_rank, host, job, attempt: as it says; see `unhang.report.model.Worker`.
        observed: whether it is never to be killed.
        connected: seconds since it came.
        idle: seconds since it was seen to arm, restart or disarm a timer.
        rate: how often its timers were armed or restarted, a second, between two looks; null at the first.
        sequence: how often they were armed or restarted altogether.
        timers: how many are armed.
        left: seconds until the first of them expires; null when none is armed.
        running: seconds that the block of that one takes already; null when none is armed.
        blocks: the timers that are armed, the nearest to expiry first; 8 at most.
    """

    number: int
    pid: int
    user: int | None
    rank: int | None
    local_rank: int | None
    host: str
    job: str
    attempt: int | None
    observed: bool
    connected: float
    idle: float
    rate: float | None
    sequence: int
    timers: int
    left: float | None
    running: float | None
    blocks: tuple[Block, ...]


class Watchdog(msgspec.Struct, frozen=True, kw_only=True):
    """The watchdog.

    Attributes:
        pid: its process.
        version: of unhang.
        host: the name of its host.
        address: where it listens.
        up: seconds since it was started.
        looked: seconds since its loop turned last.
        turns, busy, longest, overslept, overslept_time, dropped, workers, observe: as in
            `unhang.report.live.Watchdog`.
    """

    pid: int
    version: str
    host: str
    address: str
    up: float
    looked: float
    turns: int
    busy: float
    longest: float
    overslept: int
    overslept_time: float
    dropped: dict[str, int]
    workers: int
    observe: bool


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """All of it, at one moment.

    Attributes:
        version: of this format.
        time: when, UTC, as ISO 8601 with milliseconds.
        watchdog: the watchdog.
        workers: those that are connected, by number.
        events: the last 200, the oldest first; see `unhang.report.live.Event`.
        missed: events that were forgotten before they were asked for.
    """

    version: int
    time: str
    watchdog: Watchdog
    workers: tuple[Worker, ...]
    events: tuple[Event, ...]
    missed: int


def document(picture: Picture) -> Document:
    """What was seen at one look; its ``time`` is now."""
    return Document(
        version=VERSION,
        time=datetime.now(UTC).isoformat(timespec="milliseconds"),
        watchdog=_watchdog(picture),
        workers=tuple(_worker(row, picture.at) for row in picture.rows),
        events=picture.recent,
        missed=picture.missed,
    )


def encode(found: Document) -> bytes:
    """As JSON."""
    return encoded(found)


def decode(text: bytes) -> Document:
    """The document of its JSON.

    Raises:
        ValueError: (a `msgspec.DecodeError` or ``ValidationError``) it is none; the message says where.
    """
    return msgspec.json.decode(text, type=Document)


def _watchdog(picture: Picture) -> Watchdog:
    seen = picture.watchdog
    return Watchdog(
        pid=seen.pid,
        version=seen.version,
        host=seen.host,
        address=seen.address,
        up=_since(seen.started, picture.at),
        looked=_since(seen.looked, picture.at),
        turns=seen.turns,
        busy=round(seen.busy, _DIGITS),
        longest=round(seen.longest, _DIGITS),
        overslept=seen.overslept,
        overslept_time=round(seen.overslept_time, _DIGITS),
        dropped=seen.dropped,
        workers=seen.workers,
        observe=seen.observe,
    )


def _worker(row: Row, at: float) -> Worker:
    info = row.info
    return Worker(
        number=info.number,
        pid=info.pid,
        user=info.user,
        rank=info.rank,
        local_rank=info.local_rank,
        host=info.host,
        job=info.job,
        attempt=info.attempt,
        observed=row.observed,
        connected=_since(info.joined, at),
        idle=round(row.idle, _DIGITS),
        rate=None if row.rate is None else round(row.rate, _DIGITS),
        sequence=row.sequence,
        timers=row.timers,
        left=round(row.left, _DIGITS) if math.isfinite(row.left) else None,
        running=round(row.armed[0].running, _DIGITS) if row.armed else None,
        blocks=tuple(_block(armed) for armed in row.armed),
    )


def _block(armed: Armed) -> Block:
    return Block(
        scope=armed.scope,
        after=round(armed.after, _DIGITS),
        running=round(armed.running, _DIGITS),
        left=round(armed.left, _DIGITS),
        thread=armed.thread,
    )


def _since(instant: float, at: float) -> float:
    return round(max(0.0, at - instant), _DIGITS)
