"""The worker's side of the channel to its watchdog: pages are handed over, and a lost watchdog is found again.

None of it may block or break the worker: a connection is tried in bounded time, not more often than once a second,
and while there is none the timers are armed all the same.
"""

from __future__ import annotations

import logging
import os
import socket
from _thread import RLock
from collections.abc import Callable, Sequence
from mmap import mmap

from unhang._core import real_time as time
from unhang._core.identity import of_environment
from unhang._core.messages import KICK, OBSERVE, PAGE, WAS_LOST, hello
from unhang._core.page import PageWriter
from unhang._platform import memfd
from unhang._platform.descriptor import Descriptor
from unhang._platform.self_report import SelfReport
from unhang._worker.connection import Connection, NotWatchedError
from unhang._worker.slot import STALE
from unhang.errors import NotSupportedError, WatchdogLostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from unhang._core.duration_pages import DurationWriter

logger = logging.getLogger("unhang")

# Seconds to wait for the watchdog's answer: at first, and when the job is under way.
_FIRST_PATIENCE = 5.0
_PATIENCE = 0.2
# Seconds between two attempts, and how many times as long as an attempt took the next one is put off.
_PAUSE = 1.0
_RARELY = 20
_REFUSED_PAUSE = 30.0
# Nanoseconds since its last look after which a watchdog that is there all the same is told as lost.
_TOO_LATE = 5_000_000_000


# Kept for ever: Python's mmap closes a descriptor of its own with it, whose number may be another one's by now.
_kept: list[mmap] = []


class _Page:
    """A page of this process, and the descriptor by which it is handed over."""

    def __init__(self, descriptor: Descriptor, memory: mmap) -> None:
        self.descriptor = descriptor
        self.memory = memory

    def close(self) -> None:
        """Give the descriptor back; the memory lives as long as somebody uses it."""
        if not self.descriptor.is_ours():
            _kept.append(self.memory)
        self.descriptor.close()


class Link:
    """A client's channel to the watchdog at an address. Thread-safe.

    Args:
        address: the path of the watchdog's socket.
        on_lost: ``"warn"`` or ``"raise"``.
        observe: whether the watchdog is asked never to kill this process.
        revive: starts the watchdog again, if this process has started it and nobody listens there any more.
    """

    def __init__(
        self, address: str, *, on_lost: str, observe: bool, revive: Callable[[str], None] | None = None
    ) -> None:
        self.address = address
        self._revive = revive
        self._raises = on_lost == "raise"
        self._flags = OBSERVE if observe else 0
        self._connection: Connection | None = None
        self._pages: list[_Page] = []
        self._self_report: SelfReport | None = None
        self._news: list[tuple[str, dict[str, object]]] = []
        self._was_left = 0
        # A signal handler may arm a timer in the middle of all this: hence the lock can be taken again.
        self._lock = RLock()
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._finding = False
        self._was_left += 1
        self._is_poor = False
        self._has_unshared = False
        self._patience = _FIRST_PATIENCE
        self._try_at = 0.0
        self._lost: str | None = None
        self._lost_at = 0
        self._watched: list[memoryview] = []
        self._was_connected = False

    def new_page(self, size: int) -> PageWriter:
        """See `Channel.new_page`."""
        try:
            fd, memory = memfd.create(size)
        except OSError as error:
            return self._without_memory(size, f"no memory can be shared with it: {memfd.why_not(error)}")
        writer = PageWriter(memoryview(memory))
        with self._lock:
            self._notice_back()
            if self._lost is None:
                # The watchdog looks as soon as it gets the page: until then nobody is late.
                writer.watched[0] = writer.watched[1] = time.monotonic_ns()
            self._share(fd, memory)
            self._watched.append(writer.watched)
            if self._connection is None:
                # Whoever arms here asks again, at once.
                writer.watched[0] = writer.watched[1] = 0
        return writer

    def new_durations(self, size: int) -> DurationWriter | None:
        """See `Channel.new_durations`."""
        from unhang._core.duration_pages import DurationWriter  # for those who learn

        try:
            fd, memory = memfd.create(size)
        except OSError:
            return None
        writer = DurationWriter(memoryview(memory))
        self._share(fd, memory)
        return writer

    def _share(self, fd: int, memory: mmap) -> None:
        page = _Page(Descriptor(fd), memory)
        with self._lock:
            self._pages.append(page)
            try:
                self._hand_over(fd)
            except BaseException:
                if page in self._pages:  # and was not left by a signal handler
                    self._pages.remove(page)
                page.close()
                raise

    def _without_memory(self, size: int, reason: str) -> PageWriter:
        """A page that nobody watches, for as long as none can be shared: the worker goes on."""
        with self._lock:
            self._is_poor = True
            self._try_at = time.monotonic() + _PAUSE
            self._is_lost(reason)
            self._has_unshared = True
        return PageWriter(bytearray(size), shared=False)

    def _hand_over(self, fd: int) -> None:
        if self._connection is not None and not self._connection.send(PAGE, [fd]):
            self._drop()
            # Who gets a new page is told by nothing else that nobody sees it.
            self._try_at = 0.0
        if self._connection is None:
            self._look_for()
        if self._is_poor and self._connection is not None:
            self._is_poor = False
            if self._lost is not None:
                self._is_back()

    def attend(self, watched: memoryview, deadline: int) -> bool | None:
        """See `Channel.attend`. A thread does not wait here for another one that looks for the watchdog."""
        if self._finding:
            return True
        # Not by acquire(): a KeyboardInterrupt right behind that call would leave it locked.
        with self._lock:
            return self._attend(watched, deadline)

    def _attend(self, watched: memoryview, deadline: int) -> bool | None:
        wake, looked = watched
        self._notice_back()
        if deadline < wake and self._connection is not None:
            if self._connection.send(KICK):
                # Later deadlines need no kick of their own; see the facts in unhang._core.page.
                watched[0] = deadline
                return True
            self._drop()
        now = time.monotonic_ns()
        unseen = now - (looked or self._lost_at or now)  # 0: nobody has seen this page
        if self._connection is None or unseen > STALE or self._has_unshared:
            if not all(page.descriptor.is_ours() for page in self._pages):
                return False
            if self._has_unshared and time.monotonic() > self._try_at:
                self._has_unshared = False
                return False
            if self._is_to_be_found(unseen):
                return None
        return True

    def find(self) -> None:
        """See `Channel.find`."""
        if self._finding:
            return
        with self._lock:
            self._look_for()

    def connect(self) -> str | None:
        """Make sure that there is a connection, if one can be had; returns why there is none, or None.

        Raises:
            WatchdogLostError: there is none, and the client was told to raise.
        """
        try:
            with self._lock:
                self._notice_back()
                if self._connection is None or not self._connection.is_alive():
                    self._find()
                return self._lost
        finally:
            self.tell()

    def _look_for(self) -> None:
        if self._is_to_be_found():
            self._find()

    def _is_to_be_found(self, unseen: int = 0) -> bool:
        """Whether it is time to look for a watchdog that has not looked for so many nanoseconds; once a second at most.

        One that is connected all the same is reported as lost, if it has not looked for too long.
        """
        if time.monotonic() < self._try_at:
            if self._lost is not None and self._raises:
                raise WatchdogLostError(self.address, self._lost)
            return False
        if self._connection is None or not self._connection.is_alive():
            return True
        self._try_at = time.monotonic() + _PAUSE
        if unseen > _TOO_LATE:
            self._is_lost("it has not looked for more than five seconds: it is stopped, or gets no processor time")
        return False

    def _find(self) -> None:
        if self._finding:
            return
        try:
            self._finding = True
            began = time.monotonic()
            self._connect()
        except NotWatchedError as error:
            took = time.monotonic() - began
            self._try_at = time.monotonic() + (_REFUSED_PAUSE if error.refused else max(_PAUSE, took * _RARELY))
            self._is_lost(str(error))
        else:
            self._try_at = time.monotonic() + _PAUSE
            if self._lost is not None:
                self._is_back()
        finally:
            self._finding = False
            self._patience = _PATIENCE

    def _connect(self) -> None:
        self._drop()
        if not all(page.descriptor.is_ours() for page in self._pages):
            raise NotWatchedError("descriptors of this process were closed behind its back; the next block gets others")
        was_left = self._was_left
        pages = [page.descriptor.fd for page in self._pages]
        report = self._report()
        identity = of_environment(os.environ, socket.gethostname())
        flags = self._flags | (WAS_LOST if self._was_connected or self._lost is not None else 0)
        connection = self._connection = self._reach(hello(flags, report.number, identity), pages)
        if self._was_left != was_left:  # by a signal handler: what was handed over is not used any more
            if connection.stack_file >= 0:
                os.close(connection.stack_file)
            self._connect()
            return
        self._was_connected = True
        if connection.stack_file >= 0:
            report.write_to(connection.stack_file)
        # A signal handler may have added some meanwhile.
        for page in self._pages[len(pages) :]:
            connection.send(PAGE, [page.descriptor.fd])

    def _report(self) -> SelfReport:
        report = self._self_report
        if report is None or not report.is_usable():
            if report is not None:
                report.close()
            report = self._self_report = SelfReport()
        return report

    def _reach(self, greeting: bytes, pages: Sequence[int]) -> Connection:
        try:
            return Connection(self.address, greeting, pages, self._patience)
        except NotWatchedError as error:
            if not error.nobody or self._revive is None:
                raise
            try:
                self._revive(self.address)
            except NotSupportedError as failure:
                raise NotWatchedError(failure.reason) from failure
            return Connection(self.address, greeting, pages, _FIRST_PATIENCE)

    def _notice_back(self) -> None:
        """The watchdog had not looked for too long, and has looked since."""
        if self._lost is None or self._connection is None or self._is_poor:
            return
        if any(watched[1] > self._lost_at for watched in self._watched):
            self._is_back()

    def _is_back(self) -> None:
        self._lost = None
        self._lost_at = 0
        fields: dict[str, object] = {"event": "watchdog back", "pid": os.getpid(), "address": self.address}
        self._news.append((f"the watchdog at {self.address} is back; all timers are watched again", fields))

    def _is_lost(self, reason: str) -> None:
        """Say so, once per outage."""
        first = self._lost is None
        self._lost = reason
        self._lost_at = time.monotonic_ns()
        error = WatchdogLostError(self.address, reason)
        if self._raises:
            raise error
        if first:
            fields = {"event": "watchdog lost", "pid": os.getpid(), "address": self.address, "detail": reason}
            self._news.append((str(error), fields))

    def tell(self) -> None:
        """See `Channel.tell`."""
        while self._news:
            try:
                message, fields = self._news.pop(0)
            except IndexError:  # another thread was faster
                break
            logger.warning("%s", message, extra={"unhang": fields})

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def abandon(self) -> None:
        """See `Channel.abandon`."""
        if self._pid != os.getpid():
            self._lock = RLock()  # a thread of the parent may hold the old one
            self._news = []
        with self._lock:
            self._drop()
            for page in self._pages:
                page.close()
            self._pages = []
            if self._self_report is not None:
                self._self_report.close()
            self._begin()
