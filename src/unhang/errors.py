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
    """`unhang.expires` was entered without a timer client."""

    def __str__(self) -> str:
        return (
            "no timer client: call unhang.configure(client) first, with a LocalTimerClient(queue) or a "
            "FileTimerClient(path), or pass client= to expires()"
        )


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
