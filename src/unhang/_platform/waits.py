"""What a thread waits for in a system call: the descriptors in its arguments, and what they are."""

from __future__ import annotations

import os
import re
import struct
from dataclasses import dataclass

from unhang._platform.look import ThreadLook
from unhang._platform.process import _read
from unhang._platform.surroundings import Connection, socket_inode

_MOST = 64
# Calls whose first argument is the descriptor.
_ONE = {
    "read", "write", "readv", "writev", "pread64", "pwrite64", "recvfrom", "recvmsg", "recvmmsg", "sendto", "sendmsg",
    "sendmmsg", "accept", "accept4", "connect", "flock", "fcntl", "fsync", "fdatasync", "ioctl", "sendfile", "splice",
}  # fmt: skip
_EPOLL = {"epoll_wait", "epoll_pwait", "epoll_pwait2"}
_POLL = {"poll", "ppoll"}
_SELECT = {"select", "pselect6"}
_TARGET = re.compile(rb"^tfd:\s+(\d+)\s+events:\s+([0-9a-f]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Target:
    """A descriptor that a thread waits for.

    Attributes:
        kind: ``tcp``, ``udp``, ``unix``, ``socket`` (another or an unknown one), ``pipe``, ``pidfd``, ``event``,
            ``timer``, ``terminal``, ``file``, or empty if it is not known.
        name: what to call it.
        listening: whether it is a socket that waits for connections.
        remote: the address at the other end of a socket, if it has one.
        file: the inode of a pipe or socket, which tells whether two are the same one; 0 if it is not known.
    """

    kind: str
    name: str
    listening: bool = False
    file: int = 0
    remote: str = ""


def waits_on_memory(thread: ThreadLook) -> bool:
    """Whether the descriptors of its call stand in its memory, which may take for ever to read."""
    return thread.syscall in _POLL | _SELECT


def numbers(pid: int, thread: ThreadLook) -> list[int]:
    """The descriptors that its call waits for.

    Raises:
        OSError: they may not be read.
    """
    arguments = thread.arguments
    if len(arguments) < 6:
        return []
    if thread.syscall in _ONE:
        return [_signed(arguments[0])]
    if thread.syscall in _EPOLL:
        return _of_epoll(pid, _signed(arguments[0]))
    if thread.syscall in _POLL:
        return _of_poll(pid, arguments[0], min(arguments[1], _MOST))
    if thread.syscall in _SELECT:
        return _of_select(pid, min(arguments[0], 1024), arguments[1:4])
    return []


def _signed(argument: int) -> int:
    number = argument & 0xFFFFFFFF
    return number - (1 << 32) if number & 0x80000000 else number


def _of_epoll(pid: int, fd: int) -> list[int]:
    return [int(match[1]) for match in _TARGET.finditer(_read(f"/proc/{pid}/fdinfo/{fd}"))][:_MOST]


def _of_poll(pid: int, address: int, count: int) -> list[int]:
    memory = _memory(pid, address, 8 * count)
    return [fd for fd, _events, _revents in struct.iter_unpack("=ihh", memory[: len(memory) // 8 * 8]) if fd >= 0]


def _of_select(pid: int, count: int, addresses: tuple[int, ...]) -> list[int]:
    found: set[int] = set()
    for address in filter(None, addresses):
        bits = int.from_bytes(_memory(pid, address, (count + 63) // 64 * 8), "little")
        found.update(fd for fd in range(count) if bits >> fd & 1)
    return sorted(found)[:_MOST]


def _memory(pid: int, address: int, size: int) -> bytes:
    if size <= 0 or not 0 < address < 1 << 63:
        return b""
    fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(fd, size, address)
    finally:
        os.close(fd)


def target(name: str, connections: dict[int, Connection]) -> Target:
    """What a descriptor is, from what it is called in ``/proc/PID/fd``."""
    inode = socket_inode(name)
    if inode is not None:
        connection = connections.get(inode)
        if connection is None:
            return Target("socket", "a socket", file=inode)
        return Target(connection.kind, str(connection), connection.status == "listening", inode, connection.remote)
    if name.startswith("pipe:["):
        return Target("pipe", "a pipe", file=int(name[6:-1]))
    if name.startswith("anon_inode:"):
        what = name.removeprefix("anon_inode:").strip("[]")
        return Target({"pidfd": "pidfd", "eventfd": "event", "timerfd": "timer"}.get(what, ""), what)
    if name.startswith(("/dev/pts/", "/dev/tty")):
        return Target("terminal", name[:200])
    return Target("file" if name.startswith("/") else "", name[:200])
