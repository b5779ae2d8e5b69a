"""The standard error that a person sees, where this process's own goes into a file that nobody can open.

pytest lets descriptors 1 and 2 lead to temporary files without a name while it loads a ``conftest.py``, collects and
runs tests, and shows what is in there when a test has ended. What is written when the process is killed is never shown.
"""

from __future__ import annotations

import os
import stat
import sys

from unhang._platform.descriptor import past_streams

_STDERR = 2


def open_stderr() -> int | None:
    """A new descriptor for what people must see; None: standard error does, or nothing better is known.

    It is the standard error that pytest has put aside, whatever captures in addition; if something else captures, the
    controlling terminal, if there is one. Never raises. The caller closes it.
    """
    if not _is_hidden(_STDERR):
        return None
    try:
        for fd in _put_aside():
            if not _is_hidden(fd):
                return past_streams(os.dup(fd))
        return past_streams(os.open("/dev/tty", os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return None


def _is_hidden(fd: int) -> bool:
    """Whether it leads to a file without a name."""
    try:
        status = os.fstat(fd)
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 0


def _put_aside() -> list[int]:
    """The descriptors that pytest keeps for the time when it does not capture standard error any more."""
    capturing = getattr(sys.modules.get("_pytest.capture"), "FDCapture", None)
    if capturing is None:
        return []
    import gc

    found = []
    for one in gc.get_objects():
        if issubclass(type(one), capturing) and getattr(one, "targetfd", None) == _STDERR:
            saved = getattr(one, "targetfd_save", None)
            found += [saved] if isinstance(saved, int) else []
    return found
