"""A block and its timer, over a watchdog in memory: every second here is one of a clock turned by hand."""

import asyncio
import gc
import signal
import threading
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction

import pytest

import unhang
from unhang._core.page import parse_ending
from unhang.errors import TimerStateError


def scopes(watchdog):
    return [timer.scope for timer in watchdog.expired]


def test_a_block_that_takes_too_long_expires_once(unhang_watchdog):
    """At its deadline, not before, and told with what is known of it."""
    with unhang.expires(after=60, scope="step"):
        unhang_watchdog.advance(59.999)
        assert unhang_watchdog.expired == []
        unhang_watchdog.advance(0.001)
        assert [(timer.scope, timer.after, timer.running) for timer in unhang_watchdog.expired] == [("step", 60, 60)]
        unhang_watchdog.advance(100)
    assert len(unhang_watchdog.expired) == 1


def test_a_block_that_ends_in_time_does_not_expire(unhang_watchdog):
    """Disarmed behind the block, also when it raises."""
    with unhang.expires(after=60, scope="step"):
        assert unhang_watchdog.live == ["step"]
        unhang_watchdog.advance(59)
    with pytest.raises(LookupError), unhang.expires(after=60):
        raise LookupError
    assert unhang_watchdog.live == []
    unhang_watchdog.advance(1000)
    assert unhang_watchdog.expired == []


def test_nested_blocks_are_timers_of_their_own(unhang_watchdog):
    """Leaving the inner one, of the same name and place, does not disarm the outer one."""

    def block():
        return unhang.expires(after=10, scope="same")

    with block():
        unhang_watchdog.advance(6)
        with block():
            unhang_watchdog.advance(3)
        assert unhang_watchdog.expired == []
        unhang_watchdog.advance(1)
    assert [timer.running for timer in unhang_watchdog.expired] == [10]


def test_threads_in_one_block_are_timers_of_their_own(unhang_watchdog):
    """Each of eight threads in the same unnamed block has a timer; all but one leave."""
    inside, leave, stay = threading.Barrier(9), threading.Event(), threading.Event()

    def work(index):
        with unhang.expires(after=10):
            inside.wait(30)
            (stay if index == 3 else leave).wait(30)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    inside.wait(30)
    assert len(unhang_watchdog.live) == 8
    leave.set()
    for index, thread in enumerate(threads):
        if index != 3:
            thread.join(30)
    unhang_watchdog.advance(10)
    assert len(unhang_watchdog.expired) == 1
    stay.set()
    threads[3].join(30)


def test_an_unnamed_block_is_named_by_its_place(unhang_watchdog):
    """``file:line`` of the call, the same each time, however deep the stack is."""
    for _ in range(2):
        with unhang.expires(after=60) as timer:
            pass
    line = test_an_unnamed_block_is_named_by_its_place.__code__.co_firstlineno + 3
    assert timer.scope == f"{__file__}:{line}"


def test_equal_code_in_two_files_is_two_places(unhang_watchdog):
    """Code objects that compare equal are still told apart."""
    names = []
    for name in ("one.py", "two.py"):
        scope = {"unhang": unhang}
        exec(compile("def f():\n  with unhang.expires(9) as t: return t.scope", name, "exec"), scope)  # noqa: S102
        names.append(scope["f"]())
    assert names == ["one.py:2", "two.py:2"]


def test_one_place_with_two_timeouts_is_right_both_times(unhang_watchdog):
    """What is remembered of a place does not outlive the timeout that it was for."""
    for after in (10, 20):
        with unhang.expires(after) as timer:
            assert timer.remaining() == after


@pytest.mark.parametrize(
    ("after", "seconds"),
    [(2, 2), (0.5, 0.5), (timedelta(minutes=1), 60), (Fraction(1, 2), 0.5), (Decimal("1.5"), 1.5), (1e-12, 1e-9)],
)
def test_a_timeout_is_seconds_or_a_timedelta(unhang_watchdog, after, seconds):
    """Any real number of seconds, and timedelta; never less than the clock can tell."""
    with unhang.expires(after) as timer:
        assert timer.remaining() == pytest.approx(seconds)
        assert timer.after == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("after", "error"),
    [
        (float("nan"), ValueError),
        (float("inf"), ValueError),
        (-1, ValueError),
        (0, ValueError),
        (timedelta(seconds=-1), ValueError),
        (1e10, ValueError),
        ("60", TypeError),
        (None, TypeError),
        ([60], TypeError),
        (1j, TypeError),
    ],
)
def test_a_bad_timeout_is_refused_at_once(unhang_watchdog, after, error):
    """Before the block is entered, with the value in the message, for blocks and for heartbeats."""
    with pytest.raises(error, match="after is a"):
        unhang.expires(after)
    with pytest.raises(error, match="after is a"):
        unhang.heartbeat(after)


def test_a_decorator_without_parentheses_is_an_error_that_says_what_to_write():
    """When the module is loaded, also where no watchdog is configured: not later, with a timeout that is a function."""

    def step(): ...

    with pytest.raises(TypeError, match=r"in parentheses, as in `@unhang\.expires\(60\)`"):
        unhang.expires(step)
    with pytest.raises(TypeError, match=r"write `with unhang\.heartbeat\(60\) as steps:`"):
        unhang.heartbeat(step)


def test_calling_a_heartbeat_is_an_error_that_says_what_to_write(unhang_watchdog):
    """As a beat, and as a decorator."""
    with unhang.heartbeat(60) as steps:
        for arguments in ((), (len,)):
            with pytest.raises(TypeError, match=r"not called, and decorates no function: .* `steps\.beat\(\)` inside"):
                steps(*arguments)
        assert steps.state == "created"


@pytest.mark.parametrize("scope", [7, b"step", ["step"]])
def test_a_scope_is_a_string(unhang_watchdog, scope):
    """Anything else is a TypeError that says so."""
    with pytest.raises(TypeError, match="scope is the name"):
        unhang.expires(60, scope=scope)


def test_restart_starts_over(unhang_watchdog):
    """The timeout counts from the restart on."""
    with unhang.expires(10, "step") as timer:
        unhang_watchdog.advance(9)
        timer.restart()
        assert timer.remaining() == 10
        unhang_watchdog.advance(9)
        assert unhang_watchdog.expired == []
        unhang_watchdog.advance(1)
    assert [timer.running for timer in unhang_watchdog.expired] == [10]


def test_extend_adds_to_the_deadline_of_this_block_alone(unhang_watchdog):
    """The time is added once; a restart, and the next block of the place, have the timeout as it was given."""
    for _ in range(2):
        with unhang.expires(10, "step") as timer:
            unhang_watchdog.advance(5)
            timer.extend(7)
            timer.extend(timedelta(seconds=1))
            assert timer.remaining() == 13
            timer.restart()
            assert timer.remaining() == 10
    with unhang.expires(10, "step") as timer:
        timer.extend(3)
        unhang_watchdog.advance(13)
    assert [(timer.after, timer.running) for timer in unhang_watchdog.expired] == [(13, 13)]
    with pytest.raises(ValueError, match="extend"), unhang.expires(10) as timer:
        timer.extend(-1)


def test_a_suspended_timer_stands_still(unhang_watchdog):
    """It does not expire inside, and has what it had left behind."""
    with unhang.expires(10, "step") as timer:
        unhang_watchdog.advance(4)
        with timer.suspended():
            assert timer.state == "suspended"
            assert timer.remaining() == 6
            unhang_watchdog.advance(1000)
            assert timer.remaining() == 6
        assert timer.remaining() == 6
        unhang_watchdog.advance(5.9)
        assert unhang_watchdog.expired == []
        unhang_watchdog.advance(0.1)
    assert scopes(unhang_watchdog) == ["step"]


def test_a_suspension_does_not_cost_the_time_that_was_given_back(unhang_watchdog):
    """The host was paused for 40 s of a minute, then the block was suspended: it has all of its own minute."""
    with unhang.expires(60, "step") as timer:
        unhang_watchdog.clock.jump(40)
        unhang_watchdog.advance(10)
        with timer.suspended():
            unhang_watchdog.advance(5)
        unhang_watchdog.advance(49)
        assert unhang_watchdog.expired == []
        unhang_watchdog.advance(2)
    assert scopes(unhang_watchdog) == ["step"]


def test_a_timer_says_what_state_it_is_in(unhang_watchdog):
    """From created to disarmed, and again for the next block."""
    timer = unhang.expires(10, "step")
    states = [timer.state]
    with timer:
        states.append(timer.state)
        with timer.suspended():
            states.append(timer.state)
        unhang_watchdog.advance(10)
        states.append(timer.state)
        assert timer.remaining() == 0
    states.append(timer.state)
    with timer:
        states.append(timer.state)
    assert states == ["created", "armed", "suspended", "expired", "disarmed", "armed"]
    assert repr(timer) == "<Timer 'step' of 10 s, disarmed>"


def enter(timer):
    timer.__enter__()


@pytest.mark.parametrize(
    "misuse",
    [
        lambda timer: timer.restart(),
        lambda timer: timer.extend(1),
        lambda timer: timer.remaining(),
        lambda timer: enter(timer.suspended()),
        lambda timer: timer.__exit__(None, None, None),
    ],
    ids=["restart", "extend", "remaining", "suspend", "leave"],
)
def test_misuse_names_the_state(unhang_watchdog, misuse):
    """What needs an armed timer says which one is not, before the block and behind it."""
    timer = unhang.expires(10, "step")
    with pytest.raises(TimerStateError, match="'step': it is created"):
        misuse(timer)
    with timer:
        pass
    with pytest.raises(TimerStateError, match="'step': it is disarmed"):
        misuse(timer)


def test_a_timer_is_for_one_block_at_a_time(unhang_watchdog):
    """Entering it again inside is refused, and does not disturb the block that it is in."""
    with unhang.expires(10, "step") as timer:
        with pytest.raises(TimerStateError, match="enter the timer 'step': it is armed"):
            enter(timer)
        assert unhang_watchdog.live == ["step"]
        with timer.suspended(), pytest.raises(TimerStateError, match="suspend the timer 'step': it is suspended"):
            enter(timer.suspended())
    assert unhang_watchdog.live == []


def test_leaving_a_block_while_it_is_suspended(unhang_watchdog):
    """The timer stays disarmed when the suspension ends behind it."""
    timer = unhang.expires(10, "step")
    with timer:
        suspension = timer.suspended()
        enter(suspension)
    suspension.__exit__(None, None, None)
    assert unhang_watchdog.live == []
    assert timer.state == "disarmed"


def test_a_decorated_function_has_a_timer_for_each_call(unhang_watchdog):
    """Recursion too: each level is its own timer; name and result are the function's."""

    @unhang.expires(after=10, scope="call")
    def count(levels):
        """Count down."""
        return len(unhang_watchdog.live) if levels == 1 else count(levels - 1)

    assert count(3) == 3
    assert unhang_watchdog.live == []
    assert (count.__name__, count.__doc__) == ("count", "Count down.")


class Trainer:
    @unhang.expires(after=10)
    def step(self, watchdog):
        return watchdog.live

    @unhang.expires(after=10)
    async def load(self, watchdog):
        return watchdog.live

    @unhang.expires(after=10, scope="given")
    def save(self, watchdog):
        return watchdog.live


def test_an_unnamed_decorated_function_is_named_by_itself(unhang_watchdog):
    """Its qualified name, plain or async, however its client was found; a scope that was given stays."""
    assert Trainer().step(unhang_watchdog) == ["Trainer.step"]
    assert asyncio.run(Trainer().load(unhang_watchdog)) == ["Trainer.load"]
    assert Trainer().save(unhang_watchdog) == ["given"]

    def live():
        return unhang_watchdog.live

    expected = [live.__qualname__]
    assert unhang.expires(5)(live)() == expected
    assert unhang.expires(5, signal="SIGINT", grace=1)(live)() == expected
    assert unhang.expires(unhang.learned(maximum=60))(live)() == expected


def test_a_decorator_of_one_client_names_the_function_too(unhang_watchdog):
    """A client that is given, and not the default: the timeout and how the worker ends are the decorator's."""
    from unhang._worker import choose

    client = choose._client
    choose.set_client(None)

    def live():
        return unhang_watchdog.live

    assert unhang.expires(5, client=client)(live)() == [live.__qualname__]
    assert unhang.expires(unhang.learned(maximum=9), client=client)(live)() == [live.__qualname__]
    assert unhang.expires(5, "given", client)(live)() == ["given"]

    @unhang.expires(5, client=client, signal="SIGINT")
    def late():
        unhang_watchdog.advance(5)
        return [parse_ending(seen.ending)[0] for seen in unhang_watchdog._worker.timers.live()]

    assert late() == [signal.SIGINT]
    assert [(timer.scope, timer.after) for timer in unhang_watchdog.expired] == [(late.__qualname__, 5)]


def test_a_decorated_coroutine_has_a_timer_while_it_runs(unhang_watchdog):
    """The timer is armed when it is awaited, not when it is called; two at once are two timers."""

    @unhang.expires(after=10, scope="call")
    async def look():
        await asyncio.sleep(0)
        return len(unhang_watchdog.live)

    async def both():
        first, second = look(), look()
        assert unhang_watchdog.live == []
        return await asyncio.gather(first, second)

    assert asyncio.run(both())[0] == 2
    assert unhang_watchdog.live == []


def test_a_generator_function_cannot_be_decorated(unhang_watchdog):
    """The call does no work, so the timer would watch nothing: that is told at once."""

    def generate():
        yield 1

    async def generate_async():
        yield 1

    for function in (generate, generate_async):
        with pytest.raises(TypeError, match="is a generator function"):
            unhang.expires(after=10)(function)


def test_a_decorator_made_before_configure_finds_the_client(unhang_watchdog):
    """Module-level decorators are evaluated on import; what is configured later is used."""
    from unhang._worker import choose

    client = choose._client
    choose.set_client(None)

    @unhang.expires(after=10, scope="early")
    def live():
        return unhang_watchdog.live

    block = unhang.expires(after=10, scope="early block")
    choose.set_client(client)
    assert live() == ["early"]
    with block as timer:
        assert unhang_watchdog.live == ["early block"]
        assert timer.remaining() == 10


def test_a_timer_that_is_dropped_in_its_block_is_disarmed(unhang_watchdog):
    """Nobody could leave it any more: it is told as a leak, and kills nobody."""
    with pytest.warns(ResourceWarning, match="'lost' was dropped"):
        enter(unhang.expires(10, "lost"))
    gc.collect()
    unhang_watchdog.advance(100)
    assert unhang_watchdog.expired == []


def test_a_heartbeat_is_armed_by_the_first_beat(unhang_watchdog):
    """Start-up may take its time; then each beat starts the timeout over, and close() ends it."""
    heart = unhang.heartbeat(10, "steps")
    unhang_watchdog.advance(1000)
    assert heart.state == "created"
    for _ in range(5):
        heart.beat()
        unhang_watchdog.advance(9)
    assert heart.state == "armed"
    heart.close()
    heart.close()
    unhang_watchdog.advance(1000)
    assert unhang_watchdog.expired == []
    with pytest.raises(TimerStateError, match="closed"):
        heart.beat()


def test_a_heartbeat_that_stops_expires(unhang_watchdog):
    """Ten seconds behind the last beat; leaving its block closes it."""
    with unhang.heartbeat(10) as heart:
        heart.beat()
        unhang_watchdog.advance(5)
        heart.beat()
        unhang_watchdog.advance(10)
        assert heart.state == "expired"
    assert [timer.running for timer in unhang_watchdog.expired] == [10]
    assert "test_timer.py:" in unhang_watchdog.expired[0].scope
    assert heart.state == "closed"
    assert unhang_watchdog.live == []
