"""All that a block goes through in the life of a program, for a sanitizer to watch: ``stress.py [TIMES]``.

Exits with status 0 if nothing stayed armed and nothing was lost; what is wrong with the memory, the sanitizer says.
"""
# ruff: noqa: T201 - a script, which prints

import asyncio
import contextlib
import datetime as dt
import gc
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
import weakref

from channel import Channel, client_over

import unhang
from unhang._worker.implementation import WHY, Heartbeat, Site, Slot, Timer
from unhang.errors import TimerStateError

OPTIONS = [{}, {"signal": "SIGINT"}, {"signal": 15, "grace": 1.5}, {"pretimeout": 2}]
LONGEST = 2.3e9  # seconds


_worlds = itertools.count()


class InterruptError(Exception):
    """Raised by a signal handler, wherever the program is."""


def fresh(clock=time.monotonic_ns):
    channel = Channel()
    # Every other world learns.
    client_over(channel, clock, learn=next(_worlds) % 2 == 1)
    return channel


def expect(channel, live=(), *, armings=None):
    """Check what is armed, once what was dropped is gone."""
    gc.collect()
    assert channel.live() == list(live), channel.live()
    assert armings is None or channel.sequence == armings, (channel.sequence, armings)


def every_kind_of_block(number):
    """Enter and leave blocks of every kind; returns how often that arms a timer."""
    armings = 0
    for options in OPTIONS:
        with unhang.expires(60, f"made up {number % 300}", **options) as timer, unhang.expires(60.5):
            with unhang.expires(after=dt.timedelta(seconds=61), scope="nested") as inner:
                assert inner.remaining() > 60
            with timer.suspended():
                assert timer.state == "suspended"
            timer.restart()
            timer.extend(5)
            timer.extend(dt.timedelta(seconds=1))
            repr(timer)
        with timer:
            pass
        armings += 5
    with unhang.heartbeat(60, "heart") as heart:
        for _ in range(4):
            heart.beat()
    with unhang.expires(LONGEST, "long") as timer, timer.suspended():
        pass
    with timer:
        timer.extend(LONGEST)
        timer.restart()
    made = [unhang.expires(60, "never entered") for _ in range(40)]
    assert {timer.state for timer in made} == {"created"}
    return armings + 4 + 3 + deep(5)


def deep(depth):
    """Blocks of one place within each other."""
    if depth == 0:
        return 0
    with unhang.expires(60):
        return 1 + deep(depth - 1)


def blocks(times):
    """One thread; the clock is a function of Python's in every other round."""
    for clock in (time.monotonic_ns, lambda: time.clock_gettime_ns(time.CLOCK_MONOTONIC)):
        channel = fresh(clock)
        expect(channel, armings=sum(every_kind_of_block(number) for number in range(50 * times)))


def decorated(times):
    """Each call of a function, of a generator and of a coroutine has a block of its own."""
    channel = fresh()

    @unhang.expires(60, "function")
    def function(value):
        return value

    @unhang.expires(60, "coroutine")
    async def coroutine(value):
        await asyncio.sleep(0)
        return value

    async def gather():
        return await asyncio.gather(*(coroutine(number) for number in range(20)))

    for _ in range(times):
        assert [function(number) for number in range(20)] == list(range(20))
        assert asyncio.run(gather()) == list(range(20))
    expect(channel, armings=40 * times)


def threads(times):
    """Some threads at once, which end and are followed by others."""
    channel, counts = fresh(), []
    for _ in range(2):
        crew = [
            threading.Thread(target=lambda: counts.append(sum(every_kind_of_block(n) for n in range(20 * times))))
            for _ in range(4)
        ]
        for thread in crew:
            thread.start()
        for thread in crew:
            thread.join()
    expect(channel, armings=sum(counts))
    assert len(counts) == 8


def forks(times):
    """A child inherits a block, leaves it, or drops it, goes on with its own, and forks in turn."""
    channel = fresh()

    def in_child(depth):
        with unhang.expires(60, "child's own"):
            every_kind_of_block(0)
            if depth:
                fork(depth - 1)
        gc.collect()

    def fork(depth):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                in_child(depth)
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0

    for _ in range(times):
        with unhang.expires(60, "inherited") as timer:
            fork(1)
            assert timer.state == "armed"
            timer.restart()
        if os.fork() == 0:
            del timer
            unhang.configure(None)
            gc.collect()
            os._exit(0)
        assert os.wait()[1] == 0
    expect(channel, armings=2 * times)


class Interrupting:
    """A signal handler that raises, once each time it may."""

    def __init__(self):
        self.may = False
        self.fired = 0

    def __call__(self, *_):
        self.fired += 1
        if self.may:
            self.may = False
            raise InterruptError


def signals(times):
    """Handlers that arm timers themselves, then such that raise, wherever the program is."""
    channel, fired, interrupting = fresh(), itertools.count(), Interrupting()

    def arm(*_):
        next(fired)
        with unhang.expires(60, "in a handler") as timer:
            timer.restart()

    for handler in (arm, interrupting):
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        for number in range(60 * times):
            with contextlib.suppress(InterruptError):
                interrupting.may = True
                every_kind_of_block(number)
                interrupting.may = False
        signal.setitimer(signal.ITIMER_REAL, 0)
    expect(channel)
    assert next(fired) > times
    assert interrupting.fired > times


def collections(times):
    """A collection at every allocation that may start one, in the callbacks of dropped slots, and in the clock."""

    def clock():
        gc.collect(0)
        return time.monotonic_ns()

    kept, channel = [], fresh(clock)
    thresholds = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    for number in range(2 * times):
        every_kind_of_block(number)
        with unhang.expires(60, f"watched {number}") as timer:
            kept.append(weakref.ref(timer._slot, lambda _: gc.collect()))
            timer.extend(1)
    gc.set_threshold(*thresholds)
    expect(channel)


def dropped(times):
    """Timers are dropped while they are armed, alone and in cycles, in blocks that fail and in generators."""
    channel = fresh()
    for _ in range(20 * times):
        unhang.expires(60, "dropped").__enter__()
        cycle = [unhang.expires(60, "in a cycle").__enter__()]
        cycle.append(cycle)
        client = unhang.SharedTimerClient._over(Channel(), time.monotonic_ns)
        client.acquire("held", time.time() + 60)
        client.acquire("held", time.time() + 60)
        generator = (unhang.expires(60).__enter__() for _ in range(3))
        next(generator)
        del cycle, generator, client
    expect(channel)
    assert channel.used < 100


def clients(times):
    """Clients come and go, those with armed timers too; more scopes than are remembered."""
    for number in range(20 * times):
        channel = fresh()
        every_kind_of_block(number)
        timer = unhang.expires(60, "outlives its client").__enter__()
        gc.collect(1)
        fresh()
        assert channel.live() == ["outlives its client"]
        timer.__exit__(None, None, None)
        expect(channel)
    for number in range(1000 * times):
        with unhang.expires(60, f"scope {number}"):
            pass


def misuse(times):
    """Every call that must fail does, with an error and nothing else."""
    channel = fresh()
    bad = [
        (unhang.expires, (), {}), (unhang.expires, (-1,), {}), (unhang.expires, ("1",), {}),
        (unhang.expires, (float("nan"),), {}), (unhang.expires, (1, 2), {}),
        (unhang.expires, (1, "a", None, 4), {}), (unhang.expires, (1,), {"after": 1}), (unhang.expires, (1,), {"x": 1}),
        (unhang.expires, ([],), {}), (unhang.expires, (1,), {"signal": []}), (unhang.expires, (1, []), {}),
    ]  # fmt: skip
    for _ in range(times):
        for function, args, options in bad:
            fails(function, *args, **options)
        timer = unhang.expires(60, "misused")
        for call in (timer.restart, timer.remaining, timer.__exit__):
            fails(call)
        fails(timer.__exit__, None, None, None)
        with timer:
            fails(timer.__enter__)
            fails(timer.extend, -1)
            fails(timer.extend, "1")
            fails(timer._move, 1)
        heart = unhang.heartbeat(60, "misused")
        heart.close()
        fails(heart.beat)
    expect(channel)


def internals(times):
    """What nobody calls, and what is half made: errors, and no crash."""
    if WHY != "compiled":
        return
    words, few, fixed = memoryview(bytearray(256)), memoryview(bytearray(8)), memoryview(bytes(256))
    sys.unraisablehook, hook = lambda event: None, sys.unraisablehook  # a slot that was never made is dropped
    for _ in range(times):
        for place in ((few, words), (words, few), (fixed, words), (words[1:], words), (words, fixed), (1, words)):
            fails(Slot([], []).put, *place)
        fails(Slot, 1)
        fails(Timer, 1)
        for call in (Timer, Site, Heartbeat, Timer(Site.__new__(Site)).__enter__, Heartbeat.__new__(Heartbeat).beat):
            fails(call)
        timer = unhang.expires(60, "internal")
        timer._move(Slot.__new__(Slot), 1, 2)
        with timer:
            fails(timer._move, 1, 2, 3)
            del timer._slot.free
            timer._site.free = None
        with timer:  # in a slot that no list takes
            pass
        unhang.configure(None)
        fresh()
    gc.collect()
    sys.unraisablehook = hook


def fails(call, *args, **options):
    with contextlib.suppress(TimerStateError, TypeError, ValueError, BufferError, SystemError, AttributeError):
        call(*args, **options)
        raise AssertionError(call, args, options)


AT_THE_END = """
import atexit, sys, threading, time
import channel, unhang
channel.client_over(channel.Channel(), time.monotonic_ns)
def arm():
    with unhang.expires(60, "late"), unhang.expires(60):
        pass
"""
ENDINGS = [
    "kept = unhang.expires(60).__enter__()",
    "cycle = [unhang.expires(60).__enter__()]; cycle.append(cycle)",
    "sys.kept = unhang.expires(60).__enter__(); sys.heart = unhang.heartbeat(60); sys.heart.beat()",
    "atexit.register(arm); arm()",
    "threading.Thread(target=lambda: [arm() for _ in iter(int, 1)], daemon=True).start(); arm(); time.sleep(0.05)",
    "class Late:\n    __del__ = lambda self, arm=arm: arm()\nsys.late = Late(); arm()",
]


def endings(times):
    """Programs end with timers armed, while a thread arms, and in the last calls of all."""
    for ending in ENDINGS[: max(1, times)]:
        command = [sys.executable, "-W", "ignore", "-c", AT_THE_END + ending]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        subprocess.run(command, check=True, env=environment, stderr=subprocess.DEVNULL, timeout=60)


PARTS = [blocks, decorated, threads, forks, signals, collections, dropped, clients, misuse, internals, endings]


def main():
    warnings.simplefilter("ignore")
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    lost = []
    sys.unraisablehook = lambda event: event.exc_type is InterruptError or lost.append(repr(event.exc_value))
    for part in PARTS:
        part(times)
        assert not lost, (part, lost)
    print(f"{', '.join(part.__name__ for part in PARTS)}: nothing stays armed ({WHY})")


if __name__ == "__main__":
    main()
