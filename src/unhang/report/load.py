"""Reads a report from a file that may be anything."""

from __future__ import annotations

import contextlib
import os
import stat

import msgspec

from unhang.errors import UnhangError
from unhang.report import words
from unhang.report.model import VERSION, Report, decode

MOST_BYTES = 64 << 20


class NotAReportError(UnhangError, ValueError):
    """A file cannot be read as a report.

    Attributes:
        path: the file.
        reason: what is wrong with it, and what to do.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class _Header(msgspec.Struct):
    unhang_report: int


def load(path: str) -> Report:
    """The report in a file.

    Raises:
        NotAReportError: it cannot be read, or is no report that this version knows.
    """
    document = _read(path)
    try:
        header = msgspec.json.decode(document, type=_Header)
    except (ValueError, RecursionError) as error:
        what = "it is JSON, but no report of unhang" if _is_json(document) else "it is not JSON"
        raise NotAReportError(path, f"{what}; name a file that unhang has written") from error
    if header.unhang_report != VERSION:
        newer = header.unhang_report > VERSION
        advice = "it needs a newer unhang" if newer else "only an older unhang reads it"
        raise NotAReportError(path, f"{advice}: it has format {header.unhang_report}, and this one reads {VERSION}")
    try:
        return decode(document)
    except (ValueError, RecursionError) as error:
        raise NotAReportError(path, f"it is not a whole report: {words.clean(str(error), 200)}") from error


def _is_json(document: bytes) -> bool:
    with contextlib.suppress(ValueError, RecursionError):
        msgspec.json.decode(document)
        return True
    return False


def _read(path: str) -> bytes:
    """The content of a plain file, of a bounded size."""
    try:
        # A named pipe would keep us waiting.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    except OSError as error:
        raise NotAReportError(path, f"it cannot be read: {error.strerror}") from error
    try:
        _check(path, os.fstat(descriptor))
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(MOST_BYTES)
    except OSError as error:
        raise NotAReportError(path, f"it cannot be read: {error.strerror}") from error
    finally:
        os.close(descriptor)


def _check(path: str, status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise NotAReportError(path, f"it is a directory; for the newest report in it, use `unhang report --dir {path}`")
    if not stat.S_ISREG(status.st_mode):
        raise NotAReportError(path, "it is not a plain file; save the report to one first")
    if status.st_size > MOST_BYTES:
        raise NotAReportError(
            path, f"it has {words.size(status.st_size)}, and no report is larger than {words.size(MOST_BYTES)}"
        )
