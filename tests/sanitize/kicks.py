"""No kick is lost: a worker arms while its watchdog looks, at the same instant, again and again: ``kicks.py [ROUNDS]``.

In each round the worker stores a deadline, then loads `wake`; the watchdog stores a later `wake`, then loads the
deadline. If neither sees what the other stored, the deadline is found too late. The worker enters a block; the watchdog
is the reader of the page, or the same steps in C, closer together (``kicks.c``). One of the two begins with a burst of
other stores, for which the first of its two steps has to wait, and its second one need not.

Prints how often neither saw the other: never may that be with the compiled block and the fence. Without the fence it is
the proof that this machine, and this program, would show it; for the block in plain Python it is just told.
"""
# ruff: noqa: T201 - a script, which prints

import ctypes
import itertools
import mmap
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from channel import Channel, client_over

from unhang._core.page import HEADER_WORDS, NEVER, SMALLEST_PAGE, WAKE, WORD, PageWriter
from unhang._core.page_reader import PageReader
from unhang._worker import implementation, plain

LATE = 7200 * 1_000_000_000  # nanoseconds
# Words of the page's header that nobody uses: the round for which the worker is ready, that has begun, in which it has
# armed, and in which the watchdog has looked; and whether the watchdog was told.
READY, ROUND, ARMED, LOOKED, TOLD = 16, 17, 18, 19, 20
LINES, LINE = 48, 64  # of a burst
SPINS = 2000
WAIT = 150  # turns of an empty loop, for which the watchdog waits; some microseconds
JITTER = 24
SECONDS = 4  # for one setting, where the machine has other things to do
OVER = -1  # a round that never comes


@dataclass
class Setting:
    """How it is tried.

    Attributes:
        made_of: the implementation of the block.
        close: whether the watchdog's two steps are those in C.
        fenced: whether there is a fence between them.
        hurried: who begins with a burst of other stores.
    """

    name: str
    made_of: object
    close: bool
    fenced: bool
    hurried: str


class Kicks:
    """The memory that the two processes share, and what they do with it."""

    def __init__(self, library, setting, rounds):
        self.library, self.setting, self.rounds = library, setting, rounds
        self.memory, self.burst = mmap.mmap(-1, SMALLEST_PAGE), mmap.mmap(-1, LINES * LINE)
        PageWriter(memoryview(self.memory))
        self.words = memoryview(self.memory).cast("q")
        self.page, self.lines = address(self.memory), address(self.burst)
        library.clock_ns.restype = ctypes.c_int64
        library.look.argtypes = [*[ctypes.c_void_p, ctypes.c_int64] * 2, ctypes.c_void_p, ctypes.c_int64]
        ctypes.c_void_p.in_dll(library, "clock_words").value = self.lines
        ctypes.c_int64.in_dll(library, "clock_lines").value = LINES if setting.hurried == "worker" else 0

    def run(self):
        """How often the worker has told the watchdog, and how often that has seen the deadline, in pairs."""
        worker = os.fork()
        if worker == 0:
            try:
                self.work()
            finally:
                os._exit(0)
        try:
            return self.watch()
        finally:
            os.waitpid(worker, 0)

    def work(self):
        """The worker: in each round it enters a block, and leaves it when the watchdog has looked."""
        words, channel, dice, lines = self.words, Channel(self.memory), random.Random(1), bytes(LINES * LINE)  # noqa: S311 - the same in each run
        client = client_over(channel, self.library.clock_ns, self.setting.made_of)
        timer = client.timer(3600, "block")
        with timer:
            pass
        wait = WAIT
        for number in range(1, self.rounds + 1):
            channel.told = 0
            if self.setting.hurried == "watchdog":
                self.burst[:] = lines
            words[READY] = number
            if not await_word(words, ROUND, number):
                break
            delay(wait + int(dice.random() * JITTER))
            timer.__enter__()
            words[TOLD] = channel.told
            # Now the one comes first and now the other, by as little as can be.
            wait = max(0, wait - 1) if channel.told else wait + 1
            words[ARMED] = number
            await_word(words, LOOKED, number)
            timer.__exit__(None, None, None)

    def watch(self):
        """The watchdog: in each round it promises to look late, and looks."""
        words, seen, lines = self.words, Counter(), bytes(LINES * LINE)
        page = PageReader(memoryview(self.memory), implementation.fence)
        look = self.look_closely if self.setting.close else self.look_as_usual
        give_up = time.monotonic_ns() + SECONDS * 1_000_000_000
        for number in range(1, self.rounds + 1):
            await_word(words, READY, number)
            now = time.monotonic_ns()
            if now > give_up:
                words[ROUND] = OVER
                break
            page.promise(now, now)
            if self.setting.hurried == "worker":
                self.burst[:] = lines
            words[ROUND] = number
            delay(WAIT)
            saw = look(page, now)
            await_word(words, ARMED, number)
            seen[bool(words[TOLD]), saw] += 1
            words[LOOKED] = number
        return seen

    def look_as_usual(self, page, now):
        page.promise(now + LATE, now)
        return page.earliest() < NEVER

    def look_closely(self, _page, now):
        wake, deadline = self.page + WAKE * WORD, self.page + HEADER_WORDS * WORD
        lines = LINES if self.setting.hurried == "watchdog" else 0
        return bool(self.library.look(wake, now + LATE, deadline, self.setting.fenced, self.lines, lines))


def address(memory):
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def await_word(words, index, number):
    """Whether the other one has come so far; False: it never will."""
    for turn in itertools.count():
        if words[index] == number:
            return True
        if words[index] == OVER:
            return False
        if turn > SPINS:  # the other one may wait for this processor
            time.sleep(0)
    return False


def delay(turns):
    for _ in range(turns):
        pass


def build(directory):
    """The steps in C."""
    library = Path(directory, "kicks.so")
    source = Path(__file__).with_name("kicks.c")
    subprocess.run(
        [shutil.which("gcc"), "-std=gnu11", "-O2", "-shared", "-fPIC", source, "-o", library], check=True, timeout=60
    )
    return ctypes.CDLL(str(library))


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    if implementation.WHY != "compiled":
        return f"there is no compiled block here ({implementation.WHY})"
    compiled = implementation.CHOSEN
    strict = [
        Setting("the page's reader", compiled, close=False, fenced=True, hurried="watchdog"),
        Setting("in C, the watchdog hurried", compiled, close=True, fenced=True, hurried="watchdog"),
        Setting("in C, the worker hurried", compiled, close=True, fenced=True, hurried="worker"),
    ]
    others = [
        Setting("in C, without the fence", compiled, close=True, fenced=False, hurried="watchdog"),
        Setting("in C, a block in plain Python", plain, close=True, fenced=True, hurried="worker"),
    ]
    results = {}
    with tempfile.TemporaryDirectory() as directory:
        library = build(directory)
        for setting in strict + others:
            results[setting.name] = seen = Kicks(library, setting, rounds).run()
            print(
                f"{setting.name}: both saw the other {seen[True, True]:,}, the watchdog alone {seen[False, True]:,}, "
                f"the worker alone {seen[True, False]:,}, neither {seen[False, False]:,}"
            )
    told = [f"{setting.name} {outcome(results[setting.name])}" for setting in others]
    seen = sum((results[setting.name] for setting in strict), Counter())
    print(f"lost are {outcome(seen)}; {', '.join(told)}")
    return 1 if seen[False, False] else 0


def outcome(seen):
    return f"{seen[False, False]:,} of {seen.total():,} rounds"


if __name__ == "__main__":
    sys.exit(main())
