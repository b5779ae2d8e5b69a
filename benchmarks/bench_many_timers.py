"""What a look at one worker with many timers costs: the watchdog at a beat, at a kick and for a report; a viewer's row.

Processor time of one thread, medians, as a table. ``python benchmarks/bench_many_timers.py``
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench_channel import WITHOUT_EVIDENCE
from bench_child import Child
from bench_crowd import hold_many
from unhang._watchdog.timers import Timers
from unhang.observe.viewing import View
from unhang.shared_timer import SharedTimerServer

_ROUNDS = 51
_COUNTS = (48, 300, 10_000)


def _milliseconds(action: Callable[[], object]) -> float:
    found = []
    for _ in range(_ROUNDS):
        start = time.thread_time()
        action()
        found.append(time.thread_time() - start)
    return statistics.median(found) * 1e3


def _looks(address: str, timers: int) -> tuple[float, ...]:
    """Milliseconds of each kind of look at a worker with so many timers armed."""
    server = SharedTimerServer(address, **WITHOUT_EVIDENCE)
    server.start()
    with Child(hold_many, address, timers - 1) as worker, contextlib.closing(View(address)) as view:
        worker.conn.recv()
        view.look()
        server._stop_signaled = True  # its loop ends, and leaves the rest to us
        server._waiter.wake()
        server._join_thread()
        watch = server._response.watch
        (watched,) = watch.workers
        (shown,) = view._workers.values()
        found = (
            _milliseconds(lambda: watch.look_at(watched)),
            _milliseconds(lambda: watch.look_at(watched, again_soon=True)),
            _milliseconds(lambda: Timers.of(watched, watch.now())),
            _milliseconds(lambda: shown.row(time.monotonic())),
        )
    server.stop()
    return found


def main() -> None:
    """Print the table."""
    print("Milliseconds of processor time")
    print("timers   at a beat   at a kick   for a report   a viewer's row")
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o700)
        for count in _COUNTS:
            beat, kick, report, row = _looks(f"{directory}/{count}.sock", count)
            print(f"{count:6,} {beat:11.3f} {kick:11.3f} {report:14.3f} {row:16.3f}")


if __name__ == "__main__":
    main()
