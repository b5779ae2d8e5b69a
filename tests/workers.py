"""What workers under test do. Each gets a pipe as its last argument, and says there how far it has come."""

import contextlib
import ctypes
import importlib
import os
import signal
import socket
import threading
import time

import unhang
from unhang._core.identity import Identity
from unhang._core.messages import hello
from unhang._core.page import SMALLEST_PAGE, PageWriter
from unhang._platform import memfd
from unhang._worker.connection import Connection

FOREVER = 600


def sleep_in_block(client, after, say):
    """Hang asleep; says in its block when it came to it (monotonic clock)."""
    came = time.monotonic()
    with unhang.expires(after, client=client):
        say.send(came)
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


def blocks_without_end(client, say):
    """Enter and leave blocks until killed; say once that it goes."""
    with unhang.expires(60, client=client):
        say.send("ready")
    while True:
        with unhang.expires(60, client=client):
            pass


def step_by_step(client, say):
    """Do what comes over the pipe: ``("enter", after, scope)``, ``("leave",)``, or ``("hang",)``; say when done."""
    timers = []
    say.send("ready")
    while True:
        what, *args = say.recv()
        if what == "enter":
            timers.append(client.timer(*args))
            timers[-1].__enter__()
        elif what == "enter many":
            for number in range(args[0]):
                timers.append(client.timer(600, f"timer {number}"))
                timers[-1].__enter__()
        elif what == "leave":
            timers.pop().__exit__(None, None, None)
        else:
            time.sleep(FOREVER)
        say.send("done")


def close_all_descriptors(client, say):
    """Close what a daemon closes, take the numbers for sockets of its own, and say what is written into those."""
    with unhang.expires(60, client=client):
        for fd in range(3, 1024):
            if fd != say.fileno():
                with contextlib.suppress(OSError):
                    os.close(fd)
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(20)]
        give_up = time.monotonic() + 3.5
        while time.monotonic() < give_up:
            with unhang.expires(0.5, client=client):
                pass
    for _, other in pairs:
        other.setblocking(False)
    say.send([data for _, other in pairs if (data := _waiting(other))])
    with unhang.expires(0.2, client=client):
        time.sleep(FOREVER)


def _waiting(reader):
    try:
        return reader.recv(100)
    except BlockingIOError:
        return b""


def serve_shared(address, say):
    """Run a SharedTimerServer until killed."""
    server = unhang.SharedTimerServer(address, signal="none", evidence=0)
    server.start()
    say.send("started")
    time.sleep(FOREVER)


def fork_in_block(client, say):
    """Fork inside a block; the child leaves it, arms a timer of its own and hangs; the parent hangs too."""
    with unhang.expires(2.5, "parent's", client):
        if os.fork():
            time.sleep(FOREVER)
    with unhang.expires(0.3, "child's", client):
        time.sleep(FOREVER)


def alarm_while_connecting(address, say):
    """Arm a timer in a signal handler that runs while another timer, the first of this process, connects."""
    client = unhang.SharedTimerClient(address)
    states = []

    def arm(number, frame):
        with unhang.expires(60, "handler", client) as timer:
            states.append(timer.state)

    signal.signal(signal.SIGUSR1, arm)
    greet = Connection._greet

    def interrupted(self, *args):
        signal.raise_signal(signal.SIGUSR1)
        greet(self, *args)

    Connection._greet = interrupted
    with unhang.expires(60, "first", client) as timer:
        states.append(timer.state)
        say.send(states)
        time.sleep(FOREVER)


def ignore_sigterm_in_block(client, after, say):
    """Hang, deaf to SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    say.send("ready")
    with unhang.expires(after, "deaf", client):
        time.sleep(FOREVER)


def say_how_it_is_asked(client, after, options, say):
    """Hang, and say which signal asks to end, then when it was asked; go on hanging."""

    def asked(number, frame):
        say.send(number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, asked)
    say.send("ready")
    with unhang.expires(after, "asked", client, **options):
        while True:
            time.sleep(FOREVER)


def leave_when_looked_at(client, after, say):
    """Be in a block beyond its deadline, leave it when told, and do more work."""
    with unhang.expires(after, "slow", client):
        say.send("ready")
        say.recv()
    with unhang.expires(60, "next", client):
        say.send("alive")
        time.sleep(FOREVER)


def rank_in_block(address, rank, job, scope, after, say):
    """Be a rank of a job, in a block from when it is told to."""
    os.environ.update({"UNHANG_JOB": job, "RANK": str(rank), "LOCAL_RANK": str(rank)})
    client = unhang.SharedTimerClient(address)
    with unhang.expires(60, "warm up", client):
        say.send("ready")
    say.recv()
    with unhang.expires(after, scope, client):
        time.sleep(FOREVER)


def hang_sealed(client, after, say):
    """Hang in C code that keeps the GIL, where nobody but root may look into this process."""
    libc = ctypes.PyDLL(None)
    with unhang.expires(60, "first", client):
        pass
    libc.prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE
    say.send("ready")
    with unhang.expires(after, "sealed", client):
        while True:  # the signal for its stacks ends a sleep
            libc.sleep(FOREVER)


def as_user(user, function, *args):
    """Do something as another user, who need not be able to read the modules, and so imports none later."""
    import pkgutil
    import sysconfig
    import traceback  # noqa: F401 - see above

    for module in pkgutil.walk_packages(unhang.__path__, "unhang."):
        if module.name != "unhang.__main__":
            importlib.import_module(module.name)
    sysconfig.get_paths()
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
    function(*args)


def serve_for_reports(address, directory, options, say):
    """Run a SharedTimerServer that keeps reports, until killed."""
    server = unhang.SharedTimerServer(address, report_dir=directory, **options)
    server.start()
    say.send("started")
    time.sleep(FOREVER)


def exit_in_block(client, status, say):
    """End in the middle of a block."""
    with unhang.expires(60, "fatal", client):
        say.send("ready")
        os._exit(status)


def parent_of_many(client, after, count, say):
    """Hang with so many children, which hang too."""
    children = []
    for _ in range(count):
        child = os.fork()
        if child == 0:
            signal.alarm(60)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(FOREVER)
        children.append(child)
    say.send(children)
    with unhang.expires(after, "parent", client):
        time.sleep(FOREVER)


def learn_by_steps(address, say):
    """Run as many blocks as it is told to, and learn how long they take; says how many it was."""
    client = unhang.SharedTimerClient(address, learn=True)
    while True:
        _, count = say.recv()
        client.connect()
        for _ in range(count):
            with client.timer(60, "step"):
                pass
        say.send(count)


def learn_with_many_clients(address, count, say):
    """Be a worker with so many clients, each of which has left three blocks."""
    crowd = [unhang.SharedTimerClient(address, learn=True) for _ in range(count)]
    for client in crowd:
        for _ in range(3):
            with client.timer(60, "step"):
                pass
    say.send("done")
    say.recv()


def send_pages(address, count, say):
    """Hand over so many pages, as no worker of ours does; says what the watchdog answers."""
    pages = [memfd.create(SMALLEST_PAGE) for _ in range(count)]
    for _, memory in pages:
        PageWriter(memoryview(memory))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(address)
        socket.send_fds(connection, [hello(0, 0, Identity())], [fd for fd, _ in pages])
        say.send(connection.recv(512).decode())
        say.recv()


def start_server(server, say):
    """Start a server that was made in another process, say so, and stop it when asked."""
    server.start()
    say.send("started")
    say.recv()
    server.stop()
    say.send("stopped")


def turn_server(server, turns, say):
    """Turn the loop of a server that was made in another process, without starting it."""
    for _ in range(turns):
        server._run_watchdog()
    say.send(len(server._timers))
