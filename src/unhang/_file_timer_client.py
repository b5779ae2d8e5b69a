"""The worker's side of the timers over a named pipe; `unhang.file_based_local_timer` has both sides."""

from __future__ import annotations

import errno
import functools
import json
import logging
import os
import select
import signal as signals
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from unhang._core.requests import VERSION
from unhang._platform.fifo import FifoWriter
from unhang.api import TimerClient, TimerRequest
from unhang.errors import NoTimerServerError, PipeFullError, RequestTooLargeError

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

# Seconds that a client waits for a full pipe. It holds some thousands of requests: the server is not looking.
_PATIENCE = 5.0
# Seconds between attempts to send a release that could not be sent.
_REDELIVERY = 0.2
_SIGKILL: int = getattr(signals, "SIGKILL", getattr(signals, "CTRL_C_EVENT", 0))
_encoded = json.encoder.encode_basestring_ascii
_NUMBERS = frozenset({int, float})
_WHOLE = frozenset({int, signals.Signals})
_digits = int.__repr__
_LARGEST = 1e300
PIPE_BUF: int = getattr(select, "PIPE_BUF", 512)


def _retry(max_retries: int, sleep_time: float) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Call a function until it does not raise, ``max_retries`` times at most, ``sleep_time`` seconds apart."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def retrying(*args: P.args, **kwargs: P.kwargs) -> R:
            for _ in range(max_retries - 1):
                try:
                    return function(*args, **kwargs)
                except Exception:
                    logger.debug("Error running %s. Retrying...", function.__name__, exc_info=True)
                    time.sleep(sleep_time)
            return function(*args, **kwargs)

        return retrying

    return decorate


class FileTimerRequest(TimerRequest):
    """A `TimerRequest` of a process.

    Attributes:
        version: of the wire format.
        signal: what to send when the timer expires; zero or a negative number tells, and sends nothing.
    """

    __slots__ = ("signal", "version")

    def __init__(self, worker_pid: int, scope_id: str, expiration_time: float, signal: int = 0) -> None:
        self.worker_id = worker_pid
        self.scope_id = scope_id
        self.expiration_time = expiration_time
        self.version = VERSION
        self.signal = signal

    @property
    def worker_pid(self) -> int:
        """The pid of the worker; negative for a process group."""
        return int(self.worker_id)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, FileTimerRequest):
            return super().__eq__(other) and (self.version, self.signal) == (other.version, other.signal)
        return False

    __hash__ = None  # it is mutable

    def to_json(self) -> str:
        """The request as it goes through the pipe, without the newline."""
        scope, instant, number = self.scope_id, self.expiration_time, self.signal
        plain = type(scope) is str and type(instant) in _NUMBERS and type(number) in _WHOLE
        if plain and -_LARGEST < instant < _LARGEST:
            # What json.dumps() makes of it, in a fifth of the time.
            return (
                f'{{"version": {self.version}, "pid": {self.worker_pid}, "scope_id": {_encoded(scope)}, '
                f'"expiration_time": {instant!r}, "signal": {_digits(number)}}}'
            )
        return json.dumps(
            {
                "version": self.version,
                "pid": self.worker_pid,
                "scope_id": self.scope_id,
                "expiration_time": self.expiration_time,
                "signal": self.signal,
            }
        )


class FileTimerClient(TimerClient):
    """The client of `FileTimerServer`; the worker is known by its pid.

    Args:
        file_path: the named pipe that the server has made.
        signal: what the server sends to this process when a timer expires; zero or a negative number: it
            only tells.

    Thread-safe, and good after a fork. It never waits for longer than 5 s for a pipe that is full,
    and 1 s for a server that is not there.
    """

    def __init__(self, file_path: str, signal: int = _SIGKILL) -> None:
        super().__init__()
        self._file_path = file_path
        self.signal = signal
        self._server_lost = False
        self._undelivered: deque[FileTimerRequest] = deque()
        self._delivering = threading.Lock()
        self._deliverer: threading.Thread | None = None

    def __getstate__(self) -> dict[str, Any]:
        state = vars(self).copy()
        del state["_delivering"], state["_deliverer"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _delivering=threading.Lock(), _deliverer=None)

    @_retry(max_retries=10, sleep_time=0.1)
    def _open_non_blocking(self) -> FifoWriter:
        return FifoWriter(self._file_path, _PATIENCE)

    def _send_request(self, request: FileTimerRequest) -> None:
        message = request.to_json() + "\n"
        if len(message) > PIPE_BUF:
            raise RequestTooLargeError(request.scope_id, len(message), PIPE_BUF)
        try:
            pipe = self._open_non_blocking()
        except Exception as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise NoTimerServerError(self._file_path, reason) from error
        with pipe:
            pipe.write(message)

    def acquire(self, scope_id: str, expiration_time: float) -> None:
        """See `TimerClient.acquire`.

        Raises:
            NoTimerServerError: (a BrokenPipeError) nobody reads the pipe.
            PipeFullError: (a BlockingIOError) the server does not read what is in it.
            RequestTooLargeError: (a RuntimeError) the scope is too long.
        """
        self._deliver()
        self._send_request(FileTimerRequest(os.getpid(), scope_id, expiration_time, self.signal))
        self._server_lost = False

    def release(self, scope_id: str) -> None:
        """See `TimerClient.release`. Does not raise because of a server that is gone or stuck: that is logged.

        What could not be sent while the server was there is sent again, before the next request and from a thread
        of its own. A server that is gone has taken its timers with it.
        """
        if self._server_lost:
            return
        request = FileTimerRequest(os.getpid(), scope_id, -1, 0)
        try:
            self._deliver()
            self._send_request(request)
        except (NoTimerServerError, PipeFullError) as error:
            if _says_that_nobody_reads(error):
                self._server_lost = True
                logger.warning("Could not disarm the timer [%s]: %s", scope_id, error)
            else:
                self._undelivered.append(request)
                self._deliver_later()
                logger.warning("Could not disarm the timer [%s] yet: %s", scope_id, error)

    def _deliver(self) -> None:
        """Send what could not be sent before, in its order."""
        if not self._undelivered:
            return
        # Bounded: in a forked child the lock may stay locked by a thread of the parent.
        locked = self._delivering.acquire(timeout=_PATIENCE)
        try:
            while self._undelivered:
                # What was the parent's, before a fork, is the parent's to send.
                if self._undelivered[0].worker_pid == os.getpid():
                    self._send_request(self._undelivered[0])
                self._undelivered.popleft()
        finally:
            if locked:
                self._delivering.release()

    def _deliver_later(self) -> None:
        """Go on trying in a thread: there may be no next request."""
        if self._deliverer is None or not self._deliverer.is_alive():
            self._deliverer = threading.Thread(target=self._keep_delivering, name="unhang-release", daemon=True)
            self._deliverer.start()

    def _keep_delivering(self) -> None:
        while self._undelivered:
            time.sleep(_REDELIVERY)
            try:
                self._deliver()
            except (NoTimerServerError, PipeFullError) as error:
                if _says_that_nobody_reads(error):
                    self._undelivered.clear()


def _says_that_nobody_reads(error: NoTimerServerError | PipeFullError) -> bool:
    """Whether the server is gone, rather than that we could not reach it: for want of descriptors, for example."""
    if isinstance(error, PipeFullError):
        return False
    cause = error.__cause__
    return not isinstance(cause, OSError) or cause.errno in (errno.ENXIO, errno.ENOENT)
