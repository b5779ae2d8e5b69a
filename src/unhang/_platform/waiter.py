"""One wait for everything: data, exits, somebody who wakes us, the next deadline."""

from __future__ import annotations

import contextlib
import os
import selectors
from collections.abc import Callable
from typing import NamedTuple

from unhang._core import real_time as time
from unhang._platform.descriptor import is_stream, pipe_past_streams
from unhang._platform.finalizer import finalizer
from unhang._platform.fork import close_in_child

_MILLISECOND = 0.001
# Seconds by which a sleep ends late; it is cut short by them, and the rest is spun.
_OVERSHOOT = 0.00015
# Seconds before its end at which a wait rehearses what comes behind it, and how many it must still have for it then.
_AHEAD = 0.003
_ENOUGH = 0.001


def _selector() -> selectors.BaseSelector:
    """One whose own descriptor, where it has one, is no standard stream: see `unhang._platform.descriptor`."""
    made = [selectors.DefaultSelector()]
    while hasattr(made[-1], "fileno") and is_stream(made[-1].fileno()):
        made.append(selectors.DefaultSelector())
    selector = made.pop()
    for one in made:
        one.close()
    return selector


class _Repeated(NamedTuple):
    callback: Callable[[], None]


class Waiter:
    """Waits on descriptors for an exact time, and can be woken from any thread.

    All other methods belong to the loop's thread. Its own descriptors are opened by the first wait in a process, so it
    may be made in one process and used in a forked child, or be pickled: it waits there for what is watched by then.
    """

    def __init__(self) -> None:
        self._watched: dict[int, Callable[[], None] | _Repeated | None] = {}
        self._selector: selectors.BaseSelector | None = None
        self._woken = self._waker = -1
        self._wanted = False
        self._owner = -1

    def __reduce__(self) -> tuple[type[Waiter], tuple[()]]:
        return Waiter, ()  # descriptors do not travel

    def watch(self, fd: int) -> None:
        """`wait` returns early while there is something to read from ``fd``."""
        self._add(fd, None)

    def call_once(self, fd: int, callback: Callable[[], None]) -> None:
        """Call back, once, within `wait`, when ``fd`` becomes readable. The wait goes on."""
        self._add(fd, callback)

    def call(self, fd: int, callback: Callable[[], None]) -> None:
        """Call back within `wait`, which then returns, whenever there is something to read from ``fd``."""
        self._add(fd, _Repeated(callback))

    def _add(self, fd: int, data: Callable[[], None] | _Repeated | None) -> None:
        if self._selector is not None:
            self._selector.register(fd, selectors.EVENT_READ, data)
        self._watched[fd] = data

    def forget(self, fd: int) -> None:
        """Undo `watch`, `call` or `call_once`, if that is still to be done; before ``fd`` is closed."""
        if fd not in self._watched:
            return
        del self._watched[fd]
        if self._selector is None or os.getpid() != self._owner:
            return  # a forked child shares the kernel's side of the selector: its parent still waits
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(fd)

    def wake(self) -> None:
        """Make a `wait` that is under way, or else the next one, return at once. Nothing once it is closed."""
        # In this order: `_open` publishes the descriptor first, and reads this flag afterwards.
        self._wanted = True
        if self._waker >= 0:
            with contextlib.suppress(BlockingIOError):
                os.write(self._waker, b"!")

    def _open(self) -> selectors.BaseSelector:
        """Open what this process waits with."""
        selector = _selector()
        self._woken, waker = pipe_past_streams()
        for fd in (self._woken, waker):
            os.set_blocking(fd, False)
        selector.register(self._woken, selectors.EVENT_READ)
        for fd, data in self._watched.items():
            selector.register(fd, selectors.EVENT_READ, data)
        self._selector = selector
        self._owner = os.getpid()
        close_in_child(self)
        self._waker = waker
        if self._wanted:
            self.wake()
        return selector

    def wait(self, timeout: float, rehearse: Callable[[], None] | None = None) -> bool:
        """Wait until a watched descriptor can be read, but no longer than ``timeout`` seconds.

        Returns False when the time was over, True when it returned for something else. Selectors count in
        milliseconds, so the last part of one is slept, and the end of that is spun.

        Args:
            timeout: seconds.
            rehearse: called some milliseconds before the end of a wait that is longer than that: what it looks at is in
                the processor's caches then, and behind a second's sleep all of it takes several times as long.
        """
        until = time.monotonic() + timeout
        if rehearse is not None and timeout > _AHEAD:
            if self._wait_until(until - _AHEAD):
                return True
            if until - time.monotonic() > _ENOUGH:
                rehearse()
        while True:
            remaining = until - time.monotonic()
            whole = max(0.0, remaining // _MILLISECOND * _MILLISECOND - _MILLISECOND / 2)
            if self._select(whole):
                return True
            remaining = until - time.monotonic()
            if remaining < _MILLISECOND:
                time.sleep(max(0.0, remaining - _OVERSHOOT))
                while time.monotonic() < until:
                    pass
                return self._select(0.0)

    def poll(self) -> bool:
        """As `wait`, without waiting at all."""
        return self._select(0.0)

    def _wait_until(self, instant: float) -> bool:
        """As `wait`, some milliseconds late."""
        while (remaining := instant - time.monotonic()) > 0:
            if self._select(remaining):
                return True
        return False

    def _select(self, timeout: float) -> bool:
        """Select once; True when something besides a callback was ready."""
        selector = self._selector or self._open()
        ready = False
        for key, _ in selector.select(timeout):
            if selector.get_map().get(key.fd) is not key:
                # An earlier callback of this round forgot it, and its number may be another one's by now.
                continue
            if isinstance(key.data, _Repeated):
                ready = True
                key.data.callback()
            elif key.data is not None:
                selector.unregister(key.fd)
                del self._watched[key.fd]
                key.data()
            else:
                ready = True
                if key.fd == self._woken:
                    self._wanted = False
                    os.read(self._woken, 4096)
        return ready

    def close(self) -> None:
        """Give the descriptors back. May be called twice, and be followed by a `wait`, which opens new ones."""
        selector, self._selector = self._selector, None
        if selector is not None:
            selector.close()
            os.close(self._woken)
            os.close(self._waker)
            self._woken = self._waker = -1

    __del__ = finalizer(close)
