"""What the named pipe's server must survive."""

import errno
import json
import os
import pickle
import select
import signal
import time
from unittest import mock

import pytest

import unhang
import workers
from support import descriptors, forever, until
from unhang._core import real_time
from unhang.errors import NotOurPipeError, PipeFullError, RequestTooLargeError


@pytest.fixture
def write(file_server, pipe_path):
    """Start the server and write bytes into its pipe."""
    file_server.start()

    def write_all(data):
        with open(pipe_path, "wb", buffering=0) as pipe:
            pipe.write(data)

    return write_all


def good(scope="good"):
    fields = {"version": 1, "pid": -3, "scope_id": scope, "expiration_time": time.time() + 600, "signal": 9}
    return json.dumps(fields).encode() + b"\n"


BAD = {
    "not UTF-8": b"\xff\xfe\n",
    "not JSON": b"nonsense\n",
    "not a JSON object": b"[1]\n",
    "bad pid": b'{"pid": "x"}\n',
    "too long": b"x" * 5000 + b"\n",
}


def test_each_bad_line_is_dropped_alone(file_server, write):
    """Good requests between bad lines are registered, and each kind of bad line is counted."""
    write(good("a") + b"".join(line + good(f"b{i}") for i, line in enumerate(BAD.values())))
    until(lambda: len(file_server._timers) == 6)
    assert file_server.dropped_requests == dict.fromkeys(BAD, 1)


def test_a_flood_of_bad_lines_is_told_once(file_server, write, caplog):
    """A burst of them is one line in the log, and does not keep a good request out."""
    for _ in range(20):
        write(BAD["not JSON"] * 5000)
    write(good())
    until(lambda: len(file_server._timers) == 1)
    assert file_server.dropped_requests == {"not JSON": 100_000}
    assert caplog.text.count("Dropping") == 1


def test_a_writer_that_stops_in_the_middle_holds_up_nobody(file_server, write, start, pipe_path):
    """While it keeps the pipe open with half a line in it, another worker is still killed on time."""
    stuck = start(workers.stuck_in_half_a_line, pipe_path)
    assert stuck.heard() == "half"
    client = unhang.FileTimerClient(pipe_path)
    assert start(workers.sleep_in_block, client, 0.1).ended() == -signal.SIGKILL
    assert stuck.runs()


def test_a_server_survives_its_kills(start, pipe_path):
    """The process of the server is alive after it killed a worker, whatever the signal."""
    server = start(workers.serve_fifo, pipe_path)
    assert server.heard() == "started"
    for number in (signal.SIGKILL, signal.SIGTERM):
        client = unhang.FileTimerClient(pipe_path, signal=number)
        assert start(workers.sleep_in_block, client, 0.1).ended() == -number
    assert server.runs()


def test_a_server_that_died_leaves_a_pipe_that_the_next_replaces(start, pipe_path):
    """A killed server's pipe is no obstacle."""
    first = start(workers.serve_fifo, pipe_path)
    first.heard()
    first.end()
    second = start(workers.serve_fifo, pipe_path)
    assert second.heard() == "started"
    client = unhang.FileTimerClient(pipe_path)
    assert start(workers.sleep_in_block, client, 0.1).ended() == -signal.SIGKILL


def test_a_file_at_the_path_is_left_alone(tmp_path):
    """An ordinary file is not deleted: the error says what is in the way."""
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(NotOurPipeError, match="an ordinary file"):
        unhang.FileTimerServer(str(path), "test")
    assert path.read_text() == "data"


def test_stopping_removes_the_pipe_and_nothing_else(file_server, pipe_path):
    """The pipe is gone after stop(); what somebody else put there stays."""
    file_server.start()
    file_server.stop()
    assert not os.path.lexists(pipe_path)
    file_server.start()
    os.unlink(pipe_path)
    os.mkfifo(pipe_path)
    file_server.stop()
    assert os.path.lexists(pipe_path)


def test_a_stopped_server_forgets_its_timers(file_server, write):
    """What was armed before the pipe went could not be released since."""
    write(good())
    until(lambda: len(file_server._timers) == 1)
    file_server.stop()
    file_server.start()
    assert len(file_server._timers) == 0


def test_a_scope_that_does_not_fit_is_named(file_server, pipe_path):
    """A request that could not be written at once is refused, with its scope."""
    file_server.start()
    client = unhang.FileTimerClient(pipe_path)
    with pytest.raises(RequestTooLargeError, match="cannot arm or disarm 'my-scope") as caught:
        client.acquire("my-scope" * 1000, 5)
    assert isinstance(caught.value, RuntimeError)
    assert caught.value.limit == select.PIPE_BUF


def test_a_full_pipe_is_an_error_on_acquire_and_delivered_later_on_release(file_server, pipe_path, monkeypatch):
    """A server that does not look costs a bounded wait; a release that it did not take is sent again."""
    monkeypatch.setattr("unhang._file_timer_client._PATIENCE", 0.05)
    reader = file_server._open()
    client = unhang.FileTimerClient(pipe_path)
    for scope in ("x" * 3000, "x"):
        with pytest.raises(PipeFullError, match="stayed full"):
            forever(lambda scope=scope: client.acquire(scope, 5))
    client.release("not lost")
    assert len(client._undelivered) == 1
    while reader.read():
        pass
    client.release("after it")
    assert not client._undelivered
    scopes = [request.scope_id for request in file_server._read_requests(reader)]
    assert scopes[-2:] == ["not lost", "after it"]


def test_a_release_that_finds_no_descriptor_is_delivered_later(file_server, pipe_path, monkeypatch):
    """That the worker is short of something does not mean that the server has gone."""
    reader = file_server._open()
    client = unhang.FileTimerClient(pipe_path)
    with monkeypatch.context() as context:
        shortage = OSError(errno.EMFILE, "too many open files")
        context.setattr(client, "_open_non_blocking", mock.Mock(side_effect=shortage))
        client.release("short of descriptors")
    scopes = []
    until(lambda: scopes, lambda: scopes.extend(r.scope_id for r in file_server._read_requests(reader)))
    assert scopes == ["short of descriptors"]
    client._deliverer.join(30)
    assert not client._deliverer.is_alive()


def test_clients_can_be_pickled(pipe_path):
    """A client goes to a new process with its path and its signal."""
    copy = pickle.loads(pickle.dumps(unhang.FileTimerClient(pipe_path, signal=15)))
    assert (copy._file_path, copy.signal) == (pipe_path, 15)


def test_a_pipe_that_is_removed_kills_nobody(file_server, pipe_path, start):
    """Whoever could not disarm its timer is spared; the pipe is made again, and who comes then is watched."""
    client = unhang.FileTimerClient(pipe_path)
    file_server.start()
    worker = start(workers.arm_and_wait, client, 0.3)
    assert worker.heard() == "armed"
    until(lambda: len(file_server._timers) == 1)
    os.unlink(pipe_path)
    until(lambda: os.path.exists(pipe_path) and len(file_server._timers) == 0)
    assert start(workers.sleep_in_block, client, 0.1).ended() == -signal.SIGKILL
    assert worker.runs()


def test_a_pipe_that_is_replaced_kills_nobody(file_server, pipe_path, start):
    """The releases go to another server now: the one that lost its pipe judges nobody."""
    client = unhang.FileTimerClient(pipe_path)
    file_server.start()
    worker = start(workers.arm_and_wait, client, 0.3)
    assert worker.heard() == "armed"
    until(lambda: len(file_server._timers) == 1)
    other = unhang.FileTimerServer(pipe_path, "other")
    other.start()
    until(lambda: len(file_server._timers) == 0)
    assert start(workers.sleep_in_block, client, 0.1).ended() == -signal.SIGKILL
    assert worker.runs()
    other.stop()


def test_restarts_leave_no_descriptors(file_server, start):
    """A server that is stopped forgets its workers."""
    worker = start(workers.idle)
    worker.heard()
    counts = []
    for _ in range(5):
        file_server.start()
        file_server.register_timers([unhang.FileTimerRequest(worker.pid, "scope", time.time() + 600, 9)])
        file_server.stop()
        counts.append(descriptors())
    assert counts[-1] <= counts[0]


def test_a_forked_child_does_not_send_its_parents_requests(file_server, pipe_path):
    """What a full pipe kept back belongs to the process that asked for it."""
    reader = file_server._open()
    client = unhang.FileTimerClient(pipe_path)
    client._undelivered.append(unhang.FileTimerRequest(os.getpid() + 1, "of the parent", -1))
    client.release("own")
    assert [request.scope_id for request in file_server._read_requests(reader)] == ["own"]


def test_a_clock_step_while_a_request_waits_in_the_turn_changes_nothing(file_server, pipe_path, monkeypatch):
    """The deadline is fixed when the line is read, not when the turn ends."""
    reader = file_server._open()
    unhang.FileTimerClient(pipe_path)._send_request(
        unhang.FileTimerRequest(-3, "scope", time.time() + 60, signal.SIGKILL)
    )
    requests = file_server._read_requests(reader)
    real = time.time
    monkeypatch.setattr(real_time, "time", lambda: real() + 3600)
    monkeypatch.setattr(time, "time", lambda: real() + 3600)
    file_server.register_timers(requests)
    assert file_server.get_expired_timers(file_server._watch.wall.read()) == {}
    assert len(file_server._timers) == 1


def test_a_child_of_the_servers_process_does_not_remove_the_pipe(file_server, pipe_path):
    """stop() in a forked child, as an exit handler would call it, leaves the parent's pipe in place."""
    file_server.start()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            file_server.stop()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert os.path.lexists(pipe_path)


@pytest.mark.parametrize("step", [3600, -3600])
def test_a_clock_step_between_sending_and_receiving_kills_nobody(file_server, pipe_path, start, monkeypatch, step):
    """Of the two deadlines that a request may have meant, the later one counts; what is sent later has only one."""
    worker = start(workers.idle)
    worker.heard()
    reader = file_server._open()
    client = unhang.FileTimerClient(pipe_path)
    real = time.time
    client._send_request(unhang.FileTimerRequest(worker.pid, "before", real() + 60, 9))
    monkeypatch.setattr(real_time, "time", lambda: real() + step)
    monkeypatch.setattr(time, "time", lambda: real() + step)
    file_server._run_watchdog(reader)
    assert file_server._timers.next_deadline() > time.monotonic() + 30
    file_server.clear_timers({worker.pid})
    client._send_request(unhang.FileTimerRequest(worker.pid, "after", time.time() + 60, 9))
    file_server._run_watchdog(reader)
    assert 30 < file_server._timers.next_deadline() - time.monotonic() < 61
