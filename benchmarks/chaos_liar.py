"""A worker that speaks to a watchdog by itself, without the client: pages, packets and descriptors of any kind."""

from __future__ import annotations

import array
import ctypes
import fcntl
import mmap
import os
import socket
from collections.abc import Sequence

from unhang._core.identity import Identity
from unhang._core.messages import VERSION, hello
from unhang._core.page import DEADLINE, HEADER_WORDS, SEQUENCE, SLOT_WORDS, SMALLEST_PAGE, USED, PageWriter
from unhang._platform import memfd

HELLO = hello(0, 0, Identity())
_BEFORE_VERSION, _BEHIND_VERSION = HELLO.split(bytes((VERSION,)), 1)
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
# Seconds to wait for an answer.
_PATIENCE = 5.0
_PUNCH_HOLE = 0x01 | 0x02  # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE


class Page:
    """A page whose every word can be set.

    Args:
        size: in bytes.
    """

    def __init__(self, size: int = SMALLEST_PAGE) -> None:
        self.fd, memory = memfd.create(size)
        self.size = size
        self.slots = PageWriter(memoryview(memory)).slots
        self.words = memoryview(memory).cast("q")

    def arm_all(self, deadline: int) -> None:
        """Arm every slot that there is."""
        self.words[HEADER_WORDS + SEQUENCE :: SLOT_WORDS] = memoryview(array.array("q", [1] * self.slots))
        self.words[HEADER_WORDS + DEADLINE :: SLOT_WORDS] = memoryview(array.array("q", [deadline] * self.slots))
        self.words[USED] = self.slots

    def arm(self, deadline: int) -> None:
        """Arm the first slot."""
        self.words[HEADER_WORDS + SEQUENCE] = 1
        self.words[HEADER_WORDS + DEADLINE] = deadline
        self.words[USED] = 1

    def punch(self) -> None:
        """Give the memory back to the system; what is read from then on is zero."""
        punch_hole(self.fd, self.size)


def punch_hole(fd: int, size: int) -> None:
    """Punch a hole of this size into the beginning of a file."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.fallocate(fd, _PUNCH_HOLE, ctypes.c_long(0), ctypes.c_long(size)) != 0:
        raise OSError(ctypes.get_errno(), "fallocate")


def memory(size: int, seals: int = 0, *, huge: bool = False) -> int:
    """A memfd that need not be a page."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | (os.MFD_HUGETLB if huge else 0)
    fd = os.memfd_create("strange", flags)
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


def memory_that_begins(words: dict[int, int]) -> int:
    """A page with some of its words changed."""
    page = Page()
    for index, word in words.items():
        page.words[index] = word
    return page.fd


def read_only_page() -> int:
    """A good page through a descriptor that cannot be written to."""
    return os.open(f"/proc/self/fd/{Page().fd}", os.O_RDONLY)


def huge_pages(count: int) -> mmap.mmap:
    """As many huge pages of 2 MiB, taken from the system's pool."""
    taken = mmap.mmap(memory(count << 21, huge=True), count << 21)
    for start in range(0, count << 21, 1 << 21):
        taken[start] = 1
    return taken


def hello_of_version(version: int) -> bytes:
    """The first message of a worker that speaks another version."""
    return _BEFORE_VERSION + bytes((version,)) + _BEHIND_VERSION


def dial(path: str) -> socket.socket:
    """A connection to a watchdog. Waits while too many others do."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(path)
    connection.settimeout(_PATIENCE)
    return connection


def say(connection: socket.socket, message: bytes, fds: Sequence[int] = ()) -> None:
    """Send a message with descriptors."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    connection.sendmsg([message], rights, socket.MSG_NOSIGNAL)


def answer(connection: socket.socket) -> bytes:
    """What the watchdog says; nothing when it hangs up."""
    try:
        return connection.recv(4096)
    except ConnectionError:
        return b""
