"""What workers under test do. Each gets a pipe as its last argument, and says there how far it has come."""

import ctypes
import os
import threading
import time

import unhang

FOREVER = 600


def sleep_in_block(client, after, say):
    """Hang asleep."""
    with unhang.expires(after, client=client):
        say.send(time.monotonic())
        time.sleep(FOREVER)


def keep_the_gil(client, after, say):
    """Hang in C code that keeps the GIL, right behind the arming."""
    keeps_the_gil = ctypes.PyDLL(None)
    say.send("ready")
    client.acquire("scope", time.time() + after)
    keeps_the_gil.sleep(FOREVER)


def loop_in_block(client, after, say):
    """Hang in a Python loop."""
    say.send("ready")
    with unhang.expires(after, client=client):
        while True:
            pass


def wait_for_a_lock(client, after, say):
    """Hang in a lock."""
    say.send("ready")
    lock = threading.Lock()
    with unhang.expires(after, client=client), lock:
        lock.acquire()


def read_forever(client, after, say):
    """Hang in a read that nobody answers."""
    say.send("ready")
    reader, _writer = os.pipe()
    with unhang.expires(after, client=client):
        os.read(reader, 1)


def blocks_in_time(client, count, say):
    """Enter and leave blocks that are never late."""
    for _ in range(count):
        with unhang.expires(60, client=client):
            pass
    say.send("done")


def arm_and_exit(client, after, say):
    """Arm a timer and end without disarming it."""
    client.acquire("scope", time.time() + after)
    say.send("armed")


def arm_and_wait(client, after, say):
    """Arm a timer, then wait outside Python's reach until killed."""
    client.acquire("scope", time.time() + after)
    say.send("armed")
    time.sleep(FOREVER)


def arm_for_ever(client, say):
    """Arm and disarm without end."""
    say.send("ready")
    while True:
        client.acquire("scope", time.time() + 60)
        client.release("scope")


def idle(say):
    """Do nothing, without end."""
    say.send("ready")
    time.sleep(FOREVER)


def hold_lock(queue, say):
    """Take the lock of a queue's writers, and hang with it."""
    queue._wlock.acquire()
    say.send("locked")
    time.sleep(FOREVER)


def stuck_in_half_a_line(path, say):
    """Write half a request to a named pipe, and hang with the pipe open."""
    pipe = os.open(path, os.O_WRONLY)
    os.write(pipe, b'{"version": 1, "pid": 4711, "sco')
    say.send("half")
    time.sleep(FOREVER)


def serve_fifo(path, say):
    """Run a FileTimerServer until killed."""
    server = unhang.FileTimerServer(path, "test")
    server.start()
    say.send("started")
    time.sleep(FOREVER)


def raise_in_block(client, say):
    """Let an exception pass through a block, and say which one came out."""
    try:
        with unhang.expires(60, client=client):
            raise LookupError("of the block")
    except LookupError as error:
        say.send(error.args)
