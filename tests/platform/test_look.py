"""Looks at real processes, and what surrounds them."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time

from hypothesis import given
from hypothesis import strategies as st

import capabilities
import workers
from support import until
from unhang._platform import look as look_module
from unhang._platform import source_lines, surroundings, symbols, syscalls, waits
from unhang._platform.look import ThreadLook, command, look, name_of
from unhang._platform.patience import within
from unhang._platform.surroundings import Connection, connections, descriptors, socket_inode


def settled(pid, syscall):
    """The main thread, once it is in a system call."""
    until(lambda: look(pid).thread(pid).syscall == syscall)
    return look(pid).thread(pid)


def test_a_sleeping_thread_shows_its_system_call(start):
    """State, system call and time on a processor are those of the thread."""
    worker = start(workers.idle)
    worker.heard()
    seen = settled(worker.pid, "clock_nanosleep")
    assert seen.state == "S"
    assert 0 < seen.cpu < 30
    assert look(worker.pid).threads[0].id == worker.pid


def test_a_running_thread_uses_time_between_two_looks():
    """Between two looks at ourselves, the thread that spun has used a processor."""
    before = look(os.getpid())
    give_up = time.thread_time() + 0.05
    while time.thread_time() < give_up:
        pass
    after = look(os.getpid())
    assert after.thread(os.getpid()).cpu - before.thread(os.getpid()).cpu > 0.02
    assert after.instant > before.instant


def test_nobody_has_no_look():
    """A pid without a process gives None, and no name."""
    assert look(2**22) is None
    assert name_of(2**22) == ""


def test_only_so_many_threads_are_looked_at(monkeypatch):
    """The number of threads is bounded, and the main thread is among them."""
    monkeypatch.setattr(look_module, "MOST_THREADS", 1)
    release = threading.Event()
    others = [threading.Thread(target=release.wait) for _ in range(3)]
    for other in others:
        other.start()
    try:
        seen = look(os.getpid())
    finally:
        release.set()
    assert [thread.id for thread in seen.threads] == [os.getpid()]
    assert seen.count >= 4


def test_a_call_goes_on_under_another_number(monkeypatch):
    """After a stop, the kernel shows restart_syscall; the function that it waits in tells which call that is."""
    monkeypatch.setattr(look_module, "_syscall", lambda _: ("restart_syscall", (1, 2, 3, 4, 5, 6)))
    monkeypatch.setattr(look_module, "_wchan", lambda _: "hrtimer_nanosleep")
    assert look(os.getpid()).threads[0].syscall == "clock_nanosleep"


def test_a_system_call_without_a_name_shows_its_number():
    """Calls that are not in the table are still told apart."""
    assert syscalls.name(100_000) == "syscall 100000"


def test_a_command_line_is_cut(popen):
    """The command line is readable and bounded."""
    with popen([sys.executable, "-c", "input()", "x" * 1000], stdin=subprocess.PIPE) as named:
        line = command(named.pid)
        named.kill()
    assert len(line) <= 500


def test_what_never_comes_is_not_waited_for():
    """A call that is late, or that raises, gives the other value; there may be many of them."""
    release = threading.Event()
    assert within(0.01, release.wait, otherwise=None) is None
    assert within(10, lambda: 1 / 0, 7) == 7
    assert within(10, lambda: 3, 7) == 3
    assert within(0, lambda: 3, 7) == 7
    stuck = [within(0.001, release.wait, otherwise=None) for _ in range(40)]
    assert set(stuck) == {None}
    assert within(10, lambda: 3, 7) == 7
    release.set()
    until(lambda: within(10, lambda: 3, 7) == 3)


def test_connections_are_those_of_the_descriptors():
    """The two ends of a connection have each other's address, and a listening socket says so."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        names = descriptors(os.getpid())
        inodes = {one: socket_inode(names[one.fileno()]) for one in (server, client)}
        found = connections(os.getpid(), set(inodes.values()), time.monotonic() + 10)
        host, port = client.getsockname()
        assert found[inodes[client]].local == f"{host}:{port}"
        assert found[inodes[client]].remote == f"{host}:{server.getsockname()[1]}"
        assert found[inodes[server]].status == "listening"


def test_addresses_of_both_families_are_readable():
    """The kernel's hexadecimal is turned into an address and a port."""
    if sys.byteorder != "little":
        capabilities.is_not_for_this("the examples are those of little-endian machines")
    assert surroundings._address("0100007F:1F90") == "127.0.0.1:8080"
    assert surroundings._address("00000000000000000000000001000000:0016") == "[::1]:22"


@given(st.text(max_size=60))
def test_any_name_of_a_descriptor_is_something(name):
    """Whatever a descriptor is called, it is a target with a kind."""
    assert isinstance(waits.target(name.replace("pipe:[", "pipe"), {}).kind, str)


def test_a_thread_that_polls_waits_for_its_descriptors(start):
    """The descriptors of poll and select stand in memory; those of a read in its arguments."""
    for how in ("poll", "select", "read", "epoll"):
        worker = start(wait_on_pipe, how)
        fd = worker.heard()
        until(lambda worker=worker: look(worker.pid).thread(worker.pid).state == "S")
        seen = look(worker.pid).thread(worker.pid)
        until(lambda worker=worker, fd=fd: fd in numbers(worker.pid))
        assert waits.target(descriptors(worker.pid)[fd], {}).kind == "pipe", seen


def numbers(pid):
    return waits.numbers(pid, look(pid).thread(pid))


def wait_on_pipe(how, say):
    """Wait for a pipe in vain, in one of many ways."""
    import select

    fd, _writer = os.pipe()
    say.send(fd)
    if how == "poll":
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        poll.poll()
    elif how == "select":
        select.select([fd], [], [], 600)
    elif how == "epoll":
        epoll = select.epoll()
        epoll.register(fd, select.EPOLLIN)
        epoll.poll()
    else:
        os.read(fd, 1)


@given(st.lists(st.integers(0, 2**64 - 1), max_size=6), st.sampled_from(["poll", "pselect6", "epoll_wait", "read", ""]))
def test_any_arguments_are_safe(arguments, call):
    """Numbers that a worker makes up lead to an OSError or to descriptors, not to anything else."""
    thread = ThreadLook(os.getpid(), syscall=call, arguments=tuple(arguments))
    with contextlib.suppress(OSError):
        waits.numbers(os.getpid(), thread)


def test_a_connection_reads_like_one():
    """Its text is what a fact says."""
    assert str(Connection("tcp", "a:1", "b:2")) == "tcp a:1 -> b:2"
    assert str(Connection("unix", "/run/x")) == "a unix socket /run/x"


def test_children_are_listed_until_they_are_waited_for(popen):
    """A child shows its name and state; one that has ended is a zombie."""
    child = popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert child.pid in [seen.pid for seen in surroundings.children(os.getpid())]
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert next(seen for seen in surroundings.children(os.getpid()) if seen.pid == child.pid).state == "Z"
    child.wait()
    assert child.pid not in [seen.pid for seen in surroundings.children(os.getpid())]


def test_the_end_of_a_standard_error_is_read(popen, tmp_path):
    """The last bytes of a file are told; a pipe is not touched."""
    path = tmp_path / "err"
    with path.open("wb") as file:
        file.write(b"x" * 10_000 + b"the end")
        file.flush()
        with popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stderr=file) as writer:
            tail = surroundings.stderr_tail(writer.pid)
            writer.kill()
    assert tail.endswith("xthe end")
    assert len(tail) == surroundings.STDERR_TAIL
    with popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stderr=subprocess.PIPE) as writer:
        assert surroundings.stderr_tail(writer.pid) == ""
        writer.kill()


def test_lines_come_from_regular_files_only(tmp_path):
    """A line is stripped and cut; pipes, directories, missing and large files have none, and none of them blocks."""
    source, fifo, large = tmp_path / "a.py", tmp_path / "fifo", tmp_path / "large"
    source.write_text("def f():\n    return 1\n" + "y" * 1000)
    os.mkfifo(fifo)
    with large.open("wb") as file:
        file.truncate(3 << 20)
    paths = [str(path) for path in (source, fifo, large, tmp_path, tmp_path / "none")]
    found = source_lines.lines_of({(path, line) for path in (*paths, "relative.py") for line in (0, 2, 3, 99)})
    assert found == {(paths[0], 2): "return 1", (paths[0], 3): "y" * 200}
    assert source_lines.lines_of({(paths[0], 2)}) == {(paths[0], 2): "return 1"}
    assert source_lines.root_of(os.getpid()) == ""


def test_symbols_are_found_where_they_are(tmp_path):
    """A file that is no ELF file, or is cut, has none; ours is looked at without an error."""
    assert symbols.has_symbols(os.getpid()) in (True, False)
    for text in (b"", b"\x7fELF\x02", b"\x7fELF\x02" + b"\xff" * 100):
        path = tmp_path / "binary"
        path.write_bytes(text)
        assert not symbols._has_symtab(str(path), len(text))


def test_a_thread_that_is_asked_for_is_looked_at_however_many_there_are(monkeypatch):
    """The block that expired may be in any of thousands; one that has ended is left out."""
    monkeypatch.setattr(look_module, "MOST_THREADS", 2)
    release = threading.Event()
    others = [threading.Thread(target=release.wait) for _ in range(4)]
    for other in others:
        other.start()
    try:
        seen = [look(os.getpid(), other.native_id) for other in others]
        assert all(each.thread(other.native_id) for each, other in zip(seen, others, strict=True))
        assert all(each.thread(os.getpid()) and len(each.threads) <= 2 for each in seen)
    finally:
        release.set()
    assert look(os.getpid(), 2**22).thread(2**22) is None
