"""What the queue's server must survive."""

import os
import signal
import time

import pytest

import unhang
import workers
from support import until
from unhang._core import real_time
from unhang.api import TimerRequest


class SlowlyWritten(TimerRequest):
    """Its queue's thread gets no processor for a second."""

    def __reduce__(self):
        time.sleep(1)
        return TimerRequest, (self.worker_id, self.scope_id, self.expiration_time)


@pytest.mark.parametrize("request_type", [TimerRequest, SlowlyWritten])
def test_a_release_that_a_stuck_lock_holds_back_counts(local_server, start, monkeypatch, request_type):
    """A worker that hangs with the queue's lock does not get its siblings killed, nor if their writers are slow."""
    monkeypatch.setattr("unhang.local_timer._UNLOCKED_MOST", 30.0)
    queue = local_server._request_queue._mp_queue
    sibling = start(workers.idle)
    sibling.heard()
    local_server.register_timers([TimerRequest(sibling.pid, "scope", time.time() + 0.1)])
    holder = start(workers.hold_lock, queue)
    assert holder.heard() == "locked"
    queue.put(request_type(sibling.pid, "scope", -1))
    until(lambda: len(local_server._timers) == 0, local_server._run_watchdog)
    assert sibling.runs()


def test_workers_that_use_put_are_heard_after_another_died_with_the_lock(local_server, start, monkeypatch):
    """A worker that somebody else killed while it held the queue's lock keeps nobody's request out for long."""
    monkeypatch.setattr("unhang.local_timer._STALL", 0.05)
    queue = local_server._request_queue._mp_queue
    holder = start(workers.hold_lock, queue)
    assert holder.heard() == "locked"
    holder.end()
    queue.put(TimerRequest(-3, "scope", time.time() + 600))
    local_server.start()
    until(lambda: len(local_server._timers) == 1)


def test_workers_that_use_put_are_heard_after_a_kill_with_the_lock(local_server, start):
    """A worker that is killed while it holds the queue's lock does not leave it locked."""
    queue = local_server._request_queue._mp_queue
    local_server.start()
    holder = start(workers.hold_lock, queue)
    assert holder.heard() == "locked"
    client = unhang.LocalTimerClient(queue)
    client._send(TimerRequest(holder.pid, "scope", time.time()))
    assert holder.ended() == -signal.SIGKILL
    assert queue._wlock.acquire(timeout=30)
    queue._wlock.release()


def test_timers_of_a_worker_that_has_exited_are_dropped(local_server, start):
    """They do not wait for their deadline."""
    client = unhang.LocalTimerClient(local_server._request_queue._mp_queue)
    local_server.start()
    worker = start(workers.arm_and_exit, client, 600)
    assert worker.ended() == 0
    until(lambda: len(local_server._timers) == 0)


def test_a_clock_step_between_sending_and_judging_kills_nobody(local_server, start, monkeypatch):
    """The deadline is fixed when the request is received."""
    worker = start(workers.idle)
    worker.heard()
    client = unhang.LocalTimerClient(local_server._request_queue._mp_queue)
    client._send(TimerRequest(worker.pid, "scope", time.time() + 60))
    local_server._run_watchdog()
    real = time.time
    monkeypatch.setattr(real_time, "time", lambda: real() + 3600)
    monkeypatch.setattr(time, "time", lambda: real() + 3600)
    local_server._request_queue.interrupt()
    local_server._run_watchdog()
    assert len(local_server._timers) == 1
    assert worker.runs()


def test_a_full_pipe_costs_a_bounded_wait_and_loses_nothing(local_server, monkeypatch):
    """A server that does not read makes the client wait once; then the queue's own thread has the waiting."""
    monkeypatch.setattr("unhang.local_timer._PATIENCE", 0.05)
    queue = local_server._request_queue._mp_queue
    client = unhang.LocalTimerClient(queue)
    sent = 0
    while client._writer is not None:
        client.acquire(f"scope {sent} " + "x" * 2000, 5)
        sent += 1
    client.release("last")
    requests = []
    until(
        lambda: len(requests) == sent + 1,
        lambda: requests.extend(local_server._request_queue.get(100, 0.01)),
    )
    assert requests[-1].scope_id == "last"


def test_clients_can_be_sent_to_workers(local_server, start):
    """A client that was pickled as an argument of a new process opens the pipe there."""
    client = unhang.LocalTimerClient(local_server._request_queue._mp_queue)
    local_server.start()
    assert start(workers.blocks_in_time, client, 1).heard() == "done"


def test_half_a_message_does_not_silence_the_others(local_server, start, monkeypatch):
    """A writer that died in the middle of a large message loses its own message only."""
    monkeypatch.setattr("unhang.local_timer._STALL", 0.05)
    queue = local_server._request_queue._mp_queue
    os.write(queue._writer.fileno(), (5000).to_bytes(4, "big") + b"\x80\x04half")
    local_server.start()
    client = unhang.LocalTimerClient(queue)
    assert start(workers.sleep_in_block, client, 0.1).ended() == -signal.SIGKILL


def test_a_release_behind_half_a_message_counts(local_server, start):
    """Nobody is judged before what may hide behind the half of a dead writer has been looked at."""
    queue = local_server._request_queue._mp_queue
    worker = start(workers.idle)
    worker.heard()
    client = unhang.LocalTimerClient(queue)
    client._send(TimerRequest(worker.pid, "scope", time.time() + 0.2))
    until(lambda: len(local_server._timers) == 1, local_server._run_watchdog)
    os.write(queue._writer.fileno(), (100_000).to_bytes(4, "big") + b"\x80\x04\x95")
    client._send(TimerRequest(worker.pid, "scope", -1))
    until(lambda: len(local_server._timers) == 0, local_server._run_watchdog)
    assert worker.runs()


def test_a_server_with_100_000_timers_turns_quickly(local_server, start):
    """A turn costs what expired, not what exists: no turn visits the timers that are far away."""
    worker = start(workers.idle)
    worker.heard()
    far = time.time() + 3600
    local_server.register_timers([TimerRequest(worker.pid, str(number), far) for number in range(100_000)])
    assert len(local_server._timers) == 100_000
    visited = []
    table = local_server._timers
    is_live = table._is_live
    table._is_live = lambda entry: visited.append(entry) or is_live(entry)
    local_server._request_queue.interrupt()
    local_server._run_watchdog()
    assert len(visited) <= 10


@pytest.mark.parametrize("step", [3600, -3600])
def test_a_clock_step_between_sending_and_receiving_kills_nobody(local_server, start, monkeypatch, step):
    """Of the two deadlines that a request may have meant, the later one counts; what is sent later has only one."""
    worker = start(workers.idle)
    worker.heard()
    client = unhang.LocalTimerClient(local_server._request_queue._mp_queue)
    local_server._request_queue.interrupt()
    local_server._run_watchdog()
    real = time.time
    client._send(TimerRequest(worker.pid, "before", real() + 60))
    monkeypatch.setattr(real_time, "time", lambda: real() + step)
    monkeypatch.setattr(time, "time", lambda: real() + step)
    local_server._run_watchdog()
    assert local_server._timers.next_deadline() > time.monotonic() + 30
    local_server.clear_timers({worker.pid})
    client._send(TimerRequest(worker.pid, "after", time.time() + 60))
    local_server._run_watchdog()
    assert 30 < local_server._timers.next_deadline() - time.monotonic() < 61
