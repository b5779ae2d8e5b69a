"""The pipe inside a ``multiprocessing.Queue``: all that rests on the queue's private parts stands here.

A queue's ``put`` hands the object to a thread, which takes a lock and writes the pickled object to a pipe,
behind its length. So a worker that never gives up the GIL again never gets its request out, and a worker
that is killed in between leaves the lock locked for all others. A write of at most ``PIPE_BUF`` bytes to
a pipe is atomic (POSIX), so it needs neither.

The parts, alike in CPython 3.11 to 3.14: ``_writer`` and ``_reader``, connections over a pipe; ``_sem``, counted
down by ``put`` and up by ``get``; ``_maxsize``, the count that it starts with; ``_wlock``, the lock of the writers.
"""

from __future__ import annotations

import contextlib
import os
import select
import stat
import sys
from collections.abc import Iterator
from typing import Any

from unhang._platform.descriptor import past_streams
from unhang._platform.fifo import enlarge, read_available, write_patiently
from unhang._platform.finalizer import finalizer
from unhang._platform.fork import close_in_child
from unhang._platform.waiter import Waiter

_write = os.write
PIPE_BUF: int = getattr(select, "PIPE_BUF", 512)


class UnsupportedQueueError(TypeError):
    """The queue is not one whose pipe we may use; the message says why."""


def check_queue(queue: Any) -> None:
    """Find out whether the pipe of this queue may be used, without opening anything.

    Raises:
        UnsupportedQueueError: it may not.
    """
    queues = sys.modules.get("multiprocessing.queues")
    stock = getattr(queues, "Queue", None)
    if stock is None or not isinstance(queue, stock):
        raise UnsupportedQueueError(f"a {type(queue).__name__} is not a multiprocessing.Queue")
    if type(queue).put is not stock.put or type(queue).get is not stock.get:
        raise UnsupportedQueueError(f"{type(queue).__name__} has a put() or get() of its own")
    try:
        from multiprocessing import synchronize

        if queue._maxsize != synchronize.SEM_VALUE_MAX:  # type: ignore[attr-defined]
            raise UnsupportedQueueError("the queue is bounded")
        fds = queue._reader.fileno(), queue._writer.fileno()
        callables = queue._sem.acquire, queue._sem.release, queue._wlock.acquire, queue._wlock.release
        complete = all(map(callable, callables)) and all(stat.S_ISFIFO(os.fstat(fd).st_mode) for fd in fds)
    except (AttributeError, ImportError, OSError, ValueError) as error:
        raise UnsupportedQueueError(f"its parts are not the ones known: {error}") from error
    if not complete:
        raise UnsupportedQueueError("its parts are not the ones known")


def make_room(queue: Any) -> None:
    """Let the pipe of a queue hold what clients write before anybody reads, if the system lets us. Opens nothing.

    Raises:
        UnsupportedQueueError: it is not a pipe that we may use.
    """
    check_queue(queue)
    enlarge(queue._reader.fileno())


def _open_again(fd: int, flags: int) -> int:
    """The same pipe through a file description of our own, so that not blocking is our affair alone."""
    try:
        return past_streams(os.open(f"/proc/self/fd/{fd}", flags | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        raise UnsupportedQueueError(f"its pipe cannot be opened again: {error}") from error


class QueueWriter:
    """Writes to the pipe of a queue, without the queue's thread and lock. Thread-safe, and good after fork.

    Raises:
        UnsupportedQueueError: use the queue's own ``put``.
    """

    def __init__(self, queue: Any) -> None:
        self._fd = -1
        check_queue(queue)
        self._count = queue._sem.acquire
        self._uncount = queue._sem.release
        self._fd = _open_again(queue._writer.fileno(), os.O_WRONLY)

    def send_now(self, data: bytes) -> bool:
        """Write one frame of at most ``PIPE_BUF`` bytes, atomically; False when that cannot be done at this moment."""
        self._count()
        sent = False
        try:
            sent = _write(self._fd, data) == len(data)
        except OSError:
            pass
        finally:
            if not sent:
                self._uncount()
        return sent

    def send(self, data: bytes, patience: float) -> bool:
        """Write one frame, atomically; False when it does not fit, or the pipe was full for so many seconds.

        Raises:
            BrokenPipeError: nobody reads the queue any more.
        """
        if len(data) > PIPE_BUF:
            return False
        self._count()
        sent = False
        try:
            sent = write_patiently(self._fd, data, patience)
        finally:
            if not sent:
                self._uncount()
        return sent

    def close(self) -> None:
        """Give the descriptor back. May be called twice."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    __del__ = finalizer(close)


class QueueReader:
    """Reads the pipe of a queue in whatever pieces it comes. The only reader; it belongs to the server's loop.

    Args:
        queue: the queue.
        waiter: what the loop waits with, if it waits.

    Raises:
        UnsupportedQueueError: use the queue's own ``get``.
    """

    def __init__(self, queue: Any, waiter: Waiter | None = None) -> None:
        self.fd = self._writer = -1
        self._waiter = waiter
        check_queue(queue)
        self._queue = queue
        self._locked_since: float | None = None
        self.fd = _open_again(queue._reader.fileno(), os.O_RDONLY)
        # With a writer of our own the pipe never reports its end, which would make every wait return.
        self._writer = _open_again(queue._writer.fileno(), os.O_WRONLY)
        enlarge(self.fd)
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        # It says that nothing is there in half the time that an error of a read takes.
        self._ready = poll.poll
        if waiter is not None:
            waiter.watch(self.fd)
        close_in_child(self)

    def read(self) -> bytes:
        """All that is there, at most what the pipe can hold; never waits."""
        return read_available(self.fd) if self._ready(0) else b""

    def took(self, count: int) -> None:
        """Tell the queue that ``count`` objects have left it, as its own ``get`` would."""
        release = self._queue._sem.release
        # More than was counted in: bytes that no put() wrote.
        with contextlib.suppress(ValueError):
            for _ in range(count):
                release()

    def backlog(self) -> int:
        """Objects put and not yet taken, by the queue's count; those of killed writers are in it forever."""
        try:
            return int(self._queue.qsize())
        except NotImplementedError:
            return 0

    def look_at_lock(self, now: float, patience: float) -> bool:
        """As `lock_is_stuck`, but without waiting: by looks that are some time apart. To be called in each turn."""
        lock = self._queue._wlock
        if lock.acquire(False):
            lock.release()
            self._locked_since = None
            return False
        if self._locked_since is None:
            self._locked_since = now
        if now - self._locked_since < patience:
            return False
        self._locked_since = None
        self._unlock()
        return True

    def lock_is_stuck(self, patience: float) -> bool:
        """Whether the writers' lock could not be had for so many seconds; then it is unlocked.

        A writer holds it for one write. One that holds it for longer was killed, stopped, or waits for
        the GIL of a process that hangs: it keeps the requests of all others from coming in. Unlocking it is
        safe, since a request is written atomically; a holder that comes back gets a ValueError
        in its queue's thread, which reports it and goes on.
        """
        stuck = not self._queue._wlock.acquire(timeout=patience)
        self._unlock()
        return stuck

    @contextlib.contextmanager
    def writers_held(self, patience: float) -> Iterator[None]:
        """Hold the writers' lock, so that nobody who is killed meanwhile can have it.

        If it cannot be had for ``patience`` seconds, it is unlocked at the end all the same: see
        `lock_is_stuck`.
        """
        self._queue._wlock.acquire(timeout=patience)
        try:
            yield
        finally:
            self._unlock()

    def _unlock(self) -> None:
        with contextlib.suppress(ValueError):
            self._queue._wlock.release()

    def close(self) -> None:
        """Give the descriptors back. May be called twice."""
        if self._waiter is not None and self.fd >= 0:
            self._waiter.forget(self.fd)
        for fd in (self.fd, self._writer):
            if fd >= 0:
                os.close(fd)
        self.fd = self._writer = -1

    __del__ = finalizer(close)
