"""What a worker, or somebody else, may do to the watchdog of shared timers without harming it or its siblings."""

import array
import contextlib
import functools
import os
import resource
import signal
import socket
import struct
import tempfile
import threading
import time
from random import Random

import pytest

import unhang
import workers
from support import until
from unhang._core import messages, page
from unhang._core.identity import Identity
from unhang._core.page import DEADLINE, SEQUENCE, PageWriter, label
from unhang._platform import disposal, memfd
from unhang._watchdog import reception
from unhang.errors import WatchdogLostError


@contextlib.contextmanager
def connection(address):
    """A raw connection to the watchdog."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
        peer.settimeout(30)
        peer.connect(address)
        yield peer


def send(peer, message, *fds):
    peer.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else [])


def greet(address, *fds):
    """Say hello with these descriptors; returns the answer."""
    with connection(address) as peer:
        send(peer, messages.hello(0, 0, Identity()), *fds)
        return messages.refusal(peer.recv(messages.LONGEST))


def join_and_stay(address, *fds):
    """Say hello with these descriptors, and hang."""
    with connection(address) as peer:
        send(peer, messages.hello(0, 0, Identity()), *fds)
        time.sleep(workers.FOREVER)


def talk(address, packets, say):
    """Send packets to the watchdog from a process of its own, and say what it answers."""
    with connection(address) as peer:
        for packet in packets:
            send(peer, packet)
        say.send(peer.recv(messages.LONGEST))


def hand_over(address, make, say):
    """Say hello with the descriptors that ``make()`` makes, and say the answer."""
    say.send(greet(address, *make()))
    time.sleep(workers.FOREVER)


def sealed():
    fd, memory = memfd.create(page.SMALLEST_PAGE)
    return fd, memory


def good():
    fd, memory = sealed()
    PageWriter(memoryview(memory))
    return [fd]


def unsealed():
    fd = os.memfd_create("x", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, page.SMALLEST_PAGE)
    return [fd]


def short():
    return [memfd.create(4096)[0]]


def no_page():
    return [sealed()[0]]


def of_another_version():
    fd, memory = sealed()
    PageWriter(memoryview(memory))
    memory[8] = 1
    return [fd]


def a_pipe():
    return list(os.pipe())


def a_file():
    return [os.open("/dev/zero", os.O_RDWR)]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (unsealed, "not sealed"),
        (short, "4096"),
        (no_page, "does not begin"),
        (of_another_version, "version is 1"),
        (a_pipe, "can be sealed"),
        (a_file, "can be sealed"),
    ],
)
def test_a_page_that_is_none_is_refused(start, shared_server, shared_client, make, reason):
    """The worker is told why, and its siblings are watched on."""
    assert reason in start(hand_over, shared_server.address, make).heard()
    assert start(workers.sleep_in_block, shared_client, 0.1).ended() == -signal.SIGKILL


@pytest.mark.parametrize(
    "packets",
    [
        [b"GET / HTTP/1.1\r\n\r\n"],
        [b"\0" * 400],
        [b"unhang\x03\0"],
        [messages.KICK],
        [messages.hello(0, 0, Identity()), b"what?"],
    ],
)
def test_a_message_that_is_none_is_refused(start, shared_server, packets):
    """Garbage, another version, no greeting: the connection is closed with a reason, or with none."""
    answer = start(talk, shared_server.address, packets).heard()
    if messages.refusal(answer) is None:
        until(lambda: shared_server.workers == 0)


def hang_up_anyhow(address, say):
    """Connect and go at every stage of the conversation, in any way."""
    for stage in range(40):
        with connection(address) as peer:
            if stage % 4 > 0:
                send(peer, messages.hello(0, 0, Identity()), *(good() if stage % 4 > 1 else []))
            if stage % 4 > 2:
                send(peer, messages.PAGE, *good())
    say.send("done")


def test_workers_that_hang_up_anyhow_leave_nothing(start, shared_server, shared_client):
    """Descriptors, memory and workers of the watchdog are as before."""
    assert start(workers.sleep_in_block, shared_client, 0.1).ended() == -signal.SIGKILL
    until(lambda: shared_server.workers == 0)
    before = len(os.listdir("/proc/self/fd"))
    pages = _mapped_pages()
    assert start(hang_up_anyhow, shared_server.address).heard() == "done"
    until(lambda: len(shared_server._reception._peers) == 0)
    until(lambda: len(os.listdir("/proc/self/fd")) <= before + 4)  # those of the two workers' own pipes
    until(lambda: _mapped_pages() <= pages)


def _mapped_pages():
    with open("/proc/self/maps") as maps:
        return maps.read().count("unhang-page")


def connect_and_say_nothing(address, count, say):
    """Open many connections and hold them."""
    held = []
    for _ in range(count):
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        peer.connect(address)
        held.append(peer)
    say.send("connected")
    time.sleep(workers.FOREVER)


def test_connections_that_say_nothing_make_room(start, shared_server, shared_client):
    """Only so many are kept; a worker that has something to say comes in, and is watched."""
    crowd = start(connect_and_say_nothing, shared_server.address, 600)
    assert crowd.heard() == "connected"
    assert start(workers.sleep_in_block, shared_client, 0.1).ended() == -signal.SIGKILL
    assert len(shared_server._reception._silent) <= reception._MOST_SILENT
    assert "silent connections" in shared_server._reception.limits_met.counts


def test_silence_is_ended(start, shared_server, monkeypatch):
    """A connection that does not say who it is is closed after a while."""
    monkeypatch.setattr(reception, "_SILENCE", 0.1)
    start(connect_and_say_nothing, shared_server.address, 3).heard()
    until(lambda: len(shared_server._reception._peers) == 0)


def kick_without_end(address, say):
    """Flood the watchdog."""
    with connection(address) as peer:
        send(peer, messages.hello(0, 0, Identity()), *good())
        peer.recv(messages.LONGEST)
        peer.setblocking(False)
        say.send("ready")
        while True:
            with contextlib.suppress(BlockingIOError):
                peer.send(messages.KICK)


def test_a_flood_of_kicks_is_not_heard(start, shared_server, shared_client):
    """Beyond a thousand in a second the worker is not read any more until the next; its siblings are watched."""
    start(kick_without_end, shared_server.address).heard()
    until(lambda: "messages" in shared_server._reception.limits_met.counts)
    assert start(workers.sleep_in_block, shared_client, 0.1).ended() == -signal.SIGKILL


def arm_in_the_past(address, say):
    """Hand over a page full of deadlines that are over, with garbage for names."""
    fd, memory = sealed()
    writer = PageWriter(memoryview(memory))
    while (slot := writer.add_slot()) is not None:
        label(slot, os.urandom(192), 5)
        slot[page.LENGTH] = -7
        slot[DEADLINE] = 1
    join_and_stay(address, fd)


def test_a_worker_can_kill_itself_alone(start, shared_server, shared_client, events):
    """Whatever is in its page, nobody else dies of it."""
    other = start(workers.step_by_step, shared_client)
    other.heard()
    other.told("enter", 60, "fine")
    start(arm_in_the_past, shared_server.address)
    fd = start(workers.sleep_in_block, shared_client, 0.2)
    assert fd.ended() == -signal.SIGKILL
    assert other.runs()
    assert all(pid != other.pid for _, pid, _ in iter(lambda: events.get() if not events.empty() else None, None))


@pytest.fixture
def open_directory():
    """A directory that all users may enter, with all above it: pytest's own are for their user alone."""
    with tempfile.TemporaryDirectory(prefix="unhang-test-", dir="/tmp") as path:
        os.chmod(path, 0o755)
        yield path


def say_what_is_said(address, say):
    try:
        say.send(greet(address, *good()))
    except OSError as error:
        say.send(error.strerror)


class Greeting:
    """A greeting that can be sent to another process."""

    def __init__(self, address):
        self.address = address

    def __call__(self, say):
        say_what_is_said(self.address, say)


def test_another_user_is_refused(start, open_directory, other_user):
    """The directory keeps them out, and if it does not, the watchdog does."""
    server = unhang.SharedTimerServer(f"{open_directory}/watchdog.sock")
    server.start()
    greeting = Greeting(server.address)
    os.chmod(server.address, 0o666)
    os.chmod(open_directory, 0o700)
    kept_out = start(workers.as_user, other_user, greeting).heard()
    os.chmod(open_directory, 0o755)
    refused = start(workers.as_user, other_user, greeting).heard()
    server.stop()
    assert kept_out == "Permission denied"
    assert f"user {other_user} is not served" in refused


def test_root_may_serve_others(start, open_directory, other_user):
    """When told to, it watches and kills another user's worker."""
    server = unhang.SharedTimerServer(f"{open_directory}/all.sock", users=[other_user], signal="none")
    server.start()
    worker = start(workers.as_user, other_user, Hang(server.address))
    assert worker.ended() == -signal.SIGKILL
    server.stop()


class Hang:
    """A hang that can be sent to another process."""

    def __init__(self, address):
        self.address = address

    def __call__(self, say):
        workers.sleep_in_block(unhang.SharedTimerClient(self.address), 0.2, say)


def test_the_watchdogs_own_process_is_refused(shared_server):
    """It cannot watch itself, and says so."""
    assert "is the watchdog itself" in greet(shared_server.address, *good())


def serve_and_say(address, say):
    """Run a watchdog, as a child of whoever wants to be watched."""
    server = unhang.SharedTimerServer(address, signal="none", evidence=0)
    server.start()
    say.send("started")
    time.sleep(workers.FOREVER)


def test_an_ancestor_is_refused(start, tmp_path):
    """The process that has started the watchdog is not watched by it."""
    tmp_path.chmod(0o700)
    address = str(tmp_path / "child.sock")
    start(serve_and_say, address).heard()
    assert "is an ancestor of the watchdog" in greet(address, *good())


def serve_with_few_descriptors(address, say):
    """Run a watchdog that may open few descriptors."""
    server = unhang.SharedTimerServer(address, signal="none", evidence=0)
    server.start()
    resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
    say.send("started")
    time.sleep(workers.FOREVER)


def test_a_watchdog_short_of_descriptors_watches_whom_it_has(start, tmp_path):
    """It turns away, with a reason, whom it cannot hold, and does not turn round and round."""
    tmp_path.chmod(0o700)
    address = str(tmp_path / "few.sock")
    server = start(serve_with_few_descriptors, address)
    server.heard()
    client = unhang.SharedTimerClient(address)
    first = start(workers.step_by_step, client)
    first.heard()
    first.told("enter", 3, "first")
    start(connect_and_say_nothing, address, 100).heard()
    assert first.ended() == -signal.SIGKILL
    with open(f"/proc/{server.pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    assert int(fields[11]) + int(fields[12]) < 2 * os.sysconf("SC_CLK_TCK")


def hand_over_an_expired_timer(address, say):
    """Connect with a timer that is due already, as after an outage of the watchdog."""
    fd, memory = sealed()
    slot = PageWriter(memoryview(memory)).add_slot()
    label(slot, b"due", 5)
    slot[SEQUENCE] = 1
    slot[DEADLINE] = time.monotonic_ns() - 10**9
    with connection(address) as peer:
        send(peer, messages.hello(0, 0, Identity()), fd)
        say.send("sent")
        time.sleep(workers.FOREVER)


def test_a_timer_that_is_due_at_the_greeting_counts(start, shared_server, events):
    """What expired while nobody watched is dealt with as soon as somebody does."""
    worker = start(hand_over_an_expired_timer, shared_server.address)
    assert worker.ended() == -signal.SIGKILL
    assert events.get(timeout=30) == ("killed", worker.pid, ["due"])


def linger():
    """A connection that takes a minute to close, for whoever closes it last."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        lingering = socket.socket()
        lingering.connect(listener.getsockname())
        reader, _ = listener.accept()
    reader.detach()  # and is open until this process ends
    lingering.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 60))
    lingering.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while lingering.send(b"x" * 65536):
            pass
    return lingering.detach()


class SlowToClose:
    """Sends what is slow to close in some message, and leaves it to the watchdog; can be sent to another process."""

    def __init__(self, address, kind):
        self.address = address
        self.kind = kind

    def __call__(self, say):
        fd = linger()
        for _ in range(10):
            with contextlib.suppress(OSError):
                self.send(fd)
        os.close(fd)
        say.send("sent")
        time.sleep(workers.FOREVER)

    def send(self, fd):
        with connection(self.address) as peer:
            hello = messages.hello(0, 0, Identity())
            if self.kind == "hello":
                send(peer, hello, fd)
            elif self.kind == "behind too many":
                send(peer, hello, *good() * messages.MOST_PAGES, fd)
            elif self.kind == "nothing said":
                send(peer, b"", fd)
            else:
                send(peer, hello, *good())
                send(peer, {"kick": messages.KICK, "page": messages.PAGE, "look": messages.VIEW}[self.kind], fd)


SLOW = ["hello", "behind too many", "nothing said", "kick", "page", "look"]


@pytest.mark.parametrize("kind", SLOW)
def test_no_message_keeps_the_watchdog_with_what_is_slow_to_close(start, tmp_path, stopped, kind):
    """Wherever a descriptor is that takes a minute to close, the watchdog's loop does not wait for it."""
    tmp_path.chmod(0o700)
    _is_not_held_up(start, stopped, str(tmp_path / "watchdog.sock"), lambda address: SlowToClose(address, kind))


def test_a_user_who_is_not_served_does_not_hold_it_up(start, open_directory, other_user, stopped):
    """What a stranger sends is not even received."""
    address = f"{open_directory}/all.sock"

    def become(address):
        return functools.partial(workers.as_user, other_user, SlowToClose(address, "hello"))

    _is_not_held_up(start, stopped, address, become, users=[other_user + 1])


def _is_not_held_up(start, stopped, address, make, **options):
    watchdog = start(serve_anybody, address, options)
    watchdog.heard()
    # Stopped, it cannot close its copies before the sender has closed its own: the last one takes its time.
    stopped(watchdog.pid)
    start(make(address)).heard()
    os.kill(watchdog.pid, signal.SIGCONT)
    worker = start(workers.sleep_in_block, unhang.SharedTimerClient(address), 0.2)
    begun = worker.heard()
    assert worker.ended() == -signal.SIGKILL
    assert time.monotonic() - begun < 25


def serve_anybody(address, options, say):
    server = unhang.SharedTimerServer(address, signal="none", evidence=0, **options)
    server.start()
    say.send("started")
    time.sleep(workers.FOREVER)


def kick_with_descriptors(address, say):
    """Say hello, and kick with as many descriptors as the kernel lets through."""
    with connection(address) as peer:
        send(peer, messages.hello(0, 0, Identity()), *good())
        peer.recv(messages.LONGEST)
        send(peer, messages.KICK, *os.pipe()[:1] * messages.MOST_DESCRIPTORS)
        say.send(messages.refusal(peer.recv(messages.LONGEST)))


def test_a_message_has_the_descriptors_that_it_may_have(start, shared_server):
    """A kick with descriptors is none: they are not received, and its sender is not watched any more."""
    assert "has descriptors, which no such message has" in start(kick_with_descriptors, shared_server.address).heard()
    until(lambda: shared_server.workers == 0)


def greet_with_many_pages(address, say):
    say.send(greet(address, *good() * (messages.MOST_PAGES + 1)))


def test_a_message_has_so_many_pages_and_no_more(start, shared_server):
    """More descriptors than a worker has pages are not received, and it is told so."""
    assert "16 pages at most" in start(greet_with_many_pages, shared_server.address).heard()


def talk_at_random(address, seed, say):
    """Send messages of all kinds, good ones, cut ones and others, each with any descriptors, over many connections."""
    dice = Random(seed)  # noqa: S311 - the same in each run
    kinds = [good, unsealed, short, no_page, a_pipe, a_file]
    for _ in range(150):
        with contextlib.suppress(OSError), connection(address) as peer:
            peer.setblocking(False)
            for _ in range(dice.randrange(8)):
                hello = messages.hello(dice.randrange(4), dice.randrange(80), Identity("\x9b\ud800" * 40, 10**9))
                asked = messages.VIEW + b'{"version":%d,"serial":%d,"stacks":[%s]}' % (1, 10**40, b"[" * 90)
                message = dice.choice([hello, hello, messages.PAGE, messages.KICK, asked, b"", dice.randbytes(600)])
                fds = [fd for _ in range(dice.choice((0, 0, 1, 2, 40))) for fd in dice.choice(kinds)()]
                try:
                    send(peer, message[: dice.choice((None, None, None, dice.randrange(10)))], *fds)
                finally:
                    for fd in fds:
                        os.close(fd)
    say.send("done")
    time.sleep(workers.FOREVER)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_whatever_is_said_harms_nobody(start, shared_server, shared_client, seed, caplog):
    """Others are watched on, nothing raises in the loop, and no descriptor is left."""
    before = len(os.listdir("/proc/self/fd"))
    talker = start(talk_at_random, shared_server.address, seed)
    assert start(workers.sleep_in_block, shared_client, 0.1).ended() == -signal.SIGKILL
    assert talker.heard() == "done"
    until(lambda: len(shared_server._reception._peers) == 0)
    until(lambda: len(os.listdir("/proc/self/fd")) <= before + 12)  # those of the two workers' own
    assert not [record for record in caplog.records if record.exc_info]


def test_what_waits_to_be_closed_is_bounded(monkeypatch):
    """However many connections hold what is slow to close, few threads wait, and nobody else is let in meanwhile."""
    before = set(threading.enumerate())
    closing = disposal.Disposal()
    release = threading.Event()
    monkeypatch.setattr(disposal, "_close_each", lambda fds: release.wait(30))
    for _ in range(200):
        closing.close_all([-1])
    assert not closing.has_room()
    assert len(set(threading.enumerate()) - before) <= disposal._MOST_THREADS
    release.set()
    until(closing.has_room)


def hand_over_huge_pages_of_expired_timers(address, say):
    """Hand over as much as is allowed, all of it due."""
    fds = []
    for size in (page.LARGEST_PAGE, page.LARGEST_PAGE // 2):
        fd, memory = memfd.create(size)
        writer = PageWriter(memoryview(memory))
        words = memoryview(memory).cast("q")
        words[page.USED] = writer.slots
        for index in range(writer.slots):
            words[page.HEADER_WORDS + index * page.SLOT_WORDS + page.SEQUENCE] = 1
            words[page.HEADER_WORDS + index * page.SLOT_WORDS] = 1
        fds.append(fd)
    join_and_stay(address, *fds)


def test_a_hundred_thousand_expired_timers_are_one_kill(start, shared_server):
    """A worker with that many is killed, and looking at them does not take for ever."""
    assert start(hand_over_huge_pages_of_expired_timers, shared_server.address).ended() == -signal.SIGKILL


def hand_over_too_much(address, say):
    """Hand over more than any worker has."""
    fds = []
    for _ in range(3):
        fd, memory = memfd.create(page.LARGEST_PAGE)
        PageWriter(memoryview(memory))
        fds.append(fd)
    say.send(greet(address, *fds))


def test_a_worker_has_so_much_and_no_more(start, shared_server):
    """Memory that the watchdog maps for one worker is bounded."""
    assert "bytes of pages at most" in start(hand_over_too_much, shared_server.address).heard()


def exec_with_a_copy_of_the_socket(address, say):
    """Execute another program inside a block, with every descriptor open in it."""
    with unhang.expires(1, "before exec", unhang.SharedTimerClient(address)):
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                os.set_inheritable(int(name), True)
        os.execv("/bin/sh", ["sh", "-c", "sleep 3; exit 7"])


def test_a_program_that_was_executed_inside_a_block_is_not_killed_for_it(start, shared_server):
    """Pid, start time and sockets are those of the program before it; its timers are gone all the same."""
    assert start(exec_with_a_copy_of_the_socket, shared_server.address).ended() == 7
    until(lambda: shared_server.workers == 0)


def say_why_not(address, say):
    """Enter a block, and say why it is not watched."""
    try:
        with unhang.expires(60, client=unhang.SharedTimerClient(address, on_lost="raise")):
            say.send("watched")
    except WatchdogLostError as error:
        say.send(str(error))


def test_a_watchdog_with_another_clock_watches_nobody(start, shared_server, monkeypatch):
    """No deadline would mean the same to both: the worker is not watched, and is told why."""
    assert start(say_why_not, shared_server.address).heard() == "watched"
    for ahead in (10**12, -(10**12)):
        monkeypatch.setattr(reception, "welcome", lambda now, ahead=ahead: messages.welcome(now + ahead))
        assert "clock shows another time" in start(say_why_not, shared_server.address).heard()
