"""What requests and live timers cost the server: prints JSON, figures in microseconds of the server's CPU time.

Flat out, two workers send pairs of arm and disarm as fast as they can, to each server in turn. With live timers,
one worker sends a pair every millisecond, and the server holds timers that expire tomorrow.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Self

from bench_channel import KINDS, Channel, section_arguments, serve
from bench_child import Child

_AFTER = 3600.0
_PERIOD = 0.001
_FULL_PAUSE = 0.001


@dataclass(frozen=True)
class Sizes:
    """How much to measure."""

    rounds: int = 4
    pairs: int = 2500  # of each worker in each round
    live: tuple[int, ...] = (0, 1_000, 10_000, 100_000)
    paced_pairs: int = 1000


_QUICK = Sizes(rounds=1, pairs=1000, live=(0, 10_000), paced_pairs=200)


def _insist(send: Callable[..., None], *arguments: Any) -> int:
    """Send until the pipe takes it; returns how often it was full."""
    full = 0
    while True:
        try:
            send(*arguments)
        except BlockingIOError:
            full += 1
            time.sleep(_FULL_PAUSE)
        else:
            return full


def _work(conn: Connection[Any, Any], channel: Channel) -> None:
    """A worker: for each ``(pairs, period)`` received, sends the pairs and returns how often the pipe was full."""
    client: Any = None
    while True:
        pairs, period = conn.recv()
        client = client or channel.client()
        full = 0
        due = time.monotonic()
        for _ in range(pairs):
            full += _insist(client.acquire, "step", time.time() + _AFTER)
            full += _insist(client.release, "step")
            due += period
            time.sleep(max(0.0, due - time.monotonic()) if period else 0.0)
        conn.send(full)


class Rig:
    """A server and its workers."""

    def __init__(self, channel: Channel, workers: int, live: int = 0) -> None:
        self.channel = channel
        self._stack = contextlib.ExitStack()
        self._workers = [self._stack.enter_context(Child(_work, channel)) for _ in range(workers)]
        self._server = self._stack.enter_context(Child(serve, channel, live, self._workers[0].pid))
        self.turn: float = self._server.conn.recv()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def measure(self, pairs: int, period: float) -> dict[str, Any]:
        """Let each worker send so many pairs, one per ``period`` seconds; returns what they cost the server."""
        expected = 2 * pairs * len(self._workers)
        self._server.conn.send(expected)
        self._server.conn.recv()
        for worker in self._workers:
            worker.conn.send((pairs, period))
        full = sum(worker.conn.recv() for worker in self._workers)
        cpu, handled = self._server.conn.recv()
        return {
            "library": self.channel.library,
            "kind": self.channel.kind,
            "us_per_pair": cpu / max(1, handled) * 2e6,
            "handled": handled,
            "sent": expected,
            "pipe_full": full,
        }


def _flat_out(libraries: list[str], directory: str, sizes: Sizes) -> list[dict[str, Any]]:
    """The median of the rounds, for each server; the servers take turns."""
    with contextlib.ExitStack() as stack:
        rigs = [
            stack.enter_context(Rig(Channel(library, kind, directory), workers=2))
            for library in libraries
            for kind in KINDS
        ]
        for rig in rigs:
            rig.measure(100, 0.0)
        rounds = [[rig.measure(sizes.pairs, 0.0) for rig in rigs] for _ in range(sizes.rounds)]
    return [_median(list(of_one)) for of_one in zip(*rounds, strict=True)]


def _median(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    totals = {key: sum(figures[key] for figures in rounds) for key in ("handled", "sent", "pipe_full")}
    return {**rounds[0], **totals, "us_per_pair": statistics.median(figures["us_per_pair"] for figures in rounds)}


def _with_live(libraries: list[str], directory: str, sizes: Sizes) -> list[dict[str, Any]]:
    """Each server with each number of live timers."""
    found = []
    for live in sizes.live:
        for library in libraries:
            for kind in KINDS:
                with Rig(Channel(library, kind, directory), workers=1, live=live) as rig:
                    rig.measure(50, _PERIOD)
                    figures = rig.measure(sizes.paced_pairs, _PERIOD)
                    found.append({**figures, "live": live, "us_per_turn": rig.turn * 1e6})
    return found


def main() -> None:
    """Measure both."""
    arguments = section_arguments(__doc__)
    sizes = _QUICK if arguments.quick else Sizes()
    with tempfile.TemporaryDirectory() as directory:
        flat_out = _flat_out(arguments.libraries, directory, sizes)
        live = _with_live(arguments.libraries, directory, sizes)
    json.dump({"flat_out": flat_out, "live": live}, sys.stdout)


if __name__ == "__main__":
    main()
