"""What a block costs the worker: prints JSON, an object for each alternative, and the steps of one of them.

Bursts of all alternatives take turns, so that their ratios come from the same seconds. After a burst to
a server the worker pauses: a queue's own thread and the server catch up, and the thread's CPU time is counted.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import pyperf

from bench_anatomy import steps
from bench_channel import KINDS, SHARED, Channel, kinds, section_arguments, serve
from bench_child import Child
from bench_empty import AFTER, Empty
from bench_floor import FIFO_FLOOR, QUEUE_FLOOR, fifo_floor, queue_floor
from bench_hang import serve_as_is
from unhang._worker.implementation import COMPILED, WHY

DEEP = 30
_BURST = 0.003
_MOST_SERVED = 300
_PAUSE = 0.008
_STEP = "a step of a block"

Burst = Callable[[int], float]


@dataclass
class Alternative:
    """One way to guard a block, and the seconds it took per block in each burst."""

    library: str
    client: str
    scope: str
    frames: int
    burst: Burst
    prepare: Callable[[], None] = lambda: None
    served: bool = False
    loops: int = 10
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def calibrate(self) -> None:
        """Choose the length of a burst; also the warm-up."""
        self.prepare()
        most = _MOST_SERVED if self.served else 1 << 20
        while self.loops < most and min(self._try() for _ in range(3)) < _BURST:
            self.loops = min(2 * self.loops, most)

    def _try(self) -> float:
        wall = _deep(self.frames, self.burst, self.loops)
        if self.served:
            time.sleep(_PAUSE)
        return wall

    def measure(self) -> None:
        """Run one burst."""
        self.prepare()
        before = time.process_time()
        wall = self._try()
        self.cpu.append((time.process_time() - before) / self.loops)
        self.wall.append(wall / self.loops)

    def figures(self) -> dict[str, Any]:
        """Medians in microseconds."""
        wall, cpu = (_benchmark(self.client, values) for values in (self.wall, self.cpu))
        return {
            "library": self.library,
            "client": self.client,
            "scope": self.scope,
            "frames": self.frames,
            "us": wall.median() * 1e6,
            "us_mad": wall.median_abs_dev() * 1e6,
            "cpu_us": cpu.median() * 1e6,
            "loops": self.loops,
            "bursts": len(self.wall),
        }


def _benchmark(name: str, values: list[float]) -> Any:
    return pyperf.Benchmark([pyperf.Run(values, metadata={"name": name}, collect_metadata=False)])


def _deep(frames: int, burst: Burst, loops: int) -> float:
    return burst(loops) if frames <= 1 else _deep(frames - 1, burst, loops)


def _named(timer: Any) -> Burst:
    expires = timer.expires

    def burst(loops: int) -> float:
        start = pyperf.perf_counter()
        for _ in range(loops):
            with expires(after=AFTER, scope="step"):
                pass
        return float(pyperf.perf_counter() - start)

    return burst


def _unnamed(timer: Any) -> Burst:
    expires = timer.expires

    def burst(loops: int) -> float:
        start = pyperf.perf_counter()
        for _ in range(loops):
            with expires(after=AFTER):
                pass
        return float(pyperf.perf_counter() - start)

    return burst


def _beats(timer: Any) -> Burst:
    heartbeat = timer.heartbeat(after=AFTER, scope="beats")

    def burst(loops: int) -> float:
        beat = heartbeat.beat
        start = pyperf.perf_counter()
        for _ in range(loops):
            beat()
        return float(pyperf.perf_counter() - start)

    return burst


def _empty(loops: int) -> float:
    start = pyperf.perf_counter()
    for _ in range(loops):
        with Empty():
            pass
    return float(pyperf.perf_counter() - start)


def _setitimer(loops: int) -> float:
    start = pyperf.perf_counter()
    for _ in range(loops):
        signal.setitimer(signal.ITIMER_REAL, AFTER)
        signal.setitimer(signal.ITIMER_REAL, 0)
    return float(pyperf.perf_counter() - start)


def _faulthandler(loops: int) -> float:
    start = pyperf.perf_counter()
    for _ in range(loops):
        faulthandler.dump_traceback_later(AFTER, file=sys.stderr)
        faulthandler.cancel_dump_traceback_later()
    return float(pyperf.perf_counter() - start)


def _threading_timer(loops: int) -> float:
    start = pyperf.perf_counter()
    for _ in range(loops):
        timer = threading.Timer(AFTER, print)
        timer.start()
        timer.cancel()
    return float(pyperf.perf_counter() - start)


PEERS: dict[str, Burst] = {
    "empty with": _empty,
    "signal.setitimer": _setitimer,
    "faulthandler.dump_traceback_later": _faulthandler,
    "threading.Timer": _threading_timer,
}


def _do_nothing(timer: Any) -> Any:
    def nothing(*_: object) -> None: ...

    return type("DoNothing", (timer.TimerClient,), {"acquire": nothing, "release": nothing})()


def _of_client(library: str, kind: str, timer: Any, client: Any) -> list[Alternative]:
    """A client's four: named and unnamed, at the top and deep."""
    return [
        Alternative(library, kind, scope, frames, make(timer), lambda: timer.configure(client), kind in KINDS)
        for scope, make in (("named", _named), ("unnamed", _unnamed))
        for frames in (1, DEEP)
    ]


def _floors(path: str) -> list[Alternative]:
    """What the messages of a block cost by themselves, in bursts as long as those of the drop-in."""
    (drain_queue, to_queue), (drain_fifo, to_fifo) = queue_floor(), fifo_floor(path)
    return [
        Alternative("", QUEUE_FLOOR, "", 1, to_queue, drain_queue, served=True),
        Alternative("", FIFO_FLOOR, "", 1, to_fifo, drain_fifo, served=True),
    ]


def _alternatives(channels: list[Channel]) -> list[Alternative]:
    found = [Alternative("", peer, "", 1, burst) for peer, burst in PEERS.items()]
    if any(channel.kind in KINDS for channel in channels):
        found += _floors(f"{channels[0].path}.floor")
    for timer, library in {channel.timer: channel.library for channel in channels if channel.kind in KINDS}.items():
        found += _of_client(library, "do-nothing", timer, _do_nothing(timer))
    for channel in channels:
        # A block of shared timers is nothing to a server, so KINDS alone are paused for.
        found += _of_client(channel.library, channel.kind, channel.timer, channel.client())
    return found


def _of_shared(channel: Channel) -> list[Alternative]:
    """What only shared timers have: a heartbeat, and, in plain Python, the steps of a block."""
    client, timer = channel.client(), channel.timer
    beats = Alternative(channel.library, SHARED, "a beat()", 1, _beats(timer), lambda: timer.configure(client))
    parts = {} if WHY == COMPILED else steps(client)
    return [beats, *(Alternative(_STEP, name, "", 1, burst) for name, burst in parts.items())]


def _work(conn: Connection[Any, Any], channels: list[Channel], bursts: int) -> None:
    """The worker: it is no ancestor of the servers, which would refuse to watch it."""
    alternatives = _alternatives(channels)
    alternatives += [more for channel in channels if channel.kind == SHARED for more in _of_shared(channel)]
    for alternative in alternatives:
        alternative.calibrate()
    for _ in range(bursts):
        for alternative in alternatives:
            alternative.measure()
    figures = [alternative.figures() for alternative in alternatives]
    conn.send(
        {
            "blocks": [row for row in figures if row["library"] != _STEP],
            "steps": {row["client"]: row["us"] for row in figures if row["library"] == _STEP},
        }
    )


def main() -> None:
    """Start the servers and the worker."""
    arguments = section_arguments(__doc__)
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        channels = [Channel(library, kind, directory) for library in arguments.libraries for kind in kinds(library)]
        for channel in channels:
            target = serve_as_is if channel.kind == SHARED else serve
            stack.enter_context(Child(target, channel)).conn.recv()
        worker = stack.enter_context(Child(_work, channels, 7 if arguments.quick else 60))
        json.dump(worker.conn.recv(), sys.stdout)


if __name__ == "__main__":
    main()
