"""Shared timers between real processes: kills, exits, forks, and a watchdog that goes and comes back."""

import os
import signal

import pytest

import unhang
import workers
from support import LONG, descriptors, until
from unhang.errors import NoTimerClientError, WatchdogLostError


@pytest.mark.parametrize(
    "hang",
    [
        workers.sleep_in_block,
        workers.keep_the_gil,
        workers.loop_in_block,
        workers.wait_for_a_lock,
        workers.read_forever,
    ],
)
def test_a_hung_worker_is_killed(start, shared_client, events, hang):
    """Asleep, in a loop, in a lock, in a read, in C code that keeps the GIL: killed from outside."""
    worker = start(hang, shared_client, 0.3)
    assert worker.ended() == -signal.SIGKILL
    event, pid, scopes = events.get(timeout=LONG)
    assert (event, pid, len(scopes)) == ("killed", worker.pid, 1)


def test_a_worker_that_is_in_time_is_left_alone(start, shared_client, shared_server, events):
    """Five hundred blocks, no kill, and nothing is left of the worker."""
    worker = start(workers.blocks_in_time, shared_client, 500)
    assert worker.ended() == 0
    until(lambda: shared_server.workers == 0)
    assert shared_server.was_armed
    assert events.empty()


def test_a_stopped_worker_is_killed(start, shared_client, stopped):
    """SIGKILL needs no SIGCONT."""
    worker = start(workers.sleep_in_block, shared_client, 1.0)
    worker.heard()
    stopped(worker.pid)
    assert worker.ended() == -signal.SIGKILL


def test_the_earliest_of_several_timers_counts(start, shared_client, events):
    """A nested block that is due first is the one that is told."""
    worker = start(workers.step_by_step, shared_client)
    worker.heard()
    worker.told("enter", 60, "outer")
    worker._pipe.send(("enter", 0.2, "inner"))
    assert worker.ended() == -signal.SIGKILL
    assert events.get(timeout=LONG) == ("killed", worker.pid, ["inner"])


def test_ten_thousand_timers_of_one_worker(start, shared_client, events):
    """Armed at once, over several pages; the last one is seen to expire."""
    worker = start(workers.step_by_step, shared_client)
    worker.heard()
    worker.told("enter many", 10_000)
    worker._pipe.send(("enter", 0.2, "the last"))
    assert worker.ended() == -signal.SIGKILL
    assert events.get(timeout=LONG) == ("killed", worker.pid, ["the last"])


def test_a_forked_child_is_a_worker_of_its_own(start, shared_client, events):
    """It leaves its parent's block without disarming it, and is killed for its own."""
    worker = start(workers.fork_in_block, shared_client)
    event, pid, scopes = events.get(timeout=LONG)
    assert (event, scopes) == ("killed", ["child's"])
    assert pid != worker.pid
    assert worker.ended() == -signal.SIGKILL
    assert events.get(timeout=LONG) == ("killed", worker.pid, ["parent's"])


def test_an_observed_worker_lives(start, shared_server, events):
    """A client that asks for it is told about, and not killed."""
    client = unhang.SharedTimerClient(shared_server.address, observe=True)
    worker = start(workers.sleep_in_block, client, 0.2)
    assert events.get(timeout=LONG)[:2] == ("expired", worker.pid)
    assert worker.runs()


def test_the_contracts_methods_arm_and_disarm_by_scope(start, shared_client):
    """acquire() and release() work as those of the other clients; an expiration time that is over expires."""
    assert isinstance(shared_client, unhang.TimerClient)
    worker = start(workers.arm_and_wait, shared_client, -5)
    assert worker.ended() == -signal.SIGKILL


def test_a_worker_that_exits_with_an_armed_timer_is_forgotten(start, shared_client, shared_server, events):
    """Nobody is looked for, or killed, under its pid."""
    worker = start(workers.arm_and_exit, shared_client, 60)
    assert worker.ended() == 0
    until(lambda: shared_server.workers == 0)
    assert events.empty()


def test_a_new_watchdog_finds_the_old_timers(start, tmp_path):
    """Killed and started again: a worker that arms again is watched again, with the timer it armed before."""
    tmp_path.chmod(0o700)
    address = str(tmp_path / "watchdog.sock")
    first = start(workers.serve_shared, address)
    first.heard()
    worker = start(workers.step_by_step, unhang.SharedTimerClient(address))
    worker.heard()
    worker.told("enter", 5, "outer")
    os.kill(first.pid, signal.SIGKILL)
    assert first.ended() == -signal.SIGKILL
    second = start(workers.serve_shared, address)
    second.heard()

    def arm_again():
        worker.told("enter", 60, "inner")
        worker.told("leave")

    until(lambda: not worker.runs(), lambda: worker.runs() and _unless_dead(arm_again))
    assert worker.ended() == -signal.SIGKILL


def _unless_dead(action):
    try:
        action()
    except (EOFError, OSError):
        return


def test_no_watchdog_is_told_once_and_nothing_breaks(tmp_path, caplog):
    """By default a lost watchdog costs a warning, and blocks go on; its return is told."""
    tmp_path.chmod(0o700)
    client = unhang.SharedTimerClient(str(tmp_path / "nobody.sock"))
    for _ in range(100):
        with unhang.expires(60, client=client) as timer:
            assert timer.state == "armed"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "unhang serve --address" in caplog.text
    client.close()


def test_no_watchdog_can_be_an_error(tmp_path):
    """With on_lost="raise" each arming raises, is not armed, and leaves nothing behind."""
    tmp_path.chmod(0o700)
    client = unhang.SharedTimerClient(str(tmp_path / "nobody.sock"), on_lost="raise")
    before = descriptors()
    for _ in range(20):
        timer = unhang.expires(60, client=client)
        with pytest.raises(WatchdogLostError, match="No such file"):
            timer.__enter__()
        assert timer.state == "created"
    del timer
    assert descriptors() <= before


def test_a_client_needs_an_address(monkeypatch):
    """From the argument or the environment; and a policy that exists."""
    with pytest.raises(NoTimerClientError):
        unhang.SharedTimerClient()
    monkeypatch.setenv("UNHANG_ADDRESS", "/run/somewhere")
    assert unhang.SharedTimerClient().address == "/run/somewhere"
    with pytest.raises(ValueError, match="on_lost"):
        unhang.SharedTimerClient(on_lost="ignore")


def test_descriptors_that_are_closed_by_force_harm_nobody(start, shared_client):
    """A worker that closes all it finds writes to nobody else's descriptor, and is watched again a while later."""
    worker = start(workers.close_all_descriptors, shared_client)
    assert worker.heard() == []
    assert worker.ended() == -signal.SIGKILL


def test_a_server_can_be_stopped_and_started(start, tmp_path):
    """stop() removes the socket; start() listens at the same address again."""
    tmp_path.chmod(0o700)
    server = unhang.SharedTimerServer(str(tmp_path / "watchdog.sock"), signal="none", evidence=0)
    for _ in range(2):
        server.start()
        server.start()
        client = unhang.SharedTimerClient(server.address)
        assert start(workers.sleep_in_block, client, 0.1).ended() == -signal.SIGKILL
        server.stop()
        server.stop()
        assert not os.path.exists(server.address)
