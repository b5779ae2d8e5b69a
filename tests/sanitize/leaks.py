"""A hundred thousand blocks of each kind leave nothing behind: ``leaks.py [BLOCKS]``.

Counted are the blocks of Python's allocator, the references to what all blocks share, and, if this Python counts them
(one that was configured with ``--with-pydebug``), all references. Prints what was left by which kind; the exit status
is 1 if it was more than some few.
"""
# ruff: noqa: T201 - a script, which prints

import contextlib
import gc
import sys
import time
from resource import RUSAGE_SELF, getrusage

from channel import Channel, client_over

import unhang
from unhang._worker.implementation import WHY, Heartbeat, Site, Slot, Timer
from unhang.errors import TimerStateError

# What may come and go on its own: free lists, what was asked for last. A leak leaves something for each block.
FEW = 1000
# KiB by which the process may grow while one kind is looked at.
GROWTH = 2048
LEARNED = unhang.learned(maximum=60)
AFTER, NAME = 60.25, "a name that no other module has"


def named():
    with unhang.expires(AFTER, NAME):
        pass


def unnamed():
    with unhang.expires(AFTER):
        pass


def nested():
    with unhang.expires(AFTER, NAME), unhang.expires(AFTER), unhang.expires(AFTER, scope=NAME):
        pass


def with_options():
    with unhang.expires(AFTER, NAME, signal="SIGINT", grace=1.5, pretimeout=2):
        pass


def of_a_client():
    with unhang.expires(AFTER, NAME, CLIENT):
        pass


def other_times():
    with unhang.expires(AFTER + 1, NAME):
        pass


def restarted():
    with unhang.expires(AFTER, NAME) as timer:
        timer.restart()
        timer.remaining()


def extended():
    with unhang.expires(AFTER, NAME) as timer:
        timer.extend(1)


def suspended():
    with unhang.expires(AFTER, NAME) as timer, timer.suspended():
        pass


def entered_again():
    with TIMER:
        pass


def beaten():
    HEART.beat()


def whole_heartbeats():
    with unhang.heartbeat(AFTER, NAME) as heart:
        heart.beat()


def with_learned_budgets():
    with unhang.expires(LEARNED, NAME):
        pass


def never_entered():
    unhang.expires(AFTER, NAME)


def many_at_once():
    for _ in [unhang.expires(AFTER, NAME) for _ in range(40)]:
        pass


def refused():
    for arguments in ((), (-1,), (AFTER, 1)):
        with contextlib.suppress(TypeError, ValueError):
            unhang.expires(*arguments)


def misused():
    with contextlib.suppress(TimerStateError):
        TIMER.__exit__(None, None, None)


@unhang.expires(AFTER, NAME)
def decorated():
    pass


KINDS = [
    named, unnamed, nested, with_options, of_a_client, other_times, restarted, extended, suspended, entered_again,
    beaten, whole_heartbeats, with_learned_budgets, never_entered, many_at_once, refused, misused, decorated,
]  # fmt: skip


def references():
    """How many there are to what all blocks share; 0 for what lives for ever."""
    shared = [Timer, Slot, Site, Heartbeat, CLIENT, CLIENT.sites, AFTER, NAME, None]
    shared += [kind.__code__ for kind in KINDS]
    shared += [place for slot in CLIENT.slots._living for place in (slot.cell, slot.watched, slot.free, slot.spare)]
    counts = [sys.getrefcount(one) for one in shared]
    return sum(count for count in counts if count < 1 << 28)


def left():
    """Blocks of memory, references to what is shared, and all references."""
    gc.collect()
    return sys.getallocatedblocks(), references(), getattr(sys, "gettotalrefcount", int)()


def repeat(kind, times):
    for _ in range(times):
        kind()


def growth(kind, times):
    """What is left of so many blocks, and KiB of memory."""
    repeat(kind, 2000)
    size, before = getrusage(RUSAGE_SELF).ru_maxrss, left()
    repeat(kind, times)
    after = left()
    return [now - then for now, then in zip(after, before, strict=True)], getrusage(RUSAGE_SELF).ru_maxrss - size


CHANNEL = Channel()
CLIENT = client_over(CHANNEL, time.monotonic_ns, learn=True)
TIMER = unhang.expires(AFTER, NAME)
HEART = unhang.heartbeat(AFTER, NAME)


def main():
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    worst, leaky = [0, 0, 0], []
    for kind in KINDS:
        grown, size = growth(kind, times)
        worst = [max(pair) for pair in zip(worst, grown, strict=True)]
        if max(grown) > FEW or size > GROWTH:
            leaky.append(f"{kind.__name__}: {grown[0]} blocks, {grown[1]} and {grown[2]} references, {size} KiB")
    HEART.close()
    for line in leaky:
        print(line)
    every = f", {worst[2]} references in all" if hasattr(sys, "gettotalrefcount") else ""
    print(
        f"{len(KINDS)} kinds of blocks, {times:,} each, left at most {worst[0]} blocks of memory and {worst[1]} "
        f"references to what they share{every} ({WHY})"
    )
    return 1 if leaky or CHANNEL.live() else 0


if __name__ == "__main__":
    sys.exit(main())
