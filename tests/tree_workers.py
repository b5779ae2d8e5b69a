"""Workers with processes below them. None outlives its time: each has an alarm, and who forks on has a last moment.

All processes of a tree hold the worker's pipe, so its other end says when the last one is gone.
"""

import contextlib
import mmap
import os
import signal
import time

LIFE = 20  # seconds
MOST = 300  # processes that one worker makes at a time


def live():
    """Sleep to the end of one's life."""
    signal.alarm(LIFE)
    while True:
        time.sleep(LIFE)


def place(where):
    """Lead a session or a group, or stay where one is."""
    if where == "session":
        os.setsid()
    elif where == "group":
        os.setpgid(0, 0)


def born(*todo):
    """Fork; the child does these things, and never returns."""
    pid = os.fork()
    if pid:
        return pid
    try:
        signal.alarm(LIFE)
        for action in todo:
            action()
        live()
    finally:
        os._exit(1)


def lonely(where, say):
    """Have nobody below."""
    place(where)
    say.send(os.getpid())
    live()


def guest(group, say):
    """Enter somebody else's process group, as the commands of a pipeline do."""
    os.setpgid(0, group)
    say.send("in")
    live()


def wide(children, grandchildren, say):
    """Have so many children with so many children each; say all pids, the worker's first."""
    reader, writer = os.pipe()

    def child():
        pids = [os.getpid(), *(born() for _ in range(grandchildren))]
        os.write(writer, b"".join(pid.to_bytes(8) for pid in pids))

    for _ in range(children):
        born(child)
    size = 8 * children * (grandchildren + 1)
    data = b""
    while len(data) < size:
        data += os.read(reader, size)
    say.send([os.getpid(), *(int.from_bytes(data[at : at + 8]) for at in range(0, size, 8))])
    live()


def deep(generations, say):
    """Have a child that has a child, and so on; the last one says that it is there."""
    for _ in range(generations):
        if os.fork():
            live()
    say.send("deep")
    live()


def deaf(say):
    """Ignore SIGTERM, and so does the child."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    say.send(born())
    live()


def stopped(say):
    """Have a child that is stopped."""
    pid = born()
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED)
    say.send(pid)
    live()


def orphans(where, say):
    """Have a child that leads a session or group and a child of its own there; told to, let the first exit."""
    reader, writer = os.pipe()
    first = born(lambda: place(where), lambda: say.send((os.getpid(), born())), lambda: os.read(reader, 1), leave)
    say.recv()
    os.write(writer, b"x")
    os.waitpid(first, 0)
    say.send("gone")
    live()


def leave():
    """Exit without a word."""
    os._exit(0)


def moving_chain(where, on_the_way, say):
    """When asked to end, become a chain of processes each of which makes the next and exits.

    Args:
        where: what the worker leads.
        on_the_way: what each of the chain leads; "once" for a session that the first leads alone.
        say: hears when it waits, and when the chain is on its way.
    """
    place(where)
    signal.alarm(LIFE)

    def move(number, frame):
        last_moment = time.monotonic() + LIFE
        for step in range(1_000_000):
            if time.monotonic() > last_moment or os.fork():
                leave()
            signal.alarm(LIFE)
            if on_the_way != "once" or step == 0:
                place("session" if on_the_way == "once" else on_the_way)
            if step == 20:
                say.send("on the way")

    signal.signal(signal.SIGTERM, move)
    say.send("waits")
    live()


def storm(say):
    """When asked to end, fork without end, and so does every child; no more than `MOST` in all."""
    made = mmap.mmap(-1, 1 << 16)  # a byte for each that was made: shared by all
    last_moment = time.monotonic() + LIFE

    def rage(number, frame):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while time.monotonic() < last_moment:
            count = made.find(b"\0")
            if count >= MOST:
                live()
            made[count] = 1
            if count == 20:
                say.send("raging")
            with contextlib.suppress(OSError):
                if not os.fork():
                    signal.alarm(LIFE)

    signal.signal(signal.SIGTERM, rage)
    signal.alarm(LIFE)
    say.send("waits")
    live()
