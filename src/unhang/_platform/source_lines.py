"""The text of lines of source files that a worker's stacks name."""

from __future__ import annotations

import itertools
import os
import stat
import threading

_LARGEST_FILE = 2 << 20
_LARGEST_KEPT = 256 << 10
_MOST_KEPT = 64
_MOST_FILES = 64
_LONGEST = 200
_lock = threading.Lock()
_kept: dict[tuple[int, ...], bytes] = {}


def lines_of(wanted: set[tuple[str, int]], root: str = "") -> dict[tuple[str, int], str]:
    """The lines, each stripped and cut, that could be read; keys are paths and line numbers. Thread-safe.

    Opens only regular files, and nothing that could block or be changed by that; a network that is dead may still keep
    it for ever: see `unhang._platform.patience`.

    Args:
        wanted: paths and line numbers.
        root: the directory that the paths start from, for a process that has another one.
    """
    numbers: dict[str, set[int]] = {}
    for path, number in wanted:
        if path.startswith("/"):
            numbers.setdefault(path, set()).add(number)
    found = {}
    for path in itertools.islice(sorted(numbers), _MOST_FILES):
        lines = _text(root + path).split(b"\n")
        for number in numbers[path]:
            if 0 < number <= len(lines):
                found[path, number] = lines[number - 1].decode(errors="replace").strip()[:_LONGEST]
    return found


def root_of(pid: int) -> str:
    """The directory that the paths of a process start from: empty for ours, which is assumed if it cannot be told."""
    try:
        if os.readlink(f"/proc/{pid}/ns/mnt") == os.readlink("/proc/self/ns/mnt") and (
            os.readlink(f"/proc/{pid}/root") == os.readlink("/proc/self/root")
        ):
            return ""
    except OSError:
        return ""
    return f"/proc/{pid}/root"


def _text(path: str) -> bytes:
    try:
        # Opened as a path first: opening a device may have an effect.
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            return _text_at(place)
        finally:
            os.close(place)
    except (OSError, ValueError):
        return b""


def _text_at(place: int) -> bytes:
    status = os.fstat(place)
    if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST_FILE:
        return b""
    key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    with _lock:
        if key in _kept:
            return _kept[key]
    text = read_place(place, 0, _LARGEST_FILE)
    if len(text) <= _LARGEST_KEPT:
        with _lock:
            if len(_kept) >= _MOST_KEPT:
                _kept.clear()
            _kept[key] = text
    return text


def read_place(place: int, start: int, most: int) -> bytes:
    """What stands in the regular file that was opened with ``O_PATH``, from a position on.

    Raises:
        OSError: it cannot be read.
    """
    fd = os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    parts = []
    try:
        while most > 0 and (part := os.pread(fd, min(most, 1 << 20), start)):
            parts.append(part)
            start += len(part)
            most -= len(part)
    finally:
        os.close(fd)
    return b"".join(parts)
