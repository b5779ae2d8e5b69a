"""py-spy and the worker's own handler, with real workers."""

import functools
import os
import signal
import stat
import subprocess
import sys
import threading
import time

import pytest

import workers
from support import until
from unhang._platform import pyspy, stack_signal
from unhang._platform.look import look
from unhang._platform.process import ProcessHandle, facts
from unhang._verdict.stacks import from_faulthandler, from_pyspy, last_is_main

SIGNAL = signal.SIGRTMIN + 11
ENOUGH = 20.0
CODE = """
import ctypes, faulthandler, os, signal, sys, threading, time
how, memory = sys.argv[1], int(sys.argv[2])
if how != "no handler":
    faulthandler.register(signal.SIGRTMIN + 11, file=memory, all_threads=True, chain=False)
if how == "blocked":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGRTMIN + 11})
if how == "closed":
    os.dup2(os.open(os.devnull, os.O_WRONLY), memory)
def keep_the_gil():
    # Unlike sleep, a lock does not return when a signal comes.
    mutex, lock = ctypes.create_string_buffer(128), ctypes.PyDLL(None).pthread_mutex_lock
    lock(mutex)
    print(flush=True)
    lock(mutex)
threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
keep_the_gil()
"""


@pytest.fixture
def handler(popen):
    """Start a worker that has a handler for stacks; returns its process, its handle, and the memory they share."""
    started = []

    def run(how="handler"):
        memory = os.memfd_create("stacks")
        os.ftruncate(memory, stack_signal.SIZE)
        command = [sys.executable, "-c", CODE, how, str(memory)]
        worker = popen(command, stdout=subprocess.PIPE, pass_fds=[memory])
        worker.stdout.readline()
        until(lambda: look(worker.pid).thread(worker.pid).syscall == "futex")
        handle = ProcessHandle.open(worker.pid)
        started.append((handle, memory))
        return worker, handle, memory

    yield run
    for handle, memory in started:
        handle.close()
        os.close(memory)


def sender(handle):
    def send(number):
        handle.send(number)
        return True

    return send


def test_a_handler_tells_stacks_while_the_gil_is_kept(handler):
    """The stacks come though no Python code can run, again and again, and the worker goes on."""
    worker, handle, memory = handler()
    for _ in range(3):
        text = stack_signal.stacks(worker.pid, SIGNAL, memory, sender(handle), ENOUGH)
        threads = from_faulthandler(text)
        assert "keep_the_gil" in [frame.function for frame in threads[-1].frames]
        assert last_is_main(text)
        assert len(threads) == 2
    assert worker.poll() is None


def test_a_stopped_worker_is_continued_for_its_stacks(handler):
    """A worker that is stopped cannot run its handler; it is about to be killed, and so continued."""
    worker, handle, memory = handler()
    handle.send(signal.SIGSTOP)
    os.waitid(os.P_PID, worker.pid, os.WSTOPPED)
    assert from_faulthandler(stack_signal.stacks(worker.pid, SIGNAL, memory, sender(handle), ENOUGH))


@pytest.mark.parametrize("is_ready", [True, False])
def test_a_worker_that_gets_no_processor_has_more_time(handler, monkeypatch, is_ready):
    """Its handler runs when it gets some; one that waits for something else has had its time."""
    worker, handle, memory = handler()
    monkeypatch.setattr(stack_signal, "_is_ready", lambda _: is_ready)
    late = threading.Timer(0.3, handle.send, [SIGNAL])

    def send(_):
        late.start()
        return True

    look = functools.partial(stack_signal.stacks, worker.pid, SIGNAL, memory, send, 0.05, starved=ENOUGH)
    if is_ready:
        assert from_faulthandler(look())
    else:
        with pytest.raises(stack_signal.StackSignalError, match="did not run"):
            look()
    late.join()


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("no handler", "it has no handler for stacks any more"),
        ("blocked", "it has closed the file|it blocks the signal|did not run"),
        ("closed", "it has closed the file for its stacks"),
    ],
)
def test_a_signal_that_would_do_harm_is_not_sent(handler, how, why):
    """Without a handler it would kill; with another file under the number, the handler would write into that."""
    worker, handle, memory = handler(how)
    sent = []
    with pytest.raises(stack_signal.StackSignalError, match=why):
        stack_signal.stacks(worker.pid, SIGNAL, memory, lambda number: bool(sent.append(number)) or True, 0.05)
    assert worker.poll() is None
    assert sent == [] or how == "blocked"
    assert handle.alive()


def test_a_signal_that_is_refused_gives_no_stacks(handler):
    """Whoever must not be signalled is not."""
    worker, _, memory = handler()
    with pytest.raises(stack_signal.StackSignalError, match="could not be signalled"):
        stack_signal.stacks(worker.pid, SIGNAL, memory, lambda _: False, ENOUGH)


def test_nobody_has_no_handler():
    """A process that is gone, and a descriptor that is none, end in the same error."""
    with pytest.raises(stack_signal.StackSignalError):
        stack_signal.stacks(2**22, SIGNAL, 0, lambda _: True, 0.05)


@pytest.mark.parametrize("nonblocking", [True, False])
def test_pyspy_tells_stacks(start, nonblocking):
    """Its JSON holds the line that the worker is in, and afterwards nobody traces the worker."""
    worker = start(workers.idle)
    worker.heard()
    document = pyspy.dump(worker.pid, nonblocking=nonblocking, budget=ENOUGH)
    assert "idle" in [frame.function for thread in from_pyspy(document) for frame in thread.frames]
    assert facts(worker.pid).tracer == 0
    assert not facts(worker.pid).stopped


def fake_spy(monkeypatch, tmp_path, script):
    path = tmp_path / "py-spy"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(pyspy, "executable", lambda: str(path))


def test_a_pyspy_that_hangs_is_killed_in_time(monkeypatch, tmp_path):
    """When the budget is over it is gone, and told from one that fails; while it ran it was ours."""
    fake_spy(monkeypatch, tmp_path, f"echo $$ > {tmp_path}/pid; kill -STOP $$")
    began = time.monotonic()
    seen = []
    looker = threading.Thread(target=lambda: seen.append(ours(tmp_path / "pid")))
    looker.start()
    with pytest.raises(pyspy.PySpyError, match="did not finish") as error:
        pyspy.dump(os.getpid(), nonblocking=False, budget=2)
    looker.join()
    assert error.value.killed
    assert error.value.hopeless
    assert time.monotonic() - began < ENOUGH
    assert seen == [True]
    assert facts(int((tmp_path / "pid").read_text())) is None


def ours(path):
    until(lambda: path.exists() and path.read_text().endswith("\n"))
    return pyspy.is_ours(int(path.read_text()))


def test_nobody_else_is_ours(start):
    """Any other process that traces is a debugger."""
    assert not pyspy.is_ours(0)
    assert not pyspy.is_ours(os.getpid())
    assert not pyspy.is_ours(2**22)


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo 'Error: Permission Denied' >&2; exit 1", "may not look"),
        ("echo 'Error: no such thing' >&2; exit 1", "no such thing"),
        ("exit 7", "exit status 7"),
        ("exec cat /dev/zero", "more than 4 MiB"),
    ],
)
def test_a_pyspy_that_fails_says_why(monkeypatch, tmp_path, script, why):
    """Its reason is told, in one line; too much output is an error too."""
    fake_spy(monkeypatch, tmp_path, script)
    with pytest.raises(pyspy.PySpyError, match=why) as error:
        pyspy.dump(os.getpid(), nonblocking=True, budget=ENOUGH)
    assert error.value.refused == ("may not" in why)


def test_a_missing_pyspy_says_so(monkeypatch):
    """It may not be installed, or not be executable."""
    monkeypatch.setattr(pyspy, "executable", lambda: None)
    with pytest.raises(pyspy.PySpyError, match="not installed") as error:
        pyspy.dump(os.getpid(), nonblocking=True, budget=1)
    assert error.value.hopeless
    monkeypatch.setattr(pyspy, "executable", lambda: "/nowhere/py-spy")
    with pytest.raises(pyspy.PySpyError, match="cannot be started"):
        pyspy.dump(os.getpid(), nonblocking=True, budget=1)
