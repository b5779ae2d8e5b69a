"""The exceptions of unhang.

Each is a subclass of what callers of the timer contract already catch, keeps its data in attributes, says
in its message what to do next, and can be pickled.
"""

from __future__ import annotations

import errno


class UnhangError(Exception):
    """Base of the exceptions that unhang raises itself."""

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), tuple(vars(self).values())


class NoTimerClientError(UnhangError, RuntimeError):
    """`unhang.expires` was entered, and nothing says which watchdog to use."""

    def __str__(self) -> str:
        return (
            "no timer client: start the program with `unhang run -- COMMAND`, or call unhang.configure() for a "
            "watchdog of its own, or unhang.configure(client) (or expires(client=...)) for one of yours"
        )


class TimerStateError(UnhangError, RuntimeError):
    """A timer was asked for something that its state does not allow.

    Attributes:
        action: what it was asked for.
        scope: the timer.
        state: its state.
    """

    def __init__(self, action: str, scope: str, state: str) -> None:
        super().__init__(action, scope, state)
        self.action = action
        self.scope = scope
        self.state = state

    def __str__(self) -> str:
        return f"cannot {self.action} the timer {self.scope!r}: it is {self.state}"


class TooManyTimersError(UnhangError, RuntimeError):
    """More timers are armed at once than the pages of one process hold.

    Attributes:
        limit: how many they hold.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit

    def __str__(self) -> str:
        return f"more than {self.limit} timers are armed at once: are their blocks ever left, and heartbeats closed?"


class WatchdogLostError(UnhangError, ConnectionError):
    """Nobody watches the timers of this process.

    Attributes:
        address: where the watchdog was, or should be.
        reason: what is wrong with it.
    """

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(errno.ENOTCONN, reason, address)
        self.address = address
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"the watchdog at {self.address} does not watch this process ({self.reason}): timers are armed, but nobody "
            f"would see them expire; if there is none, start one with `unhang serve --address`, or the program with "
            f"`unhang run -- COMMAND`"
        )


class AddressError(UnhangError, ValueError):
    """A socket cannot be, or must not be, at this address.

    Attributes:
        address: the address.
        reason: why not.
    """

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(address, reason)
        self.address = address
        self.reason = reason

    def __str__(self) -> str:
        return f"no watchdog can be at {self.address!r}: {self.reason}"


class NotSupportedError(UnhangError, NotImplementedError):
    """This system, or this process, cannot have what was asked for.

    Attributes:
        what: what cannot be had.
        reason: why, and what to do instead.
    """

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(what, reason)
        self.what = what
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.what} cannot be had here: {self.reason}"


class RequestTooLargeError(UnhangError, RuntimeError):
    """A timer request does not fit an atomic write to a named pipe.

    Attributes:
        scope_id: the scope of the request, the only part of it whose size is free.
        size: bytes that the request takes.
        limit: bytes that a pipe takes at once (``PIPE_BUF``).
    """

    def __init__(self, scope_id: str, size: int, limit: int) -> None:
        super().__init__(scope_id, size, limit)
        self.scope_id = scope_id
        self.size = size
        self.limit = limit

    def __str__(self) -> str:
        return (
            f"cannot arm or disarm {self.scope_id[:60]!r}…: the request takes {self.size} bytes and a named "
            f"pipe takes {self.limit} at once; use a shorter scope"
        )


class NoTimerServerError(UnhangError, BrokenPipeError):
    """No server reads the named pipe.

    Attributes:
        path: the path of the named pipe.
        reason: what opening or writing it said.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(errno.EPIPE, reason, path)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"no timer server at {self.path} ({self.reason}); start a FileTimerServer({self.path!r}, …) first"


class PipeFullError(UnhangError, BlockingIOError):
    """The server did not read the named pipe for too long.

    Attributes:
        path: the path of the named pipe.
        waited: seconds that the client waited.
    """

    def __init__(self, path: str, waited: float) -> None:
        super().__init__(errno.EAGAIN, "pipe full", path)
        self.path = path
        self.waited = waited

    def __str__(self) -> str:
        return (
            f"the named pipe {self.path} stayed full for {self.waited:g} s: its timer server is stopped or "
            f"stuck; look at the process that called FileTimerServer.start()"
        )


class NotOurPipeError(UnhangError, FileExistsError):
    """What stands at the path is not a named pipe that belongs to us; it was left alone.

    Attributes:
        path: the path.
        what: what stands there.
    """

    def __init__(self, path: str, what: str) -> None:
        super().__init__(errno.EEXIST, what, path)
        self.path = path
        self.what = what

    def __str__(self) -> str:
        return f"{self.path} is {self.what}, not a named pipe of ours: remove it yourself or choose another path"


class ViewError(UnhangError):
    """A watchdog cannot be looked at.

    Attributes:
        address: the path of its socket; empty if none is known.
        reason: why, and what to do.
    """

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(address, reason)
        self.address = address
        self.reason = reason

    def __str__(self) -> str:
        return f"cannot look at the watchdog at {self.address}: {self.reason}" if self.address else self.reason
