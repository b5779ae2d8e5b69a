"""Events as lines of JSON, in a file or on standard error."""

from __future__ import annotations

import atexit
import contextlib
import logging
import queue
import select
import threading
import time
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Protocol, Self

import msgspec
from msgspec.structs import replace

from unhang._platform import exits
from unhang.observe.line_targets import EventsError, Target, target_of
from unhang.report.jsons import encoded
from unhang.report.live import Event

__all__ = ["EventsError", "JsonLines", "Lost", "line_of"]

logger = logging.getLogger("unhang.observe")

# Events that wait to be written; what comes on top is dropped, and counted.
_MOST_WAITING = 4096
# Seconds between two warnings that events are lost: whoever makes too many of them fills no log.
_QUIET = 60.0
# Bytes that a pipe takes at once, so that lines of several writers are never mixed.
_LONGEST = select.PIPE_BUF
# Characters of its texts, for an event that would be longer; the last of them fits whatever it holds.
_SHORTER = (400, 200, 100, 50, 25)
_TEXTS = ("event", "host", "job", "scope", "signal", "hang", "report", "detail")
# What `FileTimerServer` calls the events of its `log_event`, and what they are called here.
_NAMES = {
    "watchdog started": "started",
    "watchdog stopped": "stopped",
    "timer expired": "expired",
    "kill worker process": "killed",
}


class Request(Protocol):
    """What a `FileTimerServer` tells of a timer; see `unhang.FileTimerRequest`."""

    worker_id: int
    scope_id: str
    expiration_time: float
    signal: int


class Lost(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag="lost events"):
    """A line for events that have none.

    Attributes:
        time: when this was told, UTC, as ISO 8601 with milliseconds.
        at: the same, monotonic seconds.
        count: how many events were lost since the last such line.
        detail: why.
    """

    time: str
    at: float
    count: int
    detail: str


class JsonLines:
    """Writes events (`unhang.report.live.Event`), one line of JSON each. To be called from any thread.

    A call returns at once: a thread of its own writes. Never raises. When 4096 events wait to be written, more are
    dropped; so is what cannot be written. That some were lost is told in the log, once a minute at most, and how many
    in a line of its own (`Lost`) as soon as lines can be written again. A line has at most 4096 bytes and is written
    whole, by one ``write()``: several watchdogs may share a file. Of a line that a full disk has cut, a file keeps
    nothing, and a standard stream gets the rest in front of the next line.

    Args:
        target: the path of a file, which is made if need be, mode 0600, and opened again when another one, or none,
            stands at its path. ``"-"`` and ``/dev/stderr``: standard error; ``/dev/stdout``: standard output.

    Raises:
        EventsError: (an OSError) events must not, or cannot, be written there.
    """

    def __init__(self, target: str) -> None:
        self._target: Target = target_of(target)
        self._waiting: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._lock = threading.Lock()
        self._lost = 0
        self._reason = ""
        self._warn_at = 0.0

    def __call__(self, event: Event) -> None:
        """Have an event written, soon."""
        if self._closed:
            return
        if self._thread is None or not self._thread.is_alive():  # nor is it behind a fork
            self._start()
        if self._waiting.qsize() < _MOST_WAITING:
            self._waiting.put(event)
        else:
            self._lose("nothing could be written for a while")

    def log_event(self, name: str, request: Request | None) -> None:
        """The same for a `FileTimerServer`, as its ``log_event``."""
        about: dict[str, Any] = {}
        if request is not None:
            about = {
                "pid": request.worker_id,
                "scope": str(request.scope_id).encode("utf-8", "backslashreplace").decode(),
                "timers": 1,
                "late": time.time() - request.expiration_time,
            }
            if name == "kill worker process":
                about["signal"] = exits.text(request.signal)
        self(Event(time=_now(), event=_NAMES.get(name, name), at=time.monotonic(), **about))

    def _start(self) -> None:
        with self._lock:
            if self._closed or (self._thread is not None and self._thread.is_alive()):
                return
            thread = threading.Thread(target=self._run, name="unhang-events", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                return  # what waits is written by the next one, or counted
            self._thread = thread
        atexit.register(self.close)

    def _run(self) -> None:
        while (event := self._waiting.get()) is not None:
            self._write(event)
        if self._lost:
            self._tell_lost()

    def _write(self, event: Event) -> None:
        if self._lost and not self._tell_lost():
            self._lose(self._reason)
            return
        try:
            self._target.write(line_of(event))
        except Exception as error:  # noqa: BLE001 - the next one may be written
            self._lose(_words(error))

    def _tell_lost(self) -> bool:
        lost, reason = self._lost, self._reason
        note = Lost(time=_now(), at=time.monotonic(), count=lost, detail=reason)
        try:
            self._target.write(encoded(note) + b"\n")
        except OSError as error:
            self._reason = _words(error)
            return False
        with self._lock:
            self._lost -= lost
        return True

    def _lose(self, reason: str) -> None:
        now = time.monotonic()
        with self._lock:
            news = self._lost == 0 and now >= self._warn_at
            self._lost += 1
            self._reason = reason
            if news:
                self._warn_at = now + _QUIET
        if news:
            logger.warning("Events are lost, which are to be written to %s: %s", self._target.name, reason)

    def close(self, patience: float = 1.0) -> None:
        """Write what waits, for so many seconds at most; what comes afterwards is dropped. May be called twice."""
        with self._lock:
            closed, self._closed = self._closed, True
            thread = self._thread
        if closed:
            return
        atexit.unregister(self.close)
        if thread is not None and thread.is_alive():
            self._waiting.put(None)
            thread.join(patience)
            if thread.is_alive():
                self._target.give_up()  # it is closed by whoever waits there, if he ever comes back
                return
        with contextlib.suppress(OSError):
            self._target.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def line_of(event: Event) -> bytes:
    """An event as one line of 4096 bytes at most; its texts are cut if it would be longer."""
    line = encoded(event) + b"\n"
    for longest in _SHORTER:
        if len(line) <= _LONGEST:
            break
        event = replace(event, **{name: getattr(event, name)[:longest] for name in _TEXTS})
        line = encoded(event) + b"\n"
    return line


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _words(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or f"{type(error).__name__}: {error}"
