"""Fault 30: eight threads of a worker arm at once, ten million times, and two processes read its page all the while."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import psutil

import unhang
from chaos_shared_stage import watched_on
from chaos_stage import HANG, Outcome, Server, Stage, Worker, failed
from chaos_threads_reader import Owner, PageOf, Seen, read_on
from unhang._core.page import scope_bytes
from unhang._watchdog import page_watch
from unhang._worker.implementation import WHY

THREADS = 8
TENTHS = 10
# Armings within one block around them, and of a thread in a tenth of its time. Plain Python takes as long for fewer.
_INNER = 500
_IN_ROUND = 1 + 2 * _INNER
_ROUNDS = 125 if WHY == "compiled" else 25
ARMINGS = THREADS * TENTHS * _ROUNDS * _IN_ROUND
WHAT = f"8 threads arm {ARMINGS / 1e6:.0f} million times at once ({WHY.partition(':')[0]}), two processes look"
# Timers that one thread has at once, and slots beside them: Python holds on to one for an instant after it was given
# back, and 3.11 calls from two instructions in one place, before and after it has specialized the first.
_NESTED = 3
_BESIDE = 1
# Seconds: the shortest timeout, by which those of the threads differ, and by which one is extended.
_LONG, _STEP, _MORE = 1000, 10, 5
# Bytes by which the worker's memory may grow from the first tenth to the last.
_GROWTH = 4 << 20
# Nanoseconds between two looks of the watchdog at each page.
_OFTEN = 2_000_000
# Seconds after which a thread lets the next one run. In plain Python it does so within a block, here more often than it
# would, for more blocks that are cut in two; compiled ones are cut where the kernel does it.
_SWITCH = 0.005 if WHY == "compiled" else 0.00025
# Every so many threads one beats a heartbeat.
_BEATING = 4
# Seconds that the slowest machine takes for all of it.
_LIMIT = 80.0


class _Names(NamedTuple):
    """The scopes and the timeouts of a thread: no two threads have one in common, but for the scope of a place."""

    outer: str
    inner: str
    after: int
    middle_after: int
    inner_after: int


_NAMES = [
    _Names(f"outer {number}", f"inner {number}", *range(_LONG + _STEP * number, _LONG + _STEP * number + 3))
    for number in range(THREADS)
]
# With a client of the timer contract there would be no timer to extend.
_expires: Callable[..., Any] = unhang.expires
_Timers = set[tuple[str, int]]
_Block = Callable[[int], _Timers]


class _Done(NamedTuple):
    """What the worker says of its armings: how many, and by how many bytes its memory grew meanwhile."""

    armings: int
    growth: int


def at_once(stage: Stage) -> Outcome:
    """Eight threads arm; afterwards each arms one more timer, and then one of them hangs."""
    server = stage.serve()
    server.ask(_look_each, _OFTEN)
    worker = stage.worker(_arm_in_threads)
    page = worker.hear()
    if isinstance(page, str):
        return failed(page)
    reader = stage.worker(read_on, page)
    reader.hear()
    worker.pipe.send("go")
    done = worker.hear(_LIMIT)
    if isinstance(done, str):
        return failed(done)
    seen = _asked(reader)
    trouble = _trouble(done, seen) or _trouble_with_last(server, worker, reader)
    if trouble:
        return failed(trouble)
    server.ask(_look_each, page_watch.BEAT)
    reader.pipe.send("rest")
    worker.pipe.send("hang")
    line = f"; {seen.whole:,} snapshots whole, {done.armings:,} armings counted, {seen.used} slots"
    return watched_on(server, [worker], [reader], f"{line}, {done.growth / (1 << 20):+.1f} MiB")


def _look_each(_server: Any, nanoseconds: int) -> None:
    page_watch.BEAT = nanoseconds


def _asked(reader: Worker) -> Seen:
    reader.pipe.send("?")
    seen: Seen = reader.hear()
    return seen


def _trouble(done: _Done, seen: Seen) -> str:
    if seen.trouble:
        return f"torn: {seen.trouble}"
    if not seen.whole:
        return "the reader saw no timer"
    if seen.armings != done.armings:
        return f"{done.armings:,} armings, of which the page has counted {seen.armings:,}"
    if seen.used > THREADS * (_NESTED + _BESIDE):
        return f"{seen.used} slots for {THREADS * _NESTED} timers at once"
    if done.growth > _GROWTH:
        return f"the worker's memory grew by {done.growth / (1 << 20):.1f} MiB"
    return f"still armed: {', '.join(seen.live)}" if seen.live else ""


def _trouble_with_last(server: Server, worker: Worker, reader: Worker) -> str:
    """Each thread holds one more timer: watchdog and reader see all eight, and none when they are left."""
    worker.pipe.send("hold")
    worker.hear()
    server.await_timers(THREADS)
    live = _asked(reader).live
    if live != tuple(sorted(names.outer for names in _NAMES)):
        return f"of {THREADS} timers at once the reader sees {', '.join(live)}"
    worker.pipe.send("leave")
    worker.hear()
    server.await_timers(0)
    seen = _asked(reader)
    return f"torn: {seen.trouble}" if seen.trouble else ", ".join(seen.live)


class _Crew:
    """The threads, which go from one step to the next together, and the thread that leads them."""

    def __init__(self) -> None:
        self._barrier = threading.Barrier(THREADS + 1)
        self.owners: dict[tuple[str, int], Owner] = {}
        self.errors: list[str] = []
        for number in range(THREADS):
            threading.Thread(target=self._run, args=(number,), daemon=True).start()

    def step(self) -> None:
        """Wait for all others; raises `threading.BrokenBarrierError` when one of them has failed."""
        self._barrier.wait()

    def _run(self, number: int) -> None:
        try:
            self._arm(number, _blocks if number % _BEATING else _beats)
        except threading.BrokenBarrierError:
            pass
        except BaseException as error:  # noqa: BLE001 - whatever it is, the row fails
            self.errors.append(f"thread {number}: {type(error).__name__}: {error}")
            self._barrier.abort()

    def _arm(self, number: int, block: _Block) -> None:
        for scope, after in block(number):
            shown = scope_bytes(scope).decode()
            self.owners[shown, after * 1_000_000_000] = Owner(threading.get_native_id(), block is _beats)
        self.step()
        self.step()
        for _ in range(TENTHS):
            for _ in range(_ROUNDS):
                block(number)
            self.step()
        self.step()
        with _expires(_NAMES[number].after, _NAMES[number].outer):
            self.step()
            self.step()
        self.step()


def _blocks(number: int) -> _Timers:
    """Blocks within a block, one of them without a name, and the outer one is extended; says which they were."""
    name, inner_name, after, middle_after, inner_after = _NAMES[number]
    with _expires(after, name) as outer:
        for _ in range(_INNER):
            with _expires(middle_after) as middle, _expires(inner_after, inner_name):
                pass
        outer.extend(_MORE)
    return {(name, after), (name, after + _MORE), (middle.scope, middle_after), (inner_name, inner_after)}


def _beats(number: int) -> _Timers:
    """As many armings, by a heartbeat and by a timer that is restarted, and extended in between."""
    name, inner_name, after, _, inner_after = _NAMES[number]
    with unhang.heartbeat(after, name) as outer, _expires(inner_after, inner_name) as inner:
        for _ in range(_INNER):
            outer.beat()
            inner.restart()
        inner.extend(_MORE)
    return {(name, after), (inner_name, inner_after), (inner_name, inner_after + _MORE)}


def _arm_in_threads(stage: Stage, pipe: Connection) -> None:
    sys.setswitchinterval(_SWITCH)
    client, crew = stage.client(), _Crew()
    try:
        _lead(client, crew, pipe)
    except threading.BrokenBarrierError:
        pipe.send("; ".join(crew.errors) or "a thread has gone")
        time.sleep(HANG)
    pipe.recv()
    pipe.send(time.monotonic() + 1.0)
    with _expires(1.0, "hangs"):
        time.sleep(HANG)


def _lead(client: unhang.SharedTimerClient, crew: _Crew, pipe: Connection) -> None:
    process = psutil.Process()
    crew.step()
    channel: Any = client.slots.channel
    (page,) = channel._pages
    pipe.send(PageOf(process.pid, page.descriptor.fd, crew.owners))
    pipe.recv()
    crew.step()
    sizes = []
    for _ in range(TENTHS):
        crew.step()
        sizes.append(process.memory_info().rss)
    pipe.send(_Done(ARMINGS + THREADS * _IN_ROUND, sizes[-1] - sizes[0]))
    pipe.recv()
    crew.step()
    crew.step()
    pipe.send("held")
    pipe.recv()
    crew.step()
    crew.step()
    pipe.send("left")
