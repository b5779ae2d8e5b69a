"""Keeps reports: a directory of this user's alone, with a bounded number of files."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from unhang._platform.directories import UnsafePathError, open_safely
from unhang._platform.socket_directory import well_known_directory
from unhang._platform.whole_file import remove_stale, write_whole
from unhang.errors import UnhangError
from unhang.report import words
from unhang.report.fit import fit
from unhang.report.model import Report, encode

__all__ = ["ReportDirectoryError", "ReportStore", "check", "default_directory", "find", "fit", "id_of", "latest"]

MOST_BYTES_A_REPORT = 4 << 20
_OURS = re.compile(r"unhang-\d{8}T\d{6}Z-(?P<id>[A-Za-z0-9_.-]{1,64})\.json")
_UNFINISHED = ".unhang"
_SAFE_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


class ReportDirectoryError(UnhangError, PermissionError):
    """Reports must not, or cannot, be kept in this directory.

    Attributes:
        directory: the directory.
        reason: why not.
    """

    def __init__(self, directory: str, reason: str) -> None:
        super().__init__(errno.EPERM, reason, directory)
        self.directory = directory
        self.reason = reason

    def __str__(self) -> str:
        return f"no reports can be kept in {self.directory!r}: {self.reason}"


def default_directory() -> str:
    """``$XDG_STATE_HOME/unhang/reports``, else ``~/.local/state/unhang/reports``; it need not be there.

    For a user without a home, or with one that belongs to another user, a directory beside the sockets.

    Raises:
        AddressError: there is no home, and no well-known directory for the sockets either.
    """
    for state in _states():
        directory = str(state / "unhang" / "reports")
        if not _is_unsafe(directory):
            return directory
    return f"{well_known_directory()}/reports"


def _states() -> Iterator[Path]:
    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    if state.is_absolute():
        yield state
        return
    with contextlib.suppress(RuntimeError):
        if (home := Path.home()).is_absolute():
            yield home / ".local" / "state"


def _is_unsafe(directory: str) -> bool:
    """Whether the path leads through a directory or link of another user, as in a home that is another user's."""
    try:
        os.close(open_safely(directory))
    except UnsafePathError:
        return True
    except OSError:
        return False  # not there yet, or not to be used for another reason, which is reported
    return False


def latest(directory: str) -> str | None:
    """The path of the report in a directory that was written last; None if there is none, or no directory."""
    try:
        files = _files(directory)
    except OSError:
        return None
    return str(Path(directory, max(files).name)) if files else None


def find(directory: str, beginning: str) -> list[str]:
    """The paths of the reports whose id begins so, the newest first; one of exactly this id alone.

    Raises:
        OSError: the directory cannot be read.
    """
    named = [(file.name, id_of(file.name)) for file in sorted(_files(directory), reverse=True)]
    found = [name for name, id_ in named if id_ == beginning] or [
        name for name, id_ in named if id_.startswith(beginning)
    ]
    return [str(Path(directory, name)) for name in found]


def check(directory: str) -> None:
    """Find out now whether reports can be kept in a directory, as far as can be told without making it.

    Raises:
        ReportDirectoryError: they cannot.
    """
    path = Path(directory).absolute()
    try:
        if os.path.lexists(path):
            with _opened(str(path)):
                pass
        there = next(each for each in (path, *path.parents) if os.path.lexists(each))
        if there != path and there.is_dir():
            os.close(open_safely(str(there), follow=True))
    except UnsafePathError as error:
        raise ReportDirectoryError(directory, f"{error.strerror}; use one of your own") from error
    except ReportDirectoryError:
        raise
    except OSError as error:
        raise ReportDirectoryError(directory, str(error.strerror)) from error
    if not there.is_dir():
        raise ReportDirectoryError(directory, f"{str(there)!r} is not a directory")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ReportDirectoryError(directory, f"you may not write to {str(there)!r}")


class _File(NamedTuple):
    """A report in the directory; the earliest is the smallest."""

    written: int  # wall clock, ns
    name: str
    size: int


def _files(directory: str | int) -> list[_File]:
    """What is named like ours and is a plain file, unsorted."""
    found = []
    with os.scandir(directory) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                if _OURS.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                    status = entry.stat(follow_symlinks=False)
                    found.append(_File(status.st_mtime_ns, entry.name, status.st_size))
    return found


class ReportStore:
    """A directory of reports, of a bounded number and size.

    Nobody else may be able to write to it. It is made, with those above it, readable for this user alone. Several
    stores of one user, also in several processes, may share it. Safe to use from several threads. A file is there as
    a whole or not at all; that it survives a loss of power is not promised.

    Args:
        directory: where; a link is refused.
        most: how many reports are kept; the oldest go first.
        most_bytes: how many bytes they may take together. The one that was written last stays, whatever its size.

    Raises:
        ReportDirectoryError: others may write there, or it is no directory of this user's.
        OSError: it cannot be made.
    """

    def __init__(self, directory: str, *, most: int = 50, most_bytes: int = 64 << 20) -> None:
        if most < 1 or most_bytes < 1:
            raise ValueError(f"a store keeps one report of one byte at least, not {most} and {most_bytes}")
        self.directory = str(Path(directory).absolute())
        self._most = most
        self._most_bytes = most_bytes
        with _opened(self.directory, make=True):
            pass

    def write(self, report: Report) -> str:
        """Keep a report, in place of one with the same id; returns its path.

        One of more than 4 MiB is made smaller. Old reports that are too many are removed.

        Raises:
            ReportDirectoryError: somebody has changed whose directory it is.
            OSError: it cannot be written; nothing is left of it, and the one that it would replace is still there.
        """
        document = encode(fit(report, MOST_BYTES_A_REPORT))
        name = file_name(report)
        with _opened(self.directory) as directory:
            write_whole(directory, name, document, unfinished=_UNFINISHED)
            # Too many old ones are no failure of this one.
            with contextlib.suppress(OSError):
                self._tidy(directory, name)
        return str(Path(self.directory, name))

    def _tidy(self, directory: int, newest: str) -> None:
        """Remove what is too much, what is of the same incident, and what was never finished."""
        incident = id_of(newest)
        kept, size = 1, 0
        others = []
        for file in sorted(_files(directory), reverse=True):
            if file.name == newest:
                size += file.size
            else:
                others.append(file)
        for file in others:
            if id_of(file.name) != incident and kept < self._most and size + file.size <= self._most_bytes:
                kept += 1
                size += file.size
            else:
                _remove(directory, file.name)
                if id_of(file.name) != incident:
                    # Older ones go too, also those that would still have room.
                    kept = self._most
        remove_stale(directory, _UNFINISHED)


def file_name(report: Report) -> str:
    """The name of a report's file, out of its time and id; whatever these are, it is a plain name."""
    written = words.instant(report.time)
    # The year may have fewer digits than four.
    moment = f"{written:%m%dT%H%M%SZ}" if written else "0000T000000Z"
    return f"unhang-{written.year if written else 0:04}{moment}-{_safe(report.id)}.json"


def _safe(name: str) -> str:
    """The name if it can be part of a file name, else one that only this one is turned into."""
    if _SAFE_ID.fullmatch(name):
        return name
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:16]
    return f"{re.sub(r'[^A-Za-z0-9]+', '_', name[:32])}-{digest}".lstrip("-.")


def id_of(path: str) -> str:
    """The id in the name of a report's file; empty if it is not named so."""
    found = _OURS.fullmatch(Path(path).name)
    return found["id"] if found else ""


@contextlib.contextmanager
def _opened(directory: str, *, make: bool = False) -> Iterator[int]:
    """A descriptor of a directory that only this user may write to; what is done with it is done there."""
    try:
        descriptor = open_safely(directory, make=make)
    except UnsafePathError as error:
        raise ReportDirectoryError(directory, f"{error.strerror}; use one of your own") from error
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise ReportDirectoryError(directory, "it is not a directory (a link is not followed)") from error
        raise
    try:
        _check(directory, os.fstat(descriptor))
        yield descriptor
    finally:
        os.close(descriptor)


def _check(directory: str, status: os.stat_result) -> None:
    if status.st_uid != os.geteuid():
        raise ReportDirectoryError(directory, f"it belongs to another user (uid {status.st_uid}); use one of your own")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        mode = stat.S_IMODE(status.st_mode)
        raise ReportDirectoryError(directory, f"others may write to it (mode {mode:o}), and only you should")


def _remove(directory: int, name: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(name, dir_fd=directory)
