"""The contract of ``local_timer``: timers over a multiprocessing queue."""

import gc
import logging
import multiprocessing
import pickle
import queue as queues
import signal
import threading
import time
import weakref
from unittest import mock

import pytest

import workers
from support import until
from unhang.api import TimerRequest

LATER, BEFORE = 60, -60


def request(pid, scope, after):
    return TimerRequest(pid, scope, -1 if after is None else time.time() + after)


@pytest.fixture
def queue(spawn):
    return spawn.Queue()


@pytest.fixture
def requests(timer, queue):
    from torch.distributed.elastic.timer.local_timer import MultiprocessingRequestQueue

    return MultiprocessingRequestQueue(queue)


@pytest.fixture
def server(timer, queue):
    server = timer.LocalTimerServer(queue, max_interval=0.5)
    yield server
    server.stop()


def put(queue, *requests):
    """Put requests and wait until the queue's thread has written them all, and waits for more."""
    for item in requests:
        queue.put(item)
    until(lambda: queue._notempty._waiters)


def test_get(requests, queue):
    """Nothing in an empty queue; what was put comes out, though fewer than asked for."""
    assert requests.get(1, timeout=0.01) == []
    put(queue, TimerRequest(1, "scope", 0))
    assert requests.get(2, timeout=0.05) == [TimerRequest(1, "scope", 0)]


def test_get_size(requests, queue):
    """A get() that is given time waits for all the requests that it was asked for."""
    sent = [TimerRequest(pid, "scope", 0) for pid in range(10)]
    thread = threading.Thread(target=lambda: [queue.put(item) for item in sent])
    thread.start()
    assert requests.get(10, timeout=30) == sent
    thread.join()


def test_get_less_than_size(requests, queue):
    """A slow producer: what has come when the time is over."""
    put(queue, TimerRequest(1, "scope", 0), TimerRequest(2, "scope", 0))
    begun = time.monotonic()
    assert len(requests.get(10, timeout=0.2)) == 2
    assert time.monotonic() - begun >= 0.2


def test_size_counts_what_get_will_give(requests, queue):
    """Put by the queue's own put(), whether it has reached the pipe or not, and what get() has left."""
    assert requests.size() == 0
    for pid in range(3):
        queue.put(TimerRequest(pid, "scope", 0))
    assert requests.size() == 3
    assert len(requests.get(1, timeout=30)) == 1
    assert requests.size() == 2
    assert len(requests.get(2, timeout=30)) == 2
    assert requests.size() == 0


def test_size_forgets_writers_that_were_killed(requests, queue):
    """One that was killed between counting and writing is waited for once, not in every turn."""
    queue._sem.acquire()
    assert requests.size() == 1
    assert requests.get(1, timeout=0.01) == []
    assert requests.size() == 0
    put(queue, TimerRequest(1, "scope", 0))
    assert requests.size() == 1


def test_a_get_is_interrupted(requests):
    """From another thread, or before it begins."""
    requests.interrupt()
    assert requests.get(1, timeout=30) == []
    threading.Timer(0.01, requests.interrupt).start()
    assert requests.get(1, timeout=30) == []


@pytest.mark.parametrize("bad", [b"no pickle", "a string", threading.main_thread, TimerRequest.__new__(TimerRequest)])
def test_one_bad_message_is_dropped_alone(requests, queue, bad):
    """A release in the same batch is not lost; the message is counted and told once."""
    if isinstance(bad, bytes):
        queue._writer.send_bytes(bad)
    else:
        put(queue, bad)
    put(queue, TimerRequest(1, "scope", -1))
    assert requests.get(5, timeout=0.5) == [TimerRequest(1, "scope", -1)]
    assert len(requests.dropped) == 1


def test_a_pickle_calls_nothing(requests, queue, tmp_path):
    """A message that would run code when loaded is dropped without running it."""

    class Malicious:
        def __reduce__(self):
            return (open, (str(tmp_path / "made"), "w"))

    queue._writer.send_bytes(pickle.dumps(Malicious()))
    assert requests.get(1, timeout=0.1) == []
    assert not (tmp_path / "made").exists()
    assert list(requests.dropped) == ["not a request (UnpicklingError)"]


class OwnRequest(TimerRequest):
    """What a user derived."""

    __slots__ = ("colour",)


def test_derived_requests_come_through(requests, queue):
    """A subclass of TimerRequest keeps its class and attributes."""
    derived = OwnRequest(1, "scope", 0)
    derived.colour = "red"
    put(queue, derived)
    (found,) = requests.get(1, timeout=30)
    assert (type(found), found.colour) == (OwnRequest, "red")


def test_other_queues_are_read_with_get(timer, caplog):
    """A queue that is none of multiprocessing's is served as torch serves it, and that is told."""
    from unhang.local_timer import MultiprocessingRequestQueue

    queue = queues.Queue()
    requests = MultiprocessingRequestQueue(queue)
    assert "Requests are taken with get()" in caplog.text
    queue.put(TimerRequest(1, "scope", 0))
    assert requests.size() == 1
    assert requests.get(3, timeout=0.01) == [TimerRequest(1, "scope", 0)]
    assert requests.settle() == []


def test_one_bad_message_of_another_queue_is_dropped_alone(timer):
    """Where get() is used, what is no request is dropped, and what only looks like one of ours is taken."""
    from types import SimpleNamespace

    from unhang.local_timer import MultiprocessingRequestQueue

    queue = queues.Queue()
    requests = MultiprocessingRequestQueue(queue)
    like_torchs = SimpleNamespace(worker_id=1, scope_id="scope", expiration_time=-1)
    for item in ("hello", like_torchs):
        queue.put(item)
    assert requests.get(2, timeout=0.1) == [TimerRequest(1, "scope", -1)]
    assert list(requests.dropped) == ["not a request (AttributeError)"]


def test_acquire_release(server, queue):
    """A timer that was acquired and released is gone; releasing nothing is nothing."""
    with mock.patch("os.kill") as kill:
        put(queue, request(-3, "one", LATER), request(-3, "one", None), request(-3, "two", None))
        server._run_watchdog()
    assert len(server._timers) == 0
    kill.assert_not_called()


def test_expired_timers(server, queue):
    """One expired timer reaps the worker, once, and takes its other timers along."""
    with mock.patch("os.kill") as kill:
        put(queue, request(-3, "one", BEFORE), request(-3, "two", LATER))
        server._run_watchdog()
    assert len(server._timers) == 0
    kill.assert_called_once_with(-3, signal.SIGKILL)


def test_valid_timers(server, queue):
    """Timers that have not expired stay, by worker and scope, and nobody is touched."""
    armed = [(-3, "one"), (-3, "two"), (-2, "one"), (-2, "two")]
    with mock.patch("os.kill") as kill:
        put(queue, *(request(pid, scope, LATER) for pid, scope in armed))
        server._run_watchdog()
    assert len(server._timers) == 4
    assert all(key in server._timers for key in armed)
    kill.assert_not_called()


def test_watchdog_empty_queue(server):
    """A turn without requests does nothing."""
    server._run_watchdog()
    assert len(server._timers) == 0


def test_watchdog_call_count(timer, queue):
    """The loop turns once in each interval: it does not spin."""
    server = timer.LocalTimerServer(queue, max_interval=0.01)
    turns = threading.Semaphore(0)
    turn = mock.Mock(wraps=server._run_watchdog, side_effect=lambda: turns.release() or mock.DEFAULT)
    with mock.patch.object(server, "_run_watchdog", turn):
        begun = time.monotonic()
        server.start()
        assert all(turns.acquire(timeout=30) for _ in range(10))
        server.stop()
        elapsed = time.monotonic() - begun
    assert elapsed >= 0.09
    assert turn.call_count <= elapsed / 0.01 + 2


def test_subclasses_decide_how_to_reap(timer, queue):
    """An overridden _reap_worker() is called; what returns False is tried again after a pause."""
    tried = []

    class Gentle(timer.LocalTimerServer):
        def _reap_worker(self, worker_id):
            tried.append(worker_id)
            return len(tried) > 2

    server = Gentle(queue, max_interval=0.01)
    put(queue, request(-3, "one", BEFORE))
    until(lambda: len(tried) == 3, server._run_watchdog)
    assert len(server._timers) == 0


def test_a_server_that_nothing_refers_to_gives_its_queue_back_at_once(timer, spawn, popen):
    """Without a collection: one that comes within multiprocessing's resource tracker loses its semaphores."""
    queue, worker = spawn.Queue(), popen(["sleep", "600"])
    let_go = weakref.ref(queue)
    server = timer.LocalTimerServer(queue, max_interval=0.01)
    gc.disable()
    try:
        server.start()
        put(queue, request(worker.pid, "one", LATER))
        timers = server._timers
        until(lambda: len(timers) == 1)
        server.stop()
        del server, queue
        assert let_go() is None
    finally:
        gc.enable()


def test_subclasses_may_change_the_deadline(timer, queue):
    """An expiration time that register_timers() was given and changed is the one that counts."""

    class Patient(timer.LocalTimerServer):
        def register_timers(self, timer_requests):
            for item in timer_requests:
                item.expiration_time += 600
            super().register_timers(timer_requests)

    server = Patient(queue, max_interval=0.01)
    put(queue, request(-3, "one", BEFORE))
    with mock.patch("os.kill") as kill:
        server._run_watchdog()
    kill.assert_not_called()
    assert len(server._timers) == 1


def test_a_subclass_that_spares_everybody_does_not_make_the_loop_spin(timer, queue):
    """A timer that stays due is looked at some twenty times a second."""

    class Observer(timer.LocalTimerServer):
        def get_expired_timers(self, deadline):
            return {}

    server = Observer(queue, max_interval=60)
    server.register_timers([request(-3, "one", BEFORE)])
    server._request_queue.interrupt()
    server._run_watchdog()
    assert server._wait_time() == pytest.approx(0.05)


def test_requests_of_another_class_are_registered(server):
    """A request that only has the fields of one, as torch's own, is armed like ours."""
    from types import SimpleNamespace

    server.register_timers([SimpleNamespace(worker_id=-3, scope_id="one", expiration_time=time.time() + LATER)])
    assert (-3, "one") in server._timers


def test_get_expired_timers_takes_any_deadline(server):
    """Asking about the future finds what will have expired then, and changes nothing."""
    server.register_timers([request(-3, "one", 10), request(-3, "two", 100)])
    assert server.get_expired_timers(time.time()) == {}
    assert [r.scope_id for r in server.get_expired_timers(time.time() + 50)[-3]] == ["one"]
    server.clear_timers({-3})
    assert len(server._timers) == 0


def test_happy_path(timer, server, queue, start):
    """A worker whose blocks end in time lives, and its timers are gone."""
    server.start()
    worker = start(workers.blocks_in_time, timer.LocalTimerClient(queue), 20)
    assert worker.heard() == "done"
    assert worker.ended() == 0
    until(lambda: len(server._timers) == 0)


def test_get_timer_recursive(timer, server, queue, start):
    """A recursive call in one place re-arms the one timer of that place, in the worker's favour or not."""
    server.start()
    server.start()
    worker = start(recurse, timer.LocalTimerClient(queue))
    assert worker.heard() == "inner blocks left"
    assert worker.ended() == -signal.SIGKILL


def recurse(client, say, depth=3):
    import unhang

    with unhang.expires(after=60 if depth else 0.05, client=client):
        if depth:
            recurse(client, say, depth - 1)
        else:
            say.send("inner blocks left")
            time.sleep(workers.FOREVER)


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_timer(timer, method, start):
    """A worker of any start method that hangs in its block is killed, at the default interval."""
    queue = multiprocessing.get_context(method).Queue()
    server = timer.LocalTimerServer(queue)
    server.start()
    worker = start(workers.sleep_in_block, timer.LocalTimerClient(queue), 0.1, method=method)
    assert worker.ended() == -signal.SIGKILL
    server.stop()


def test_a_client_over_another_queue_uses_put(timer, caplog):
    """Where the pipe cannot be used, the client says so once and sends as torch's does."""
    queue = mock.Mock()
    client = timer.LocalTimerClient(queue)
    client.acquire("scope", 5)
    client.release("scope")
    acquire, release = (call.args[0] for call in queue.put.call_args_list)
    assert (acquire.scope_id, acquire.expiration_time, release.expiration_time) == ("scope", 5, -1)
    assert caplog.text.count("Timers are sent with put()") == 1


def test_a_client_that_falls_back_keeps_its_order(timer, queue, requests, caplog):
    """A request that does not fit makes the client use put() for good: no release overtakes its acquire."""
    caplog.set_level(logging.WARNING)
    client = timer.LocalTimerClient(queue)
    client.acquire("short", 5)
    client.acquire("x" * 5000, 5)
    client.release("x" * 5000)
    client.release("short")
    assert [r.scope_id[0] for r in requests.get(4, timeout=30)] == ["s", "x", "x", "s"]
    assert caplog.text.count("Timers are sent with put()") == 1
