"""Which frame of a stack is the user's: the line of code that a reader wants to see first."""

from __future__ import annotations

import functools
import re
import sysconfig
from pathlib import Path

from unhang.report.model import Evidence, Frame, HangClass, Thread

# By their look: the worker may have run another Python, on another host.
_LIBRARY = re.compile(
    r"""
    (?:^|/)lib(?:32|64)?/(?:python|pypy)\d(?:\.\d+t?)?/  # a standard library
    | (?:^|/)(?:site|dist)-packages/                      # what was installed
    | (?:^|/)python\d+\.zip/
    | ^<frozen\ | ^<__array_function__                    # modules frozen into the interpreter
    """,
    re.VERBOSE,
)


def is_library(file: str) -> bool:
    """Whether a file is of a standard library, an installed package, or unhang, and so not the user's program.

    The programs that come with unhang are programs wherever it is installed: the demo's workers among them.
    """
    libraries, programs = _here()
    if file.startswith(programs):
        return False
    return _LIBRARY.search(file) is not None or file.startswith(libraries)


@functools.cache
def _here() -> tuple[tuple[str, ...], str]:
    """Where unhang is, and the standard library of this Python, which may be at an unusual place; and our programs."""
    ours = str(Path(__file__).parent.parent)
    return (f"{ours}/", f"{sysconfig.get_path('stdlib')}/"), f"{ours}/cli/"


def is_users(frame: Frame) -> bool:
    """Whether a frame is one of the user's program: Python, and no library."""
    return not frame.native and not is_library(frame.file)


def user_frame(thread: Thread) -> Frame | None:
    """The innermost frame of the user's program.

    If there is none, the innermost of Python; if there is none either, the innermost; None without frames.
    """
    for wanted in (is_users, _is_python):
        for frame in thread.frames:
            if wanted(frame):
                return frame
    return next(iter(thread.frames), None)


def _is_python(frame: Frame) -> bool:
    return not frame.native


def telling_thread(evidence: Evidence | None) -> Thread | None:
    """The thread whose stack tells most: that of the block; if another one keeps the GIL in a native call, that."""
    if evidence is None or not evidence.threads:
        return None
    if evidence.hang is HangClass.NATIVE_GIL:
        return next((thread for thread in evidence.threads if thread.holds_gil), evidence.threads[0])
    return evidence.threads[0]
