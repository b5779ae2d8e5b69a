"""Hung workers, for real, under servers at their default intervals."""

import contextlib
import os
import signal
import time

import pytest

import unhang
import workers
from support import until


@contextlib.contextmanager
def queue_server(spawn, _path):
    queue = spawn.Queue()
    server = unhang.LocalTimerServer(queue)
    server.start()
    yield server, unhang.LocalTimerClient(queue)
    server.stop()


@contextlib.contextmanager
def fifo_server(_spawn, path):
    server = unhang.FileTimerServer(path, "test")
    server.start()
    yield server, unhang.FileTimerClient(path)
    server.stop()


@pytest.fixture(params=[queue_server, fifo_server], ids=["queue", "fifo"])
def served(request, spawn, pipe_path):
    """A server that runs, and a client for its workers."""
    with request.param(spawn, pipe_path) as pair:
        yield pair


HANGS = [
    workers.sleep_in_block,
    workers.keep_the_gil,
    workers.loop_in_block,
    workers.wait_for_a_lock,
    workers.read_forever,
]


@pytest.mark.parametrize("hang", HANGS)
def test_a_hung_worker_is_killed(served, start, hang):
    """However it hangs, and without any interval having to pass."""
    _, client = served
    worker = start(hang, client, 0.2)
    worker.heard()
    assert worker.ended() == -signal.SIGKILL


def test_no_worker_is_killed_early(served, start):
    """A worker that says when it entered its block dies no sooner than its timeout later."""
    _, client = served
    worker = start(workers.sleep_in_block, client, 0.3)
    entered = worker.heard()
    assert worker.ended() == -signal.SIGKILL
    # The worker looks at the clock before the arming, which is where the 0.3 s begin.
    assert time.monotonic() - entered > 0.3


def test_a_stopped_worker_is_killed(served, start, stopped):
    """SIGSTOP does not protect a worker."""
    _, client = served
    worker = start(workers.arm_and_wait, client, 2)
    assert worker.heard() == "armed"
    stopped(worker.pid)
    assert worker.ended() == -signal.SIGKILL


def test_a_worker_that_is_killed_at_any_instant_silences_nobody(served, start):
    """Siblings that hang are killed although others died in the middle of arming, again and again."""
    server, client = served
    for delay in range(8):
        victim = start(workers.arm_for_ever, client)
        victim.heard()
        sum(range(delay * 1000))
        victim.end()
    sibling = start(workers.keep_the_gil, client, 0.1)
    assert sibling.ended() == -signal.SIGKILL
    until(lambda: not server._timers.has_worker(sibling.pid))


def test_many_workers_that_expire_together_are_all_killed(served, start):
    """A collective that hangs takes all its ranks at once."""
    _, client = served
    ranks = [start(workers.sleep_in_block, client, 0.3) for _ in range(6)]
    assert [rank.ended() for rank in ranks] == [-signal.SIGKILL] * 6


def test_a_worker_whose_blocks_end_in_time_is_left_alone(served, start):
    """Blocks that end in time, in great number, kill nobody and leave nothing."""
    server, client = served
    worker = start(workers.blocks_in_time, client, 2000)
    assert worker.heard() == "done"
    assert worker.ended() == 0
    until(lambda: len(server._timers) == 0)


def test_stopping_takes_no_interval(served):
    """stop() ends the thread at once, may be called twice, and the server can be started again."""
    server, _ = served
    thread = server._watchdog_thread
    begun = time.monotonic()
    server.stop()
    assert not thread.is_alive()
    assert time.monotonic() - begun < 5
    server.stop()
    server.start()
    assert server._watchdog_thread.is_alive()


def test_a_server_that_was_stopped_and_started_kills_again(served, start):
    """The second life of a server is as good as the first."""
    server, client = served
    server.stop()
    server.start()
    assert start(workers.sleep_in_block, client, 0.1).ended() == -signal.SIGKILL


def test_an_innocent_process_is_not_killed_by_a_forged_request(served, start):
    """A request that names the server, its parent or a group around it harms nobody, and others are served."""
    server, client = served
    for pid in (0, 1, -1, os.getpid(), os.getppid(), -os.getpgid(0)):
        forged = unhang.FileTimerRequest(pid, "forged", time.time() - 1, signal.SIGKILL)
        if isinstance(client, unhang.FileTimerClient):
            client._send_request(forged)
        else:
            client._mp_queue.put(unhang.TimerRequest(pid, "forged", time.time() - 1))
    assert start(workers.sleep_in_block, client, 0.1).ended() == -signal.SIGKILL
    assert server.dropped_requests == {"refused": 6}


def test_a_server_that_was_stopped_for_long_kills_nobody_who_was_in_time(start, stopped, pipe_path):
    """After a SIGSTOP of the server's process, releases that wait in the pipe count before anyone is judged."""
    watchdog = start(workers.serve_fifo, pipe_path)
    watchdog.heard()
    client = unhang.FileTimerClient(pipe_path)
    worker = start(workers.arm_and_wait, client, 2)
    assert worker.heard() == "armed"
    stopped(watchdog.pid)
    expired = time.monotonic() + 2.1
    client._send_request(unhang.FileTimerRequest(worker.pid, "scope", -1))
    until(lambda: time.monotonic() > expired)
    os.kill(watchdog.pid, signal.SIGCONT)
    other = start(workers.sleep_in_block, client, 0.1)
    assert other.ended() == -signal.SIGKILL
    assert worker.runs()
