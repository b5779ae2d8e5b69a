"""Fault 22: hostile workers. At most they themselves die of it."""

from __future__ import annotations

import contextlib
import mmap
import os
import random
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import chaos_liar
from chaos_liar import HELLO, SEALS, Page, answer, dial, say
from chaos_shared_stage import leave_in_time, watched_on
from chaos_stage import HANG, Outcome, Stage, Verdict, failed
from unhang._core.messages import KICK, MOST_DESCRIPTORS, PAGE
from unhang._core.page import LARGEST_PAGE, MOST_BYTES, SMALLEST_PAGE, PageWriter

# Seconds until a sibling is due, and until another one is but has left its block.
_DUE, _LEAVES = 3.5, 1.5
# Seconds for which a closing descriptor may keep who closes it.
_LINGER = 8

Body = Callable[[Stage, Connection], None]


def beside(stage: Stage, body: Body, *, dies: bool = False) -> Outcome:
    """A hostile worker does something at a watchdog that others rely on; is it killed, if it should be?"""
    server = stage.serve()
    innocent = stage.worker(leave_in_time, _DUE, _LEAVES)
    hung = stage.hung(_DUE)
    server.await_timers(2)
    hostile = stage.worker(body)
    trouble, note = hostile.hear()
    if trouble:
        return failed(trouble)
    outcome = watched_on(server, [hung], [innocent], note)
    if outcome.verdict is Verdict.SURVIVED and dies and not hostile.killed_within(hostile.limit):
        return failed("the worker whose deadlines are over is alive")
    return outcome


def _stay(pipe: Connection, trouble: str = "", note: str = "") -> None:
    pipe.send((trouble, note))
    time.sleep(HANG)


def _joined(stage: Stage, pages: list[Page]) -> socket.socket:
    """A connection of a worker with these pages."""
    connection = dial(stage.path)
    fds = [page.fd for page in pages]
    say(connection, HELLO, fds[:MOST_DESCRIPTORS])
    for first in range(MOST_DESCRIPTORS, len(fds), MOST_DESCRIPTORS):
        say(connection, PAGE, fds[first : first + MOST_DESCRIPTORS])
    return connection


def all_expired(stage: Stage, pipe: Connection) -> None:
    """All timers of a small page are due since the system was started."""
    page = Page()
    page.arm_all(1)
    with _joined(stage, [page]):
        _stay(pipe)


def big_pages_expired(stage: Stage, pipe: Connection) -> None:
    """As many timers are due as a worker may have, in the largest pages that there are."""
    page = Page(LARGEST_PAGE)
    page.arm_all(1)
    with _joined(stage, [page] * (MOST_BYTES // LARGEST_PAGE)):
        _stay(pipe)


def nonsense(stage: Stage, pipe: Connection) -> None:
    """All words of the page are drawn anew all the time."""
    page, dice = Page(), random.Random(22)  # noqa: S311 - the same in each run
    raw = page.words.cast("B")
    with _joined(stage, [page]) as connection:
        answer(connection)
        pipe.send(("", ""))
        while True:
            raw[:] = dice.randbytes(SMALLEST_PAGE)
            for used in (-1, -(2**63), 2**63 - 1):
                page.words[4] = used
                time.sleep(0.001)


def holes(stage: Stage, pipe: Connection) -> None:
    """The memory of a page is given back to the system again and again."""
    page = Page()
    with _joined(stage, [page]) as connection:
        answer(connection)
        pipe.send(("", ""))
        while True:
            page.arm(time.monotonic_ns() + HANG * 1_000_000_000)
            page.punch()


def many_pages(stage: Stage, pipe: Connection) -> None:
    """A hundred pages, and again."""
    page = Page()
    for _ in range(20):
        with contextlib.suppress(ConnectionError), _joined(stage, [page] * 100) as connection:
            answer(connection)
    _stay(pipe)


def strange_descriptors(stage: Stage, pipe: Connection) -> None:
    """Descriptors of all kinds instead of pages; none is taken."""
    kinds = _strange()
    taken = [name for name, fd in kinds.items() if _is_taken(stage, fd)]
    trouble = f"taken for a page: {', '.join(taken)}" if taken else ""
    _stay(pipe, trouble, f"; {len(kinds)} kinds of descriptors refused")


def _strange() -> dict[str, int]:
    kinds = {
        "a pipe": os.pipe()[0],
        "/dev/zero": os.open("/dev/zero", os.O_RDWR),
        "/dev/null": os.open(os.devnull, os.O_RDWR),
        "a directory": os.open("/", os.O_RDONLY),
        "a file": os.open("file", os.O_RDWR | os.O_CREAT),
        "an epoll": select.epoll().fileno(),
        "a socket": socket.socket().detach(),
        "a path": os.open("/", os.O_PATH),
        "a process": os.pidfd_open(os.getpid()),
        "a memfd cut short": chaos_liar.memory(100, SEALS),
        "an uneven memfd": chaos_liar.memory(SMALLEST_PAGE + 100, SEALS),
        "a huge memfd": chaos_liar.memory(LARGEST_PAGE * 1000, SEALS),
        "an unsealed memfd": chaos_liar.memory(SMALLEST_PAGE),
        "a page for reading": chaos_liar.read_only_page(),
    }
    with contextlib.suppress(OSError):
        kinds["huge pages"] = chaos_liar.memory(1 << 21, SEALS, huge=True)
    return kinds


def _is_taken(stage: Stage, fd: int) -> bool:
    with dial(stage.path) as connection:
        say(connection, HELLO, [fd])
        return answer(connection)[:1] == b"W"


def kicks_with_descriptors(stage: Stage, pipe: Connection) -> None:
    """Connects again and again, and sends 253 descriptors with a kick, which has none."""
    fds = [os.pipe()[0]] * MOST_DESCRIPTORS
    pipe.send(("", ""))
    page = Page()
    while True:
        with contextlib.suppress(OSError), _joined(stage, [page]) as connection:
            answer(connection)
            while True:
                say(connection, KICK, fds)


def slow_to_close(stage: Stage, pipe: Connection) -> None:
    """A descriptor whose close waits: a TCP connection that lingers, as nobody reads what was sent."""
    handed = threading.Event()
    while not handed.is_set():
        threading.Thread(target=_hand_over, args=(stage, handed), daemon=True).start()
        handed.wait(0.5)
    _stay(pipe)


def _hand_over(stage: Stage, handed: threading.Event) -> None:
    """Leave the descriptor to the watchdog; waits here if that has closed it before us."""
    sender = _lingering()
    with dial(stage.path) as connection:
        say(connection, HELLO, [sender])
        os.close(sender)
        handed.set()
        time.sleep(HANG)


def _lingering() -> int:
    reader = socket.create_server(("127.0.0.1", 0))
    sender = socket.create_connection(reader.getsockname())
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, _LINGER))
    sender.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            sender.send(bytes(65536))
    threading.Thread(target=_keep, args=(reader,), daemon=True).start()
    return sender.detach()


def _keep(reader: socket.socket) -> None:
    with reader:
        time.sleep(HANG)


def hole_in_huge_page(stage: Stage, pipe: Connection) -> None:
    """A page of huge pages gets a hole when there is no huge page left to fill it."""
    page = _huge_page()
    with dial(stage.path) as connection:
        say(connection, HELLO, [page])
        if answer(connection)[:1] == b"W":
            chaos_liar.punch_hole(page, 1 << 21)
        taken = _take_huge_pages()
        _stay(pipe, note=f"; {len(taken)} huge pages taken")


def _huge_page() -> int:
    fd = chaos_liar.memory(1 << 21, SEALS, huge=True)
    PageWriter(memoryview(mmap.mmap(fd, 1 << 21)))
    return fd


def _take_huge_pages() -> list[object]:
    taken: list[object] = []
    with contextlib.suppress(OSError):
        while True:
            taken.append(chaos_liar.huge_pages(1))
    return taken
