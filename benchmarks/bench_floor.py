"""The floor under the drop-in's blocks: what the system takes for the messages of one, and nothing else.

A request that protects from its arming on is in the pipe when arming returns: a thread could not write it while C code
keeps the GIL. So a block is two writes. A queue also counts its messages by a semaphore, which torch's server counts
back. A named pipe is opened for each request, and closed: torch's server waits for its end after each read.
"""

from __future__ import annotations

import fcntl
import multiprocessing
import os
from collections.abc import Callable

import pyperf

QUEUE_FLOOR = "floor: count and write, twice"
FIFO_FLOOR = "floor: open, write and close, twice"
_ROOM = 1 << 20
# Bytes of a request on either way, more or less.
_REQUEST = b"x" * 110


class _Drained:
    """A pipe of 1 MiB that is emptied between bursts."""

    def __init__(self, reader: int) -> None:
        self._reader = reader
        os.set_blocking(reader, False)
        fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, _ROOM)

    def drain(self) -> None:
        try:
            while os.read(self._reader, _ROOM):
                pass
        except BlockingIOError:
            pass


def queue_floor() -> tuple[Callable[[], None], Callable[[int], float]]:
    """What prepares a burst, and a burst: a number of times, in seconds."""
    reader, writer = os.pipe()
    pipe = _Drained(reader)
    count = multiprocessing.get_context("fork").Semaphore(2**31 - 1).acquire
    write, request = os.write, _REQUEST

    def burst(loops: int) -> float:
        start = pyperf.perf_counter()
        for _ in range(loops):
            count()
            write(writer, request)
            count()
            write(writer, request)
        return float(pyperf.perf_counter() - start)

    return pipe.drain, burst


def fifo_floor(path: str) -> tuple[Callable[[], None], Callable[[int], float]]:
    """As `queue_floor`, for a named pipe that is made at ``path``."""
    os.mkfifo(path)
    pipe = _Drained(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
    flags = os.O_WRONLY | os.O_NONBLOCK
    opened, write, close, request = os.open, os.write, os.close, _REQUEST

    def burst(loops: int) -> float:
        start = pyperf.perf_counter()
        for _ in range(loops):
            fd = opened(path, flags)
            write(fd, request)
            close(fd)
            fd = opened(path, flags)
            write(fd, request)
            close(fd)
        return float(pyperf.perf_counter() - start)

    return pipe.drain, burst
