"""What finding a watchdog costs a block: nothing of its timeout."""

import contextlib
import time

import pytest

import capabilities
from unhang._core.page import DEADLINE, NEVER
from unhang._worker import link, plain
from unhang._worker.client import SharedTimerClient
from unhang._worker.connection import NotWatchedError
from unhang.errors import WatchdogLostError

SECOND = 10**9


@pytest.fixture(params=["plain", "compiled"])
def made_of(request):
    """Each implementation of a block."""
    return plain if request.param == "plain" else capabilities.extension()


class World:
    """A client whose connections take a while of a clock that the test moves."""

    stack_file = -1

    def __init__(self, made_of, monkeypatch, on_lost="warn"):
        monkeypatch.setattr(link, "Connection", self.connect)
        monkeypatch.setattr(link, "_PAUSE", 0.0)
        monkeypatch.setattr(link, "_RARELY", 0)
        self.now = time.monotonic_ns()
        self.is_there = self.is_alive = lambda: True
        self.takes = 0.0
        self.on_connect = lambda: None
        self.seen = []
        self.kicks = 0
        channel = link.Link("/nowhere/watchdog.sock", on_lost=on_lost, observe=False)
        self.client = SharedTimerClient._over(channel, lambda: self.now, made_of)

    def connect(self, *_):
        self.now += round(self.takes * SECOND)
        self.on_connect()
        cells = [slot.cell for slot in self.client.slots._living if hasattr(slot, "cell")]
        self.seen += [cell[DEADLINE] - self.now for cell in cells if cell[DEADLINE] < NEVER]
        if not self.is_there():
            raise NotWatchedError("nobody is there", nobody=True)
        return self

    def send(self, message, pages=()):
        self.kicks += not pages
        return self.is_there()

    def close(self): ...

    def lose(self, takes):
        """The watchdog is gone, and finding another one takes so many seconds."""
        self.is_alive = lambda: False
        self.takes = takes
        self.client.slots.channel._try_at = 0.0
        for watched in self.client.slots.channel._watched:
            watched[0] = watched[1] = 1


@pytest.fixture
def world(made_of, monkeypatch):
    """One where a first block was entered, and left."""
    world = World(made_of, monkeypatch)
    with world.client.timer(1, "a"):
        pass
    yield world
    world.client.close()


def enter(timer):
    """The timer has its whole timeout."""
    timer.__enter__()
    return 0.1


def restart(timer):
    """So has it here."""
    timer.restart()
    return 0.1


def extend(timer):
    """It has some time more than it had."""
    timer.extend(1)
    return 1.1


def resume(timer):
    """It has what it had before the suspension."""
    with timer.suspended():
        pass
    return 0.1


@pytest.mark.parametrize("is_there", [True, False])
@pytest.mark.parametrize("action", [enter, restart, extend, resume])
def test_a_block_does_not_pay_for_the_watchdog_that_it_finds(world, action, is_there):
    """Neither while it is looked for, when a new watchdog may see the page already, nor afterwards."""
    timer = world.client.timer(0.1, "a")
    if action is not enter:
        timer.__enter__()
    world.lose(takes=0.6)
    world.is_there = lambda: is_there
    left = action(timer)
    assert world.seen != []
    assert all(deadline > 0 for deadline in world.seen)
    assert timer.remaining() == left
    assert timer.state == "armed"
    timer.__exit__(None, None, None)


def test_a_watchdog_that_was_found_is_notified_of_the_deadline(world):
    """It has looked while the deadline was put off: without a kick it would come too late."""
    world.lose(takes=0.6)

    def look():
        for watched in world.client.slots.channel._watched:
            watched[0], watched[1] = world.now + SECOND, world.now

    world.on_connect = look
    world.kicks = 0
    with world.client.timer(0.1, "a"):
        assert world.kicks == 1
        assert world.client.slots.channel._watched[0][0] == world.now + SECOND // 10


def test_a_block_that_a_signal_handler_leaves_meanwhile_stays_left(world):
    """Nothing is armed by the end of a search for a block that is over."""
    timer = world.client.timer(0.1, "a").__enter__()
    world.lose(takes=0.6)
    world.on_connect = lambda: timer.__exit__(None, None, None)
    timer.restart()
    assert timer.state == "disarmed"
    assert not [slot for slot in world.client.slots._living if slot.cell[DEADLINE] < NEVER]


def test_a_heartbeat_that_a_signal_handler_restarts_meanwhile_keeps_that_deadline(world):
    """The deadline of the handler's is the later one."""
    timer = world.client.timer(0.1, "a").__enter__()
    world.lose(takes=0.6)
    world.on_connect = timer.restart
    timer.restart()
    assert timer.remaining() == 0.1
    timer.__exit__(None, None, None)


def test_a_search_that_fails_or_is_interrupted_leaves_the_timer_armed(made_of, monkeypatch):
    """An exception of a restart is the block's to handle, which goes on with its timeout."""
    world = World(made_of, monkeypatch, on_lost="raise")
    timer = world.client.timer(0.1, "a").__enter__()
    for error, on_connect in ((WatchdogLostError, world.on_connect), (KeyboardInterrupt, interrupt)):
        world.lose(takes=0.6)
        world.is_there, world.on_connect = lambda: False, on_connect
        with contextlib.suppress(error):
            timer.restart()
            pytest.fail("it has not raised")
        assert (timer.state, timer.remaining()) == ("armed", 0.1)
    timer.__exit__(None, None, None)
    world.client.close()


def interrupt():
    """What Python does on Ctrl-C."""
    raise KeyboardInterrupt
