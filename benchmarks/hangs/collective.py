"""A small library of collectives over TCP: what all ranks of a job do together, or not at all.

`Star`: rank 0 has a thread that takes a contribution from each rank, and answers when it has all of them. A rank that
ends is not noticed. `Ring`: each rank sends to the next one and receives from the one before.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import threading
import time
from typing import Any


def connect(address: tuple[str, int], patience: float = 20.0) -> socket.socket:
    """A connection to somebody who may not be there yet."""
    give_up = time.monotonic() + patience
    while True:
        try:
            return socket.create_connection(address)
        except ConnectionRefusedError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.02)


class Star:
    """The ranks of the job that the environment names as torchrun does, rank 0 in the middle."""

    def __init__(self) -> None:
        self.rank, self.size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        if self.rank == 0:
            server = socket.create_server(address)
            threading.Thread(target=_serve, args=[server, self.size], name="collectives", daemon=True).start()
        self._stream = connect(address).makefile("rwb")
        self._count = 0

    def all_gather(self, value: Any, name: str | None = None) -> list[Any]:
        """The values of all ranks; ``name``: which gathering this is, else the next one of its kind."""
        if name is None:
            self._count += 1
            name = f"gathering {self._count}"
        self._stream.write(json.dumps([name, self.rank, value]).encode() + b"\n")
        self._stream.flush()
        values: list[Any] = json.loads(self._stream.readline())
        return values

    def all_reduce(self, value: float, name: str | None = None) -> float:
        """The sum over all ranks."""
        return float(sum(self.all_gather(value, name)))

    def barrier(self, name: str = "barrier") -> None:
        """Return when all ranks have come here."""
        self.all_gather(None, name)


def _serve(server: socket.socket, size: int) -> None:
    """Take contributions, and answer to all when one is complete."""
    streams = [server.accept()[0].makefile("rwb", buffering=0) for _ in range(size)]
    pending: dict[str, dict[int, Any]] = {}
    with selectors.DefaultSelector() as selector:
        for stream in streams:
            selector.register(stream, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                line = key.fileobj.readline()  # type: ignore[union-attr]
                if line:
                    _take(line, pending, streams)
                else:
                    selector.unregister(key.fileobj)


def _take(line: bytes, pending: dict[str, dict[int, Any]], streams: list[Any]) -> None:
    name, rank, value = json.loads(line)
    values = pending.setdefault(name, {})
    values[rank] = value
    if len(values) == len(streams):
        del pending[name]
        answer = json.dumps([values[place] for place in sorted(values)]).encode() + b"\n"
        for stream in streams:
            stream.write(answer)


class Ring:
    """The same ranks, in a circle; they find each other by a `Star`."""

    def __init__(self) -> None:
        star = Star()
        self.rank, self.size = star.rank, star.size
        server = socket.create_server(("127.0.0.1", 0))
        addresses = star.all_gather(server.getsockname())
        self._next = connect(tuple(addresses[(self.rank + 1) % self.size])).makefile("wb", buffering=0)
        self._before = server.accept()[0].makefile("rb")

    def all_reduce(self, value: float) -> float:
        """The sum over all ranks."""
        total = passing = value
        for _ in range(self.size - 1):
            self._next.write(f"{passing}\n".encode())
            passing = float(self._before.readline())
            total += passing
        return total
