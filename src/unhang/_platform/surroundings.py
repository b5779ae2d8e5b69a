"""What a process has open and whom it has started: descriptors, connections, children, the end of its standard error.

From procfs, at one moment, bounded in time and number. As another user, most of it cannot be read.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from unhang._core import real_time as time
from unhang._platform.process import _read
from unhang._platform.source_lines import read_place

MOST_DESCRIPTORS = 1024
MOST_CHILDREN = 32
STDERR_TAIL = 4096
_TABLES = ("tcp", "tcp6", "udp", "udp6", "unix")
_STATUS = {
    "01": "established", "02": "connecting", "03": "being accepted", "04": "closing (fin wait 1)",
    "05": "closing (fin wait 2)", "06": "closed (time wait)", "07": "closed", "08": "closed by the other side",
    "09": "closing (last ack)", "0A": "listening", "0B": "closing",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Connection:
    """A socket: ``tcp``, ``udp`` or ``unix``, its addresses as ``host:port`` (a path), and its state."""

    kind: str
    local: str = ""
    remote: str = ""
    status: str = ""

    def __str__(self) -> str:
        if self.kind == "unix":
            return f"a unix socket {self.local}".rstrip()
        arrow = f" -> {self.remote}" if self.remote else ""
        return f"{self.kind} {self.local}{arrow}"


@dataclass(frozen=True, slots=True)
class ChildSeen:
    """A child process: its pid, its name, and its state as the kernel's letter."""

    pid: int
    name: str
    state: str


def descriptors(pid: int) -> dict[int, str]:
    """What its descriptors are called: a path, ``socket:[N]``, ``pipe:[N]``, ``anon_inode:…``; at most 1024.

    Raises:
        OSError: it has exited, or may not be seen.
    """
    found = {}
    with os.scandir(f"/proc/{pid}/fd") as entries:
        for entry in itertools.islice(entries, MOST_DESCRIPTORS):
            with contextlib.suppress(OSError):
                found[int(entry.name)] = os.readlink(entry.path)
    return found


def socket_inode(name: str) -> int | None:
    """The inode of a socket, if that is what a descriptor is called."""
    number = name.removeprefix("socket:[").removesuffix("]")
    return int(number) if name.startswith("socket:[") and number.isdecimal() else None


def connections(pid: int, inodes: set[int], give_up: float) -> dict[int, Connection]:
    """The sockets with these inodes, of the network namespace of a process.

    Args:
        pid: the process.
        inodes: those that are looked for; the search ends when all are found.
        give_up: the monotonic instant at which it ends too.
    """
    found: dict[int, Connection] = {}
    # Twice: the kernel may leave an entry out of a table that changes while it is read.
    for table in _TABLES * 2:
        parse = _unix if table == "unix" else _inet
        for line in _lines(f"/proc/{pid}/net/{table}", give_up):
            if len(found) == len(inodes):
                return found
            with contextlib.suppress(ValueError, IndexError):
                inode, connection = parse(table[:3], line.split())
                if inode in inodes:
                    found[inode] = connection
    return found


def _lines(path: str, give_up: float) -> Iterator[str]:
    """The lines of a table, without its head; a host may have a hundred thousand, so time is looked at between."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            next(file, None)
            for number, line in enumerate(file):
                if number % 64 == 0 and time.monotonic() > give_up:
                    return
                yield line
    except OSError:
        return


def _inet(kind: str, words: list[str]) -> tuple[int, Connection]:
    inode = int(words[9])
    remote = "" if words[2].endswith(":0000") else _address(words[2])
    status = _STATUS.get(words[3], "") if kind == "tcp" else ""
    return inode, Connection(kind, _address(words[1]), remote, status)


def _address(text: str) -> str:
    host, _, port = text.partition(":")
    # Words of 32 bits, each in the byte order of the machine.
    words = [bytes.fromhex(host[start : start + 8]) for start in range(0, len(host), 8)]
    packed = b"".join(word[::-1] if sys.byteorder == "little" else word for word in words)
    if len(packed) == 4:
        return f"{socket.inet_ntop(socket.AF_INET, packed)}:{int(port, 16)}"
    return f"[{socket.inet_ntop(socket.AF_INET6, packed)}]:{int(port, 16)}"


def _unix(_: str, words: list[str]) -> tuple[int, Connection]:
    path = words[7] if len(words) > 7 else ""
    listens = int(words[3], 16) & 0x10000
    return int(words[6]), Connection("unix", path[:200], status="listening" if listens else "")


def children(pid: int) -> list[ChildSeen]:
    """The processes that it has started and not waited for, at most 32. Empty where the kernel does not list them."""
    found: list[ChildSeen] = []
    try:
        with os.scandir(f"/proc/{pid}/task") as entries:
            threads = [entry.path for entry in itertools.islice(entries, MOST_DESCRIPTORS)]
    except OSError:
        return found
    for thread in threads:
        with contextlib.suppress(OSError):
            for child in _read(f"{thread}/children").split():
                found += _child(int(child))
        if len(found) >= MOST_CHILDREN:
            break
    return found[:MOST_CHILDREN]


def _child(pid: int) -> list[ChildSeen]:
    try:
        line = _read(f"/proc/{pid}/stat").decode(errors="replace")
    except OSError:
        return []
    start, end = line.index("(") + 1, line.rindex(")")
    return [ChildSeen(pid, line[start:end], line[end + 2 : end + 3])]


def stderr_tail(pid: int) -> str:
    """The end of what it has written to its standard error, if that is a regular file; else nothing.

    A file on a network that is dead may keep it for ever: see `unhang._platform.patience`.

    Raises:
        OSError: that may not be read.
    """
    # Never opened for more than its place before it is known what it is: opening a pipe or a terminal has effects.
    place = os.open(f"/proc/{pid}/fd/2", os.O_PATH | os.O_CLOEXEC)
    try:
        status = os.fstat(place)
        if not stat.S_ISREG(status.st_mode):
            return ""
        text = read_place(place, max(0, status.st_size - STDERR_TAIL), STDERR_TAIL)
    finally:
        os.close(place)
    return text.decode(errors="replace")
