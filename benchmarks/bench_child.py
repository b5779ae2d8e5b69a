"""Children of a benchmark: forked, so that they start in a millisecond and stay small."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import select
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, NoReturn, Self

_living: list[Child] = []


class Child:
    """A forked child that runs ``target(connection, *args)``; `conn` is the other end of its connection.

    It ends when the target returns, when its connection closes, or when the context is left: then it is killed.
    Fork only from a process that has one thread.
    """

    def __init__(self, target: Callable[..., None], *args: Any) -> None:
        self.conn, theirs = multiprocessing.Pipe()
        self.pid = os.fork()
        if self.pid == 0:
            self.conn.close()
            _run(target, theirs, args)
        theirs.close()
        self.pidfd = os.pidfd_open(self.pid)
        _living.append(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> int:
        """Kill the child if it still runs, and reap it; returns the signal that it died of, or 0."""
        _living.remove(self)
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        os.close(self.pidfd)
        self.conn.close()
        return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def _run(target: Callable[..., None], conn: Connection[Any, Any], args: Sequence[Any]) -> NoReturn:
    status = 1
    try:
        # Otherwise a child would keep its siblings' connections open after their parent has died.
        for sibling in _living:
            sibling.conn.close()
        target(conn, *args)
        status = 0
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        pass
    except BaseException:  # noqa: BLE001 - nothing may get back into the parent's code
        traceback.print_exc()
    finally:
        os._exit(status)


class Herd:
    """Forked children by the thousand that need nobody to talk to: they end with this process, or by themselves."""

    def __init__(self) -> None:
        self._end, self._life = os.pipe()

    def add(self, work: Callable[[int], None]) -> None:
        """Fork one: it does this work, and is given a descriptor whose end of file tells it to end."""
        if os.fork():
            return
        with contextlib.suppress(BaseException):
            os.close(self._life)
            work(self._end)
        os._exit(0)


def exits(children: Sequence[Child], until: Sequence[float]) -> list[float]:
    """When each child was seen to exit, in monotonic seconds; infinity for one that outlived its ``until``."""
    seen = [math.inf] * len(children)
    places = {child.pidfd: place for place, child in enumerate(children)}
    poll = select.poll()
    for fd in places:
        poll.register(fd, select.POLLIN)
    while places:
        patience = max(until[place] for place in places.values()) - time.monotonic()
        ready = poll.poll(max(0.0, patience) * 1000 + 1)
        now = time.monotonic()
        for fd, _ in ready:
            poll.unregister(fd)
            seen[places.pop(fd)] = now
        if patience <= 0:
            break
    return seen
