"""The contract of ``file_based_local_timer``: timers over a named pipe."""

import json
import logging
import os
import signal
import threading
import time
from unittest import mock

import pytest

import workers
from support import until
from unhang.file_based_local_timer import FileTimerRequest, _retry

LATER, BEFORE = 60, -60


def request(pid, scope, after, signal=signal.SIGKILL):
    return FileTimerRequest(pid, scope, -1 if after is None else time.time() + after, signal)


@pytest.fixture
def server(timer, pipe_path):
    server = timer.FileTimerServer(pipe_path, "test", max_interval=0.5)
    yield server
    server.stop()


@pytest.fixture
def client(timer, pipe_path):
    return timer.FileTimerClient(pipe_path)


@pytest.fixture
def send(server, client):
    """Send requests to the server, started, and let it handle them all."""

    def send_all(*requests):
        server.start()
        for item in requests:
            client._send_request(item)
        server.run_once()

    return send_all


def test_send_request_without_server(timer, pipe_path):
    """Without a server, entering a block is a BrokenPipeError that says what to start."""
    client = timer.FileTimerClient(pipe_path)
    with pytest.raises(BrokenPipeError, match="start a FileTimerServer"), timer.expires(0.1, client=client):
        pass


def test_a_server_that_dies_is_one_line_on_release(timer, client, server, caplog):
    """Leaving blocks does not raise, and says so once."""
    server.start()
    with timer.expires(60, scope="outer", client=client), timer.expires(60, scope="inner", client=client):
        server.stop()
    assert caplog.text.count("Could not disarm") == 1


def test_a_client_goes_on_with_the_next_server(timer, client, server):
    """After a server has gone and another has come, arming and disarming work again."""
    server.start()
    with timer.expires(60, client=client):
        until(lambda: server._request_count == 1)
        server.stop()
    server.start()
    with timer.expires(60, client=client):
        pass
    until(lambda: server._request_count == 3)


def test_retry():
    """A function is called until it does not raise, a bounded number of times."""
    fails = mock.Mock(side_effect=[OSError, OSError, "good"], __name__="fails")
    assert _retry(3, 0)(fails)() == "good"
    fails = mock.Mock(side_effect=OSError("last"), __name__="fails")
    with pytest.raises(OSError, match="last"):
        _retry(3, 0)(fails)()
    assert fails.call_count == 3


def test_requests_in_wire_format():
    """Version 1, with exactly the fields that torch writes."""
    assert json.loads(request(4711, "scope", None, 9).to_json()) == {
        "version": 1,
        "pid": 4711,
        "scope_id": "scope",
        "expiration_time": -1,
        "signal": 9,
    }
    assert request(1, "a", None).worker_pid == 1


def test_requests_are_equal_by_their_fields():
    """The signal counts too."""
    assert request(1, "a", None, 9) == request(1, "a", None, 9)
    assert request(1, "a", None, 9) != request(1, "a", None, 15)
    assert request(1, "a", None, 9) != 1


def test_client_interaction(timer, client, server):
    """A block acquires and releases once each, through what users patch."""
    server.start()
    client.acquire = mock.MagicMock(wraps=client.acquire)
    client.release = mock.MagicMock(wraps=client.release)
    with timer.expires(after=1, scope="test", client=client):
        pass
    client.acquire.assert_called_once_with("test", mock.ANY)
    client.release.assert_called_once_with("test")


def test_what_the_client_opens_can_be_replaced(client):
    """A patched _open_non_blocking() is what the request is written to."""
    pipe = mock.MagicMock()
    client._open_non_blocking = lambda: pipe
    client.acquire("scope", 5.0)
    pipe.__exit__.assert_called_once()
    assert json.loads(pipe.write.call_args.args[0])["scope_id"] == "scope"


def test_exception_propagation(client, server, start):
    """The block's exception comes out in the worker as it is."""
    server.start()
    assert start(workers.raise_in_block, client).heard() == ("of the block",)


def test_no_client(timer):
    """Without a client, entering is a RuntimeError."""
    with pytest.raises(RuntimeError), timer.expires(after=1):
        pass


def test_happy_path(client, server, start):
    """A worker whose blocks end in time lives, and its timers are gone."""
    server.start()
    worker = start(workers.blocks_in_time, client, 20)
    assert worker.heard() == "done"
    assert worker.ended() == 0
    until(lambda: server._request_count == 40)
    assert len(server._timers) == 0


def test_timer(timer, pipe_path, client, start):
    """A worker that hangs in its block is killed, at the default interval, and the server lives on."""
    server = timer.FileTimerServer(pipe_path, "test")
    server.start()
    for _ in range(2):
        assert start(workers.sleep_in_block, client, 0.1).ended() == -signal.SIGKILL
    server.stop()


def test_get_timer_recursive(client, server, start):
    """A recursive call in one place re-arms the one timer of that place."""
    from test_local_timer import recurse

    server.start()
    worker = start(recurse, client)
    assert worker.heard() == "inner blocks left"
    assert worker.ended() == -signal.SIGKILL


def test_multiple_clients_interaction(client, server, start):
    """Every request of many clients is counted."""
    server.start()
    for worker in [start(workers.blocks_in_time, client, 10) for _ in range(4)]:
        assert worker.ended() == 0
    server.run_once()
    assert server._request_count == 2 * 4 * 10


def test_exit_before_release(timer, client, server, start):
    """The timers of a worker that has exited go with it, and nobody is reaped."""
    server.start()
    with mock.patch("torch.distributed.elastic.timer.FileTimerServer._reap_worker") as reap:
        assert start(workers.arm_and_exit, client, 600).ended() == 0
        until(lambda: server._request_count == 1)
        server.run_once()
    reap.assert_not_called()
    assert len(server._timers) == 0


def test_exit_before_release_reap(timer, client, server, start):
    """Whoever says that a process runs, by is_process_running(), is believed: it is reaped when it expires."""
    running = "torch.distributed.elastic.timer.FileTimerServer.is_process_running"
    reap = "torch.distributed.elastic.timer.FileTimerServer._reap_worker"
    with mock.patch(running, return_value=True), mock.patch(reap) as mock_reap:
        server.start()
        worker = start(workers.arm_and_exit, client, 0.3)
        assert worker.ended() == 0
        until(lambda: mock_reap.called)
        mock_reap.assert_called_with(worker.pid, signal.SIGKILL)
        server.run_once()
    assert len(server._timers) == 0


def test_expired_timers(server, send):
    """One expired timer signals the worker, once, takes its other timers along, and is told to the hook."""
    hook = "torch.distributed.elastic.timer.file_based_local_timer.log_debug_info_for_expired_timers"
    with mock.patch("os.kill") as kill, mock.patch(hook) as debug:
        send(request(-3, "one", BEFORE), request(-3, "two", LATER))
    assert len(server._timers) == 0
    kill.assert_called_once_with(-3, signal.SIGKILL)
    run_id, expired = next(call.args for call in debug.call_args_list if call.args[1])
    assert run_id == "test"
    assert json.loads(expired[-3][0])["scope_id"] == "one"


def test_send_request_release(server, send):
    """A timer that was acquired and released is gone; releasing nothing is nothing."""
    with mock.patch("os.kill") as kill:
        send(request(-3, "one", LATER), request(-3, "one", None), request(-3, "two", None))
    assert len(server._timers) == 0
    kill.assert_not_called()


def test_valid_timers(timer, server, send):
    """Timers that have not expired stay, by worker and scope, and nobody is touched."""
    armed = [(-3, "one"), (-3, "two"), (-2, "one"), (-2, "two")]
    running = "torch.distributed.elastic.timer.FileTimerServer.is_process_running"
    with mock.patch("os.kill") as kill, mock.patch(running, return_value=True):
        send(*(request(pid, scope, LATER) for pid, scope in armed))
    assert len(server._timers) == 4
    assert all(key in server._timers for key in armed)
    kill.assert_not_called()


def test_watchdog_empty_queue(server):
    """A server without clients starts, turns and stops."""
    server._run_watchdog = mock.MagicMock(wraps=server._run_watchdog)
    server.start()
    until(lambda: server._run_watchdog.called)


def test_watchdog_call_count(timer, pipe_path, client):
    """The loop turns once in each interval, also when a request comes."""
    server = timer.FileTimerServer(pipe_path, "test", max_interval=0.01)
    turns = threading.Semaphore(0)
    server._run_watchdog = mock.Mock(wraps=server._run_watchdog, side_effect=lambda _: turns.release() or mock.DEFAULT)
    begun = time.monotonic()
    server.start()
    client._send_request(request(-3, "one", LATER))
    assert all(turns.acquire(timeout=30) for _ in range(10))
    server.stop()
    elapsed = time.monotonic() - begun
    assert elapsed >= 0.09
    assert server._run_watchdog.call_count <= elapsed / 0.01 + 2


def test_events(timer, pipe_path, client, start):
    """What happens is told in order, and what the callback raises harms nobody."""
    events = []

    def log_event(name, request):
        events.append((name, request and request.scope_id))
        raise RuntimeError("of the callback")

    server = timer.FileTimerServer(pipe_path, "test", log_event=log_event)
    server.start()
    worker = start(workers.arm_and_wait, client, 0.1)
    assert worker.ended() == -signal.SIGKILL
    server.stop()
    assert events == [
        ("watchdog started", None),
        ("timer expired", "scope"),
        ("kill worker process", "scope"),
        ("watchdog stopped", None),
    ]


@pytest.mark.parametrize("no_signal", [0, -1])
def test_a_signal_that_is_none_tells_and_does_not_kill(timer, pipe_path, start, no_signal):
    """The event comes, the worker lives, and its other timers stay armed."""
    told = threading.Event()
    server = timer.FileTimerServer(pipe_path, "test", log_event=lambda name, _: name == "timer expired" and told.set())
    server.start()
    worker = start(workers.arm_and_wait, timer.FileTimerClient(pipe_path, signal=no_signal), 0.1)
    timer.FileTimerClient(pipe_path)._send_request(request(worker.pid, "other", LATER))
    assert told.wait(30)
    server.run_once()
    assert worker.runs()
    assert list(server._timers) == [(worker.pid, "other")]
    server.stop()


def test_the_first_timer_with_a_signal_decides(server, start):
    """In the order of their expiration, timers that only tell are passed over."""
    worker = start(workers.idle)
    server._reap_worker = mock.Mock(return_value=True)
    server.register_timers(
        [request(worker.pid, "c", -1, 15), request(worker.pid, "a", -3, 0), request(worker.pid, "b", -2, 10)]
    )
    events = []
    server._log_event = lambda name, request: events.append((name, request.scope_id))
    for pid, timers in server.get_expired_timers(time.time()).items():
        assert server._reap_expired(pid, timers)
    server._reap_worker.assert_called_once_with(worker.pid, 10)
    assert events == [("timer expired", "a"), ("timer expired", "b"), ("kill worker process", "b")]
    server._log_event = None


def test_a_failing_reap_is_tried_again(timer, pipe_path, client):
    """What returns False or raises keeps its timers, is tried again after a pause, and is told as expired once."""
    tried, events = [], []

    class Gentle(timer.FileTimerServer):
        def _reap_worker(self, worker_pid, signal):
            tried.append(worker_pid)
            if len(tried) == 1:
                raise OSError("of the subclass")
            return len(tried) > 2

    server = Gentle(pipe_path, "test", max_interval=0.01, log_event=lambda name, _: events.append(name))
    server.start()
    client._send_request(request(-3, "one", BEFORE))
    until(lambda: len(tried) == 3 and len(server._timers) == 0)
    server.stop()
    assert events.count("timer expired") == events.count("kill worker process") == 1


def test_last_progress_time(timer, pipe_path):
    """Now before the start; then the last turn of the loop, without waiting for a client."""
    server = timer.FileTimerServer(pipe_path, "test", max_interval=0.01)
    assert abs(server.get_last_progress_time() - time.time()) <= 2
    server._last_progress_time = 0
    server.start()
    until(lambda: server._last_progress_time > 0)
    assert abs(server.get_last_progress_time() - time.time()) <= 2
    assert isinstance(server.get_last_progress_time(), int)
    server.stop()


def test_is_process_running(timer, start):
    """True for a process that runs, False for a zombie and for nobody."""
    running = timer.FileTimerServer.is_process_running
    worker = start(workers.idle)
    assert running(worker.pid)
    worker.process.kill()
    os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)
    assert not running(worker.pid)
    worker.ended()
    assert not running(worker.pid)
    assert not running(10**20)


def test_the_debug_hook_logs_expired_timers(timer, caplog):
    """It names the run and the timers, and says nothing when there are none."""
    from torch.distributed.elastic.timer.debug_info_logging import log_debug_info_for_expired_timers

    caplog.set_level(logging.INFO)
    log_debug_info_for_expired_timers("run 7", {})
    assert caplog.text == ""
    log_debug_info_for_expired_timers("run 7", {4711: ['{"scope_id": "a"}']})
    assert "run 7" in caplog.text
    assert "4711" in caplog.text
