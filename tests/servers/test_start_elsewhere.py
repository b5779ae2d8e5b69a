"""Servers that are made in one process and started in another: a forked child, or one that they are pickled for."""

import multiprocessing
import os
import pickle
import signal
import time

import pytest

import unhang
import workers
from support import descriptors, until
from unhang.api import TimerRequest

METHODS = ["fork", "spawn", "forkserver"]
KINDS = ["queue", "FIFO", "shared"]


class Made:
    """A server of one kind that this process has made and not started, and a client of it."""

    def __init__(self, kind, directory, method="spawn"):
        if kind == "queue":
            queue = multiprocessing.get_context(method).Queue()
            self.server = unhang.LocalTimerServer(queue)
            self.client = unhang.LocalTimerClient(queue)
        elif kind == "FIFO":
            self.server = unhang.FileTimerServer(f"{directory}/timers", "test")
            self.client = unhang.FileTimerClient(f"{directory}/timers")
        else:
            directory.chmod(0o700)
            self.server = unhang.SharedTimerServer(f"{directory}/watchdog.sock", signal="none", evidence=0)
            self.client = unhang.SharedTimerClient(f"{directory}/watchdog.sock")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_server_is_started_in_another_process(kind, method, tmp_path, start):
    """It kills a worker that hangs, spares one that does not, and stops, wherever it was made."""
    made = Made(kind, tmp_path, method)
    serving = start(workers.start_server, made.server, method=method)
    assert serving.heard() == "started"
    assert start(workers.blocks_in_time, made.client, 5, method=method).ended() == 0
    assert start(workers.sleep_in_block, made.client, 0.1, method=method).ended() == -signal.SIGKILL
    assert serving.told("stop") == "stopped"
    assert not os.path.lexists(f"{tmp_path}/timers"), "the pipe belongs to the process that started the server"


@pytest.mark.parametrize("kind", ["queue", "FIFO"])
def test_a_server_is_started_in_each_process_in_turn(kind, tmp_path, start):
    """In a forked child, then in the process that made it, where the child has taken nothing away."""
    made = Made(kind, tmp_path, "fork")
    serving = start(workers.start_server, made.server, method="fork")
    assert serving.heard() == "started"
    serving.end()
    made.server.start()
    assert start(workers.sleep_in_block, made.client, 0.1, method="fork").ended() == -signal.SIGKILL
    made.server.stop()


def test_a_server_s_loop_is_turned_in_a_forked_child(local_server, start):
    """Without start(), and with the timers that it was given before; the parent's loop turns on, too."""
    sleeper = start(workers.idle)
    sleeper.heard()
    far = time.time() + 600
    local_server.register_timers([TimerRequest(sleeper.pid, "scope", far)])
    local_server._request_queue.interrupt()
    local_server._run_watchdog()
    local_server._max_interval = 0.01
    assert start(workers.turn_server, local_server, 3, method="fork").heard() == 1
    unhang.LocalTimerClient(local_server._request_queue._mp_queue)._send(TimerRequest(sleeper.pid, "more", far))
    until(lambda: len(local_server._timers) == 2, local_server._run_watchdog)


def test_timers_travel_with_a_server(local_server, start):
    """What was registered before start() is armed in the process that the server is pickled for."""
    sleeper = start(workers.idle)
    sleeper.heard()
    local_server.register_timers([TimerRequest(sleeper.pid, "scope", time.time() + 0.5)])
    assert start(workers.start_server, local_server).heard() == "started"
    assert sleeper.ended() == -signal.SIGKILL


def test_a_server_that_runs_is_not_pickled(file_server):
    """Its loop is a thread of this process: the error says what to do."""
    file_server.start()
    with pytest.raises(TypeError, match="before start"):
        pickle.dumps(file_server)


@pytest.mark.parametrize("kind", KINDS)
def test_making_a_server_opens_nothing_to_read_or_wait_with(kind, tmp_path):
    """Before start() it has no descriptor but the one that keeps a named pipe's inode its own."""
    if kind == "queue":
        queue = multiprocessing.get_context("fork").Queue()
        before = descriptors()
        server = unhang.LocalTimerServer(queue, on_expired=print)
    else:
        before = descriptors()
        server = Made(kind, tmp_path).server
    assert descriptors() - before == (1 if kind == "FIFO" else 0)
    server.stop()


@pytest.mark.parametrize("method", METHODS)
def test_a_server_with_a_callback_is_started_in_another_process(method, tmp_path, start):
    """The thread that calls it is started there."""
    queue = multiprocessing.get_context(method).Queue()
    server = unhang.LocalTimerServer(queue, on_expired=Noting(str(tmp_path / "noted")))
    assert start(workers.start_server, server, method=method).heard() == "started"
    client = unhang.LocalTimerClient(queue)
    assert start(workers.sleep_in_block, client, 0.1, method=method).ended() == -signal.SIGKILL
    until((tmp_path / "noted").exists)


class Noting:
    """A callback that leaves a file."""

    def __init__(self, path):
        self.path = path

    def __call__(self, report):
        with open(self.path, "w", encoding="utf-8"):
            pass
