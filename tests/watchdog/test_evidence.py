"""Evidence about real workers that hang."""

import ctypes
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import msgspec
import pytest

import workers
from support import until
from unhang._platform import pyspy
from unhang._platform.look import look
from unhang._platform.process import ProcessHandle, facts
from unhang._watchdog import evidence as evidence_module
from unhang._watchdog.evidence import Options, Subject, gather
from unhang.report.model import Evidence, HangClass

BUDGET = 20.0


def in_lock(say):
    lock = threading.Lock()
    lock.acquire()
    say.send("ready")
    with lock:
        pass


def in_queue(say):
    say.send("ready")
    queue.Queue().get()


def in_simple_queue(say):
    say.send("ready")
    queue.SimpleQueue().get()


def in_loop(say):
    say.send("ready")
    number = 0
    while True:
        number += 1
        if number > 1000:
            number = 0


def in_regex(say):
    import re

    say.send("ready")
    re.match(r"(a+)+$", "a" * 60 + "b")


def in_c_with_gil(say):
    sleep = ctypes.PyDLL(None).sleep
    say.send("ready")
    sleep(workers.FOREVER)


def behind_the_gil(say):
    sleep, go = ctypes.PyDLL(None).sleep, threading.Event()

    def keep():
        go.wait()
        sleep(workers.FOREVER)

    threading.Thread(target=keep, name="io", daemon=True).start()
    say.send("ready")
    go.set()
    while True:
        pass


def in_recv(say):
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        say.send("ready")
        client.recv(1)


def in_child(say):
    say.send("ready")
    os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", "import time; time.sleep(600)"])


def in_full_pipe(say):
    _reader, writer = os.pipe()
    say.send("ready")
    while True:
        os.write(writer, b"x" * 65536)


def in_event_loop(say):
    import asyncio

    async def wait():
        say.send("ready")
        await asyncio.get_running_loop().create_future()

    asyncio.run(wait())


def subject_of(worker, **options):
    return Subject(ProcessHandle.open(worker.pid), user=os.getuid(), **options)


def found(subject, *, gentle=False, **options):
    return gather(subject, gentle=gentle, budget=BUDGET, began=time.monotonic(), **options)


HANGS = [
    (in_lock, HangClass.LOCK),
    (in_queue, HangClass.LOCK),
    (in_simple_queue, HangClass.LOCK),
    (in_loop, HangClass.PYTHON_LOOP),
    (in_regex, HangClass.NATIVE_GIL),
    (in_c_with_gil, HangClass.NATIVE_GIL),
    (behind_the_gil, HangClass.NATIVE_GIL),
    (in_recv, HangClass.NETWORK),
    (in_child, HangClass.CHILD),
    (in_full_pipe, HangClass.PIPE),
    (in_event_loop, HangClass.LOCK),
    (workers.idle, HangClass.SLEEP),
]


@pytest.mark.parametrize(("hang", "expected"), HANGS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_hang_has_its_class_and_its_line(start, hang, expected):
    """A worker that is about to be killed shows how it hangs, and its function is in the first stack."""
    worker = start(hang)
    worker.heard()
    subject = subject_of(worker)
    until(lambda: found(subject).hang is expected)
    seen = found(subject)
    assert seen.stacks_from == "py-spy"
    assert seen.without == ()
    assert hang.__name__ in [frame.function.rpartition(".")[2] for frame in seen.threads[0].frames]
    assert seen.facts
    assert facts(worker.pid).tracer == 0
    assert msgspec.json.decode(msgspec.json.encode(seen), type=Evidence) == seen
    subject.handle.close()


def test_what_is_around_a_worker_is_told(start):
    """The other end of its connection, its children, its memory and its command are in the evidence."""
    worker = start(in_recv)
    worker.heard()
    subject = subject_of(worker, stderr=lambda: "oh \x1b[31mno\n")
    until(lambda: found(subject).hang is HangClass.NETWORK)
    seen = found(subject, gentle=True)
    assert {one.status for one in seen.sockets} >= {"listening", "established"}
    assert seen.stderr == "oh \\x1b[31mno"
    assert seen.process.memory > 0
    assert "python" in seen.process.command
    assert seen.threads[0].syscall == "recvfrom"
    assert seen.threads[0].frames[0].source == "client.recv(1)"
    subject.handle.close()


def test_gentle_means_that_nothing_is_stopped(start, monkeypatch):
    """A worker that may be healthy is not attached to, and gets no signal."""
    asked = []
    dump = pyspy.dump
    monkeypatch.setattr(pyspy, "dump", lambda *args, **how: asked.append(how["nonblocking"]) or dump(*args, **how))
    monkeypatch.setattr(evidence_module.kill, "send", lambda *_: pytest.fail("a signal"))
    worker = start(in_loop)
    worker.heard()
    subject = subject_of(worker, stack_signal=signal.SIGRTMIN + 1, stack_file=0)
    found(subject, gentle=True)
    assert asked
    assert all(asked)
    subject.handle.close()


def test_whoever_is_never_killed_is_not_disturbed(monkeypatch):
    """Our own parent is an ancestor: evidence about it is taken gently, whatever was asked for."""
    asked = []
    monkeypatch.setattr(pyspy, "dump", lambda *_, **how: asked.append(how["nonblocking"]) or b"[]")
    handle = ProcessHandle.open(os.getppid())
    found(Subject(handle))
    assert asked
    assert all(asked)
    handle.close()


def test_a_worker_that_is_not_stopped_for_it_has_stacks_without_c_functions(start, stopped):
    """py-spy gets those of a worker that it stops alone; asked for both, it gets nothing."""
    worker = start(workers.idle)
    worker.heard()
    stopped(worker.pid)
    subject = subject_of(worker)
    seen = found(subject, options=Options(native=True))
    assert (seen.stacks_from, seen.without) == ("py-spy", ())
    subject.handle.close()


def test_a_stopped_worker_is_stopped(start, stopped):
    """Its stacks are there all the same, and it stays stopped."""
    worker = start(workers.idle)
    worker.heard()
    stopped(worker.pid)
    subject = subject_of(worker)
    seen = found(subject)
    assert seen.hang is HangClass.STOPPED
    assert seen.threads[0].frames
    assert facts(worker.pid).stopped
    subject.handle.close()


def test_a_worker_that_has_ended_has_no_evidence(start):
    """Nothing is told about whoever may have its pid by now."""
    worker = start(workers.idle)
    subject = subject_of(worker)
    subject.handle.send(signal.SIGKILL)
    worker.ended()
    seen = found(subject)
    assert (seen.threads, seen.process.state) == ((), "")
    assert seen.without == ("it has ended, or may not be seen",)
    subject.handle.close()


def test_a_pyspy_that_hangs_costs_no_more_than_the_budget(start, monkeypatch, tmp_path):
    """What is not there in time is left out, with the reason; what procfs says is there."""
    spy = tmp_path / "py-spy"
    spy.write_text("#!/bin/sh\nkill -STOP $$\n")
    spy.chmod(0o755)
    monkeypatch.setattr(pyspy, "executable", lambda: str(spy))
    worker = start(workers.idle)
    worker.heard()
    subject = subject_of(worker)
    until(lambda: look(worker.pid).thread(worker.pid).syscall == "clock_nanosleep")
    seen = gather(subject, gentle=False, budget=0.5, began=time.monotonic())
    assert seen.took < 5
    assert "did not finish" in seen.without[0]
    assert seen.hang is HangClass.SLEEP
    assert not facts(worker.pid).stopped
    subject.handle.close()


def test_an_error_of_ours_is_evidence_too(start, monkeypatch):
    """Whatever goes wrong, gathering ends with a record that says so."""
    monkeypatch.setattr(evidence_module, "look", lambda _: 1 / 0)
    worker = start(workers.idle)
    subject = subject_of(worker)
    assert "unhang's own" in found(subject).without[0]
    subject.handle.close()


def test_calls_of_c_code_are_told_if_they_are_wanted(start):
    """With ``native``, the function of the C library that a worker waits in is in its stack."""
    worker = start(workers.idle)
    worker.heard()
    subject = subject_of(worker)
    until(lambda: any(one.native for one in found(subject, options=Options(native=True)).threads[0].frames))
    assert not any(one.native for one in found(subject).threads[0].frames)
    subject.handle.close()


CODE = """
import ctypes, faulthandler, os, signal, sys, threading, time
memory, user = int(sys.argv[1]), int(sys.argv[2])
faulthandler.register(signal.SIGRTMIN + 11, file=memory, all_threads=True, chain=False)
if user:
    os.setgroups([]), os.setgid(user), os.setuid(user)
ctypes.CDLL(None).prctl(4, 0)  # PR_SET_DUMPABLE
def stuck():
    print(flush=True)
    time.sleep(600)
stuck()
"""


@pytest.fixture
def program(tmp_path):
    """`CODE` as a file: where not even the state of a system call may be read, its lines say what it waits for."""
    path = tmp_path / "program.py"
    path.write_text(CODE)
    return str(path)


def test_without_ptrace_the_worker_s_own_handler_tells(popen, program, monkeypatch):
    """Where py-spy is refused, the stacks come from faulthandler, and the class follows from them."""

    def refused(*_, **__):
        raise pyspy.PySpyError("refused", refused=True)

    monkeypatch.setattr(pyspy, "dump", refused)
    memory = os.memfd_create("stacks")
    os.ftruncate(memory, 1 << 16)
    with popen([sys.executable, program, str(memory), "0"], stdout=subprocess.PIPE, pass_fds=[memory]) as worker:
        worker.stdout.readline()
        subject = subject_of(worker, stack_signal=signal.SIGRTMIN + 11, stack_file=memory)
        until(lambda: found(subject).hang is HangClass.SLEEP)
        seen = found(subject)
        assert seen.stacks_from == "faulthandler"
        assert [frame.function for frame in seen.threads[0].frames] == ["stuck", "<module>"]
        assert (seen.threads[0].id, seen.threads[0].name) == (worker.pid, "MainThread")
        gently = found(subject, gentle=True)
        assert gently.stacks_from == ""
        assert gently.threads[0].state == "S"
        worker.kill()
    os.close(memory)
    subject.handle.close()


@pytest.fixture
def py_spy_for_all(monkeypatch):
    """A py-spy that every user may run, wherever the one of these tests lies."""
    with tempfile.TemporaryDirectory(prefix="unhang-test-") as directory:
        os.chmod(directory, 0o755)
        copy = shutil.copy(pyspy.executable(), directory)
        monkeypatch.setattr(pyspy, "executable", lambda: copy)
        yield


def test_another_user_s_worker_that_may_not_be_dumped_tells_too(other_user, popen, program, py_spy_for_all):
    """As root, a worker of somebody else is not looked at with more rights than it has, and no file of its is read."""
    memory = os.memfd_create("stacks")
    os.ftruncate(memory, 1 << 16)
    command = [sys.executable, program, str(memory), str(other_user)]
    with popen(command, stdout=subprocess.PIPE, pass_fds=[memory]) as worker:
        worker.stdout.readline()
        handle = ProcessHandle.open(worker.pid)
        options = {"stack_signal": signal.SIGRTMIN + 11, "stack_file": memory, "also": frozenset({other_user})}
        seen = found(Subject(handle, user=other_user, **options))
        assert seen.stacks_from == "faulthandler"
        assert "stuck" in [frame.function for frame in seen.threads[0].frames]
        assert not any(frame.source for frame in seen.threads[0].frames)
        assert "may not look into it" in seen.without[0]
        refused = found(Subject(handle, user=other_user, **{**options, "also": frozenset()}))
        assert refused.stacks_from == ""
        worker.kill()
    os.close(memory)
    handle.close()


def test_a_worker_that_gets_no_processor_is_starved(popen):
    """Of two that share one processor, the one that gets nothing is starved, not in a loop."""
    processor = min(os.sched_getaffinity(0))
    share = f"import os; os.sched_setaffinity(0, {{{processor}}});"
    idle = "os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0));"
    loop = "print(flush=True)\nwhile True: pass"
    with (
        popen([sys.executable, "-c", f"{share}{idle}{loop}"], stdout=subprocess.PIPE) as worker,
        popen([sys.executable, "-c", f"{share}{loop}"], stdout=subprocess.PIPE) as other,
    ):
        worker.stdout.readline()
        other.stdout.readline()
        subject = subject_of(worker)
        until(lambda: found(subject).hang is HangClass.STARVED)
        earlier = look(worker.pid)
        until(lambda: look(worker.pid).instant > earlier.instant + 0.5)
        seen = found(Subject(subject.handle, user=os.getuid(), earlier=earlier))
        assert seen.hang is HangClass.STARVED
        assert seen.process.window > 0.5
        assert seen.process.waited > 0.5
        worker.kill()
        other.kill()
    subject.handle.close()
