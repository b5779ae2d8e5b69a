"""Looking at a watchdog from another process: it says who is there and what has happened, the pages are read here."""

from __future__ import annotations

import collections
import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import msgspec

from unhang._core.duration_pages import DurationReader
from unhang._core.durations import is_of_durations
from unhang._core.histogram import Durations
from unhang._core.messages import VIEW, MessageError, refusal
from unhang._core.page import PageError
from unhang._core.page_reader import PageReader
from unhang._core.timer_reader import TimerReader
from unhang._platform import memfd
from unhang._platform.address import check_address
from unhang._platform.credentials import peer_credentials
from unhang.errors import ViewError
from unhang.observe.picture import Armed, Picture, Row
from unhang.report.live import Ask, Event, News, WorkerInfo
from unhang.report.model import Report

# Bytes of an answer and descriptors that come with it: a watchdog sends fewer.
_LONGEST = 1 << 20
_MOST_DESCRIPTORS = 253
_RECENT = 200
_MOST_ARMED = 8
# The number of an event that is still to come.
_AT_END = 1 << 62
# Scopes of which it is known how long their blocks took.
_MOST_SCOPES = 4096
_SECOND = 1e9
_TOO_FEW = "the pages of its workers cannot all be had here ({}): raise the limit of open files (ulimit -n)"


class RefusedError(ViewError):
    """A watchdog is there, and answers that it will not be looked at."""


@dataclass(eq=False, slots=True)
class _Connection:
    """One connection of a worker, whose pages are mapped here."""

    info: WorkerInfo
    pages: list[PageReader] = field(default_factory=list)
    durations: list[DurationReader] = field(default_factory=list)
    before: dict[str, Durations] = field(default_factory=dict)
    mapped: int = 0
    is_known: bool = False  # whether it was told of before

    def map(self, fd: int) -> None:
        """Map one more page; one that holds nonsense is left out.

        Raises:
            OSError: there are not enough descriptors, or not enough memory.
        """
        is_old = self.info.returned and not self.is_known
        with contextlib.suppress(ValueError, PageError):
            memory = memoryview(memfd.map_to_read(fd))
            if is_of_durations(memory):
                self.durations.append(DurationReader(memory))
                if is_old:
                    self.before |= dict(self.durations[-1].scopes())
            else:
                self.pages.append(PageReader(memory))
        self.mapped += 1

    def learned(self, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Durations]]:
        """How long its blocks took, by scope; without what had been told to another viewer before."""
        for page in self.durations:
            for scope, durations in page.scopes(wanted):
                before = self.before.get(scope)
                yield scope, durations if before is None else durations.minus(before)


class _Worker:
    """A worker: a process, with all its connections."""

    def __init__(self) -> None:
        self.connections: dict[int, _Connection] = {}
        self.timers = TimerReader()
        self._deadlines: list[list[int]] = []
        self._sequence: int | None = None
        self._gone = 0  # the sequence of connections that were closed
        self._inherited = 0
        self._changed_at = 0.0
        self._looked = 0.0

    def take(self, info: WorkerInfo, fds: list[int]) -> None:
        """It is told of a connection, with its pages.

        Raises:
            OSError: they cannot all be mapped.
        """
        connection = self.connections.setdefault(info.connection, _Connection(info))
        connection.info = info
        known = len(connection.pages)
        try:
            for fd in fds[connection.mapped :]:
                connection.map(fd)
        finally:
            for page in connection.pages[known:]:
                self.timers.add(page)
                if info.returned and not connection.is_known:
                    self._inherited += page.sequence
        connection.is_known = True

    def row(self, now: float) -> Row:
        """As it is now."""
        self.timers.earliest()
        found, count = self.timers.nearest(_MOST_ARMED)
        blocks = tuple(
            Armed(
                scope=seen.scope,
                after=seen.timeout / _SECOND,
                running=now - seen.armed_at / _SECOND,
                left=seen.deadline / _SECOND - now,
                thread=seen.thread,
            )
            for seen in found
        )
        infos = [connection.info for connection in self.connections.values()]
        info = infos[-1]
        rate = self._moved(now, [info.changed_at, info.joined, *(now - block.running for block in blocks)])
        return Row(
            info=info,
            armed=blocks,
            timers=count,
            sequence=self._sequence or 0,
            inherited=self._inherited,
            observed=all(each.observed for each in infos),
            rate=rate,
            idle=max(0.0, now - self._changed_at),
        )

    def _moved(self, now: float, before_now: list[float]) -> float | None:
        """Take down whether it has moved; returns how often a second its timers were armed since the last look."""
        before, self._sequence = self._sequence, self._gone + self.timers.sequence
        deadlines = self.timers.deadlines
        if before is None:
            self._changed_at = max(before_now)
        elif deadlines != self._deadlines or self._sequence != before:
            self._changed_at = now
        self._deadlines = deadlines
        elapsed, self._looked = now - self._looked, now
        return None if before is None or elapsed <= 0 else max(0, self._sequence - before) / elapsed

    def forget(self, number: int) -> None:
        """One of its connections is closed: its timers go with it."""
        connection = self.connections.pop(number)
        self._gone += sum(page.sequence for page in connection.pages)
        self.timers.remove(connection.pages)
        for durations in connection.durations:
            durations.close()


class View:
    """A viewer's connection to a watchdog. Not thread-safe.

    The watchdog answers with what is new; what workers do is read from their pages, which costs it nothing. Nothing
    here can change a page, or keep the watchdog waiting.

    Args:
        address: the path of its socket.
        patience: seconds to wait for an answer.
        history: how many events of before to begin with; None: all that it still knows.

    Raises:
        ViewError: nobody listens there, or it refuses.
        AddressError: the address is not safe.
    """

    def __init__(self, address: str, patience: float = 2.0, history: int | None = _RECENT) -> None:
        self.address = address
        self._patience = patience
        self._workers: dict[int, _Worker] = {}
        self._departed: dict[str, Durations] = {}
        self._recent: collections.deque[Event] = collections.deque(maxlen=_RECENT)
        self._serial = 0 if history is None else -history or _AT_END
        self._revision = 0
        self._missed = 0
        self._stacks = 0
        self._leaving: set[int] = set()
        # While workers are listed again: those that were not, so far.
        self._is_listing = False
        self._unlisted: set[tuple[int, int]] = set()
        self._socket = _connect(address, patience)

    def look(self) -> Picture:
        """All as it is now.

        Raises:
            ViewError: the watchdog is gone, does not answer in time, or refuses; or not all pages of its workers can be
                had, so that what they do is not known.
        """
        give_up = time.monotonic() + self._patience
        events: list[Event] = []
        stacks: Report | None = None
        no_stacks = ""
        while True:
            news = self._ask(give_up)
            events += news.events
            stacks, no_stacks = news.stacks or stacks, news.no_stacks or no_stacks
            if not news.more and not self._is_listing:
                break
            if time.monotonic() > give_up:
                raise ViewError(self.address, "it has more to tell than there is time for: it gets no processor time")
        self._recent += events
        now = time.monotonic()
        rows = tuple(self._workers[number].row(now) for number in sorted(self._workers))
        return Picture(
            at=now,
            watchdog=news.watchdog,
            rows=rows,
            events=tuple(events),
            recent=tuple(self._recent),
            missed=self._missed,
            stacks=stacks,
            no_stacks=no_stacks,
        )

    def ask_stacks(self, number: int) -> None:
        """Have the stacks of a worker taken, without disturbing it: they come with a later look.

        Args:
            number: `unhang.report.live.WorkerInfo.number`.
        """
        self._stacks = number

    def _ask(self, give_up: float) -> News:
        stacks, self._stacks = self._stacks, 0
        ask = Ask(serial=self._serial, revision=self._revision, stacks=stacks)
        answer, fds, is_cut = self._exchange(VIEW + msgspec.json.encode(ask), give_up)
        try:
            news = self._read(answer)
            if is_cut or len(fds) < sum(info.pages for info in news.workers):
                raise ViewError(self.address, _TOO_FEW.format(f"only {len(fds)} have come"))
            self._take(news, fds)
        except OSError as error:
            raise ViewError(self.address, _TOO_FEW.format(error.strerror)) from error
        finally:
            for fd in fds:
                os.close(fd)
        self._list_again_if_missed(news)
        self._serial = news.serial
        return news

    def _exchange(self, message: bytes, give_up: float) -> tuple[bytes, list[int], bool]:
        """Ask; returns the answer, the descriptors with it, and whether some of them are missing."""
        try:
            self._socket.settimeout(max(0.01, give_up - time.monotonic()))
            self._socket.send(message)
            answer, fds, flags, _ = socket.recv_fds(self._socket, _LONGEST, _MOST_DESCRIPTORS)
        except TimeoutError:
            raise ViewError(self.address, "it does not answer: it is stopped, or gets no processor time") from None
        except OSError as error:
            raise ViewError(self.address, f"it has hung up ({error})") from error
        return answer, fds, bool(flags & socket.MSG_CTRUNC)

    def _read(self, answer: bytes) -> News:
        if not answer:
            raise ViewError(self.address, "it has hung up: it ends, or is another version of unhang")
        try:
            if answer[:1] != b"{":
                raise RefusedError(self.address, refusal(answer) or "it does not answer as a watchdog does")
            return msgspec.json.decode(answer, type=News)
        except (ValueError, MessageError) as error:
            raise ViewError(self.address, f"it has hung up ({error})") from error

    def _list_again_if_missed(self, news: News) -> None:
        if news.missed and self._serial > 0:
            # Some may have left meanwhile, and nobody will say so any more: all who are there are listed again.
            self._missed += news.missed
            self._revision, self._is_listing = 0, True
            self._unlisted = {
                (number, connection) for number, worker in self._workers.items() for connection in worker.connections
            }
        elif self._is_listing and not news.more:
            self._is_listing = False
            for number, connection in self._unlisted:
                self._forget(number, connection)
            self._unlisted = set()

    def _take(self, news: News, fds: list[int]) -> None:
        rest = list(fds)
        for info in news.workers:
            own, rest = rest[: info.pages], rest[info.pages :]
            self._workers.setdefault(info.number, _Worker()).take(info, own)
            # Not before: what could not be mapped is asked for again.
            self._revision = info.revision
            self._unlisted.discard((info.number, info.connection))
            if info.left is not None:
                self._forget(info.number, info.connection)
        self._leaving |= {event.number for event in news.events if event.event == "disconnect"}
        if not news.more:
            # Not before: one that has left may still be listed, with its pages, behind the event that says so.
            for number in self._leaving:
                self._forget_worker(number)
            self._leaving = set()

    def _forget_worker(self, number: int) -> None:
        worker = self._workers.get(number)
        for connection in list(worker.connections) if worker is not None else ():
            self._forget(number, connection)

    def _forget(self, number: int, connection: int) -> None:
        worker = self._workers.get(number)
        if worker is None or connection not in worker.connections:
            return
        _merge(self._departed, worker.connections[connection])
        worker.forget(connection)
        if not worker.connections:
            del self._workers[number]

    def durations(self) -> dict[str, Durations]:
        """How long blocks took since this view began, by scope, if workers learn that; of those that left, too.

        Of 4096 scopes, the first that were seen.
        It is read from the pages as they are now; `look` says who has come and gone.
        """
        found = dict(self._departed)
        for worker in self._workers.values():
            for connection in worker.connections.values():
                _merge(found, connection)
        return found

    def _forget_all(self) -> None:
        for number in list(self._workers):
            self._forget_worker(number)
        self._revision = 0

    def close(self) -> None:
        """Hang up. May be called twice."""
        self._forget_all()
        self._socket.close()


def _merge(into: dict[str, Durations], connection: _Connection) -> None:
    """Add what a worker has learned. Scopes beyond those that there is room for are not even read."""

    def wanted(scope: str) -> bool:
        return scope in into or len(into) < _MOST_SCOPES

    for scope, durations in connection.learned(wanted):
        into[scope] = into[scope].merge(durations) if scope in into else durations


def _connect(address: str, patience: float) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.settimeout(patience)
        connection.connect(check_address(address))
        _, user = peer_credentials(connection)
    except BaseException as error:
        connection.close()
        if isinstance(error, OSError):
            raise ViewError(address, _why(error)) from error
        raise
    if user not in {os.geteuid(), 0} and os.geteuid() != 0:
        connection.close()
        raise ViewError(address, f"user {user} listens there, not you")
    return connection


def _why(error: OSError) -> str:
    if isinstance(error, (ConnectionRefusedError, FileNotFoundError)):
        return "nobody listens there; start one with `unhang run` or `unhang serve`"
    if isinstance(error, BlockingIOError):
        return "it is busy: its queue of connections is full"
    return str(error.strerror or error)
