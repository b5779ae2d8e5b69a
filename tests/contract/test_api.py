"""The contract of ``api``: requests, the loop of a server, ``expires``."""

import asyncio
import functools
import inspect
import pickle
import threading
import time
from unittest import mock

import pytest

from unhang.api import RequestQueue, TimerClient, TimerRequest, TimerServer
from unhang.errors import NoTimerClientError

TWO = [TimerRequest(1, "a", 0), TimerRequest(2, "b", 0)]


class TwoRequests(RequestQueue):
    """A queue that never empties."""

    def size(self):
        return 2

    def get(self, size, timeout):
        return TWO


class ThreeFates(TimerServer):
    """Reaping worker 1 raises, worker 2 is reaped, worker 3 is not."""

    register_timers = mock.Mock()
    clear_timers = mock.Mock()

    def get_expired_timers(self, deadline):
        assert abs(deadline - time.time()) < 60
        return {pid: [TimerRequest(pid, "x", 0), TimerRequest(pid, "y", 0)] for pid in (1, 2, 3)}

    def _reap_worker(self, worker_id):
        if worker_id == 1:
            raise RuntimeError("of the subclass")
        return worker_id == 2


class Recorder(TimerClient):
    """A client that keeps what it is asked."""

    def __init__(self):
        self.asked = []

    def acquire(self, scope_id, expiration_time):
        self.asked.append(("acquire", scope_id, expiration_time))

    def release(self, scope_id):
        self.asked.append(("release", scope_id))

    @property
    def scopes(self):
        return [entry[1] for entry in self.asked if entry[0] == "acquire"]


class Unreachable(Recorder):
    """A client whose server dies while a block runs."""

    def release(self, scope_id):
        raise BrokenPipeError("no server")


def test_run_watchdog():
    """One turn asks for the size once, gets that many, registers them, and clears whoever counts as reaped."""
    queue = mock.Mock(wraps=TwoRequests())
    server = ThreeFates(queue, 7)
    server._run_watchdog()
    queue.size.assert_called_once_with()
    queue.get.assert_called_once_with(2, 7)
    server.register_timers.assert_called_once_with(TWO)
    server.clear_timers.assert_called_once_with({1, 2})


def test_an_empty_queue_is_asked_for_one():
    """The loop waits for the first request when none is there."""
    queue = mock.Mock(size=mock.Mock(return_value=0), get=mock.Mock(return_value=[]))
    ThreeFates(queue, 7)._run_watchdog()
    queue.get.assert_called_once_with(1, 7)


def test_the_loop_survives_its_errors(caplog):
    """A turn that raises is logged, ever less often, and the next one comes; stop() ends the loop."""
    turns = threading.Semaphore(0)
    server = ThreeFates(TwoRequests(), 0.01)
    server._run_watchdog = mock.Mock(side_effect=lambda: turns.release() or 1 / 0)
    server.start()
    assert all(turns.acquire(timeout=30) for _ in range(7))
    thread = server._watchdog_thread
    server.stop()
    thread.join(30)
    # The first, the second, the fourth, the eighth.
    logged = server._run_watchdog.call_count.bit_length()
    assert [record.exc_info[0] for record in caplog.records] == [ZeroDivisionError] * logged
    assert not thread.is_alive()
    assert server._watchdog_thread is None


def test_a_server_without_interrupt_can_be_stopped_and_started():
    """A request queue of somebody else's ends the thread after its wait, and a new start goes on."""
    turns = threading.Semaphore(0)
    server = ThreeFates(TwoRequests(), 0.01)
    server._run_watchdog = turns.release
    for _ in range(3):
        server.start()
        server.start()
        assert turns.acquire(timeout=30)
        server.stop()
        server.stop()


def test_a_thread_that_has_not_left_yet_goes_on_as_the_watchdog():
    """stop() and start() while a turn takes long leave one loop, not two."""
    in_turn, go_on = threading.Event(), threading.Event()
    server = ThreeFates(TwoRequests(), 0.001)
    server._run_watchdog = lambda: in_turn.set() or go_on.wait(30)
    server.start()
    first = server._watchdog_thread
    assert in_turn.wait(30)
    with mock.patch("unhang._platform.loop_thread._JOIN", 0.001):
        server.stop()
    server.start()
    assert server._watchdog_thread is first
    go_on.set()
    server.stop()


def test_requests_are_equal_by_their_fields():
    """Same worker, scope and time: equal; anything else is not, and a request has no hash."""
    assert TimerRequest(1, "a", 2.0) == TimerRequest(1, "a", 2.0)
    assert TimerRequest(1, "a", 2.0) != TimerRequest(1, "a", 3.0)
    assert TimerRequest(1, "a", 2.0) != (1, "a", 2.0)
    with pytest.raises(TypeError):
        hash(TimerRequest(1, "a", 2.0))


def test_requests_have_slots_and_a_repr():
    """No other attributes, and a repr that names the fields."""
    request = TimerRequest(1, "a", 2.0)
    with pytest.raises(AttributeError):
        request.colour = "red"
    assert repr(request) == "TimerRequest(worker_id=1, scope_id='a', expiration_time=2.0)"


def test_requests_can_be_pickled():
    """A request comes out as it went in, without what a server wrote on it."""
    request = TimerRequest(1, "a", 2.0)
    copy = pickle.loads(pickle.dumps(request))
    assert copy == request
    assert not hasattr(copy, "_received")


def test_the_contract_is_abstract():
    """Clients, queues and servers must be completed before they are made."""
    for abstract in (TimerClient, RequestQueue):
        with pytest.raises(TypeError):
            abstract()
    with pytest.raises(TypeError):
        TimerServer(TwoRequests(), 1)


def test_signatures_are_those_of_torch(timer):
    """Names and defaults of what users call."""
    assert list(inspect.signature(timer.expires).parameters)[:3] == ["after", "scope", "client"]
    assert next(iter(inspect.signature(timer.configure).parameters)) == "timer_client"
    local = inspect.signature(timer.LocalTimerServer).parameters
    assert {name: local[name].default for name in ("max_interval", "daemon")} == {"max_interval": 60, "daemon": True}
    file_based = inspect.signature(timer.FileTimerServer).parameters
    assert list(file_based)[:5] == ["file_path", "run_id", "max_interval", "daemon", "log_event"]
    assert file_based["max_interval"].default == 10


def test_no_client(timer):
    """Without a client, entering is a RuntimeError that says what to do, and calling expires() is none."""
    block = timer.expires(after=1)
    with pytest.raises(RuntimeError, match="configure"), block:
        pass


def test_client_interaction(timer):
    """A block asks its client to acquire the scope until now + after, and to release it."""
    client = Recorder()
    before = time.time()
    with timer.expires(after=5, scope="test", client=client):
        assert len(client.asked) == 1
    (_, scope, expiration_time), release = client.asked
    assert before + 5 <= expiration_time <= time.time() + 5
    assert (scope, release) == ("test", ("release", "test"))


def test_the_configured_client_is_used_and_cleared(timer):
    """configure() sets it, an explicit client comes first, configure(None) clears it."""
    configured, given = Recorder(), Recorder()
    timer.configure(configured)
    with timer.expires(5):
        pass
    with timer.expires(5, client=given):
        pass
    assert (len(configured.asked), len(given.asked)) == (2, 2)
    timer.configure(None)
    with pytest.raises(NoTimerClientError), timer.expires(5):
        pass


def test_exception_propagation(timer):
    """The block's exception comes out as it is, and the timer is released."""
    client, error = Recorder(), LookupError("of the block")
    with pytest.raises(LookupError) as caught, timer.expires(5, client=client):
        raise error
    assert caught.value is error
    assert client.asked[-1][0] == "release"


def test_the_blocks_exception_survives_a_failing_release(timer, caplog):
    """When disarming fails too, that is logged; without an exception of the block it is raised."""
    error = LookupError("of the block")
    with pytest.raises(LookupError) as caught, timer.expires(5, client=Unreachable()):
        raise error
    assert caught.value is error
    assert "Could not disarm" in caplog.text
    with pytest.raises(BrokenPipeError), timer.expires(5, client=Unreachable()):
        pass


@pytest.mark.parametrize("interrupted", ["acquire", "release"])
def test_an_interrupt_at_the_edge_of_a_block_leaves_no_timer(timer, interrupted):
    """KeyboardInterrupt out of a signal handler, behind the arming or before the disarming, disarms."""
    client = Recorder()

    def interrupt(scope_id, *_):
        setattr(client, interrupted, original)
        raise KeyboardInterrupt

    original = getattr(client, interrupted)
    setattr(client, interrupted, interrupt)
    with pytest.raises(KeyboardInterrupt), timer.expires(5, scope="scope", client=client):
        pass
    assert client.asked[-1] == ("release", "scope")


def test_the_unnamed_scope_is_the_place_of_the_call(timer):
    """File and line of the call, distinct for nested blocks, the same in a loop, not that of contextlib."""
    client = Recorder()
    for _ in range(2):
        with timer.expires(5, client=client):  # noqa: SIM117 - two lines are the point
            with timer.expires(5, client=client):
                pass
    line = inspect.currentframe().f_lineno
    assert client.scopes == [f"{__file__}:{line - 3}", f"{__file__}:{line - 2}"] * 2


def test_the_unnamed_scope_is_each_threads_own_place(timer):
    """Two threads in two places have two scopes."""
    client = Recorder()

    def here():
        with timer.expires(5, client=client):
            pass

    def there():
        with timer.expires(5, client=client):
            pass

    for function in (here, there):
        thread = threading.Thread(target=function)
        thread.start()
        thread.join()
    assert len(set(client.scopes)) == 2
    assert all(scope.startswith(__file__) for scope in client.scopes)


def test_a_decorated_function_has_a_timer_for_each_call(timer):
    """The scope is the function's name, the client the one configured when it is called."""

    @timer.expires(after=5)
    def add(a, b=1):
        """Add."""
        return a + b

    client = Recorder()
    timer.configure(client)
    assert (add(1), add(1, b=2), add.__doc__) == (2, 3, "Add.")
    assert client.scopes == [add.__qualname__] * 2
    assert [entry[0] for entry in client.asked] == ["acquire", "release"] * 2


def test_a_decorated_function_keeps_a_scope_that_was_given(timer):
    """And one without a name, a partial object, has the place of the decorator."""
    client = Recorder()
    timer.expires(5, "given", client)(lambda: None)()
    timer.expires(5, client=client)(functools.partial(int, "1"))()
    assert client.scopes == ["given", f"{__file__}:{inspect.currentframe().f_lineno - 1}"]


def test_a_decorated_coroutine_is_timed_while_it_runs(timer):
    """The timer is armed when the coroutine runs, not when it is made."""
    client = Recorder()

    @timer.expires(after=5, client=client)
    async def wait():
        await asyncio.sleep(0)
        return len(client.asked)

    coroutine = wait()
    assert client.asked == []
    assert asyncio.run(coroutine) == 1
    assert [entry[0] for entry in client.asked] == ["acquire", "release"]


def test_an_async_block_is_timed_as_a_plain_one_is(timer):
    """Armed inside, disarmed behind, also when the block raises, whose exception comes out."""
    client = Recorder()

    async def work():
        async with timer.expires(5, "work", client):
            assert client.scopes == ["work"]
            await asyncio.sleep(0)
            raise LookupError

    with pytest.raises(LookupError):
        asyncio.run(work())
    assert [entry[0] for entry in client.asked] == ["acquire", "release"]


def test_a_timeout_that_is_no_number_is_an_error_at_once(timer):
    """NaN would never expire, and a string cannot."""
    with pytest.raises(ValueError, match="nan"):
        timer.expires(after=float("nan"))
    with pytest.raises(TypeError), timer.expires(after="5", client=Recorder()):
        pass
