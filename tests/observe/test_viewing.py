"""Looking at a real watchdog and its workers from another process, or another thread of it."""

import os
import socket

import pytest

import unhang
from observe.viewers import look_with_few_descriptors
from support import in_time, until
from unhang._platform import socket_directory
from unhang.errors import AddressError, ViewError
from unhang.observe.find import find_watchdog
from unhang.observe.viewing import View
from workers import (
    arm_and_wait,
    blocks_without_end,
    learn_by_steps,
    learn_with_many_clients,
    send_pages,
    sleep_in_block,
)


@pytest.fixture
def view(shared_server):
    view = View(shared_server.address)
    yield view
    view.close()


def workers_of(view, count=1):
    """A look that shows so many workers, each with an armed timer."""
    looks = []

    def shown():
        looks.append(view.look())
        return len(looks[-1].rows) == count and all(row.armed for row in looks[-1].rows)

    until(shown)
    return looks[-1]


def test_a_look_shows_workers_and_their_timers(view, shared_client, start):
    """Who they are, what they are in, and how long they still have."""
    worker = start(sleep_in_block, shared_client, 60)
    worker.heard()
    (row,) = workers_of(view).rows
    (armed,) = row.armed
    assert (row.info.pid, row.timers, row.info.user) == (worker.pid, 1, os.getuid())
    assert armed.after == 60
    assert 0 <= armed.running <= 60 - armed.left + 0.001
    assert row.left == armed.left


def test_progress_is_seen(view, shared_client, start):
    """How often a second timers are armed; and nothing of it for a worker that does nothing."""
    start(blocks_without_end, shared_client).heard()
    start(sleep_in_block, shared_client, 60).heard()
    rates = []

    def both_are_known():
        rates[:] = [row.rate for row in view.look().rows]
        return len(rates) == 2 and None not in rates and max(rates) > 0

    until(both_are_known)
    assert min(rates) == 0


def test_a_worker_that_leaves_is_gone(view, shared_client, start):
    """And the events say that it came and went."""
    worker = start(sleep_in_block, shared_client, 60)
    worker.heard()
    workers_of(view)
    worker.end()
    looks = []
    until(lambda: looks.append(view.look()) or not looks[-1].rows)
    recent = [(event.event, event.pid) for event in looks[-1].recent]
    assert ("connect", worker.pid) in recent
    assert ("disconnect", worker.pid) in recent


def test_a_kill_is_told_with_what_is_known_of_it(serve_shared, start):
    """The signal, the scope, how late it was judged, and when the signal was sent."""
    server = serve_shared(signal="none", evidence=10)
    worker = start(sleep_in_block, unhang.SharedTimerClient(server.address), 0.2)
    worker.heard()
    view = View(server.address)
    events = []
    until(lambda: events.extend(view.look().events) or any(event.event == "ended" for event in events))
    killed = next(event for event in events if event.event == "killed")
    assert (killed.pid, killed.signal, killed.after, killed.hang) == (worker.pid, "SIGKILL", 0.2, "sleep")
    assert 0 <= killed.late <= killed.waited
    assert any(event.event == "report" and "sleep" in event.detail for event in events)
    view.close()


def test_stacks_of_a_worker_that_is_well(view, shared_client, start):
    """They are taken without disturbing it: it goes on."""
    worker = start(sleep_in_block, shared_client, 60)
    worker.heard()
    picture = workers_of(view)
    reports = []

    def stacks_have_come():
        # There is a time limit to them, which a busy machine may not keep.
        view.ask_stacks(picture.rows[0].info.number)
        seen = view.look()
        reports.extend([seen.stacks] if seen.stacks else [])
        threads = [thread for report in reports[-1:] for thread in report.workers[0].evidence.threads]
        return any("sleep" in frame.source for thread in threads for frame in thread.frames)

    until(stacks_have_come)
    assert reports[-1].kind == "asked"
    assert worker.runs()
    assert len(view.look().rows) == 1


def test_what_a_viewer_gets_can_only_be_read(view, shared_client, start):
    """Nobody who looks can disarm a worker's timer."""
    start(sleep_in_block, shared_client, 60).heard()
    workers_of(view)
    (worker,) = view._workers.values()
    assert worker.timers._pages[0]._words.readonly


def test_a_view_of_many_workers_is_whole(shared_server, shared_client, start):
    """More than one answer holds; and pages that come later are there as well."""
    processes = [start(arm_and_wait, shared_client, 60) for _ in range(3)]
    for process in processes:
        process.heard()
    views = [View(shared_server.address) for _ in range(5)]
    for view in views:
        assert len(workers_of(view, 3).rows) == 3
        view.close()


def test_a_viewer_may_want_no_history(shared_server, shared_client, start):
    """It hears of what happens from its first look on."""
    view = View(shared_server.address, history=0)
    assert view.look().events == ()
    start(sleep_in_block, shared_client, 60).heard()
    events = []
    until(lambda: events.extend(view.look().events) or in_time(event.event for event in events))
    assert in_time(event.event for event in events) == ["connect"]
    view.close()


def test_a_viewer_is_no_worker(view, shared_server):
    """It is not counted, and its end is no news."""
    view.look()
    assert shared_server.workers == 0
    view.close()
    other = View(shared_server.address)
    assert in_time(event.event for event in other.look().recent) == ["started"]
    other.close()


def test_pages_that_cannot_be_had_are_told(shared_server, start):
    """What workers do is not known then, and that is no picture; as soon as there is room, it is one."""
    start(learn_with_many_clients, shared_server.address, 10).heard()
    why, seen = start(look_with_few_descriptors, shared_server.address).heard()
    assert "raise the limit of open files" in why
    assert seen == 10


def test_there_are_not_too_many_viewers(shared_server):
    """The next one is told so, until one has gone."""
    views = [View(shared_server.address) for _ in range(32)]
    for view in views:
        view.look()
    views.append(View(shared_server.address))
    with pytest.raises(ViewError, match="32 others"):
        views[-1].look()
    for view in views:
        view.close()


def test_a_watchdog_that_ends_is_told(view, shared_server):
    """As one that is gone, and as one that nobody reaches."""
    view.look()
    shared_server.stop()
    with pytest.raises(ViewError, match="hung up"):
        view.look()
    with pytest.raises(ViewError, match="nobody listens there"):
        View(shared_server.address)


def test_a_watchdog_that_does_not_answer_is_told(tmp_path):
    """A viewer does not wait for ever."""
    tmp_path.chmod(0o700)
    address = str(tmp_path / "deaf.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as deaf:
        deaf.bind(address)
        deaf.listen()
        view = View(address, patience=0.05)
        with pytest.raises(ViewError, match="does not answer"):
            view.look()
        view.close()


def test_an_unsafe_address_is_refused():
    """As for a worker: anybody could stand there."""
    with pytest.raises(AddressError):
        View("@abstract")


def test_a_viewer_with_nonsense_is_hung_up_on(shared_server):
    """The others see nothing of it."""
    view = View(shared_server.address)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as other:
        other.connect(shared_server.address)
        other.send(b"V{")
        assert other.recv(512).startswith(b"R")
        assert other.recv(512) == b""
    assert view.look().watchdog.dropped["bad message"] == 1
    view.close()


def test_a_viewer_that_never_asks_again_makes_room(shared_server, monkeypatch):
    """Others want to look as well."""
    monkeypatch.setattr("unhang._watchdog.reception._IDLE", -1.0)
    views = [View(shared_server.address) for _ in range(40)]
    for view in views:
        view.look()
    with pytest.raises(ViewError, match="hung up"):
        views[0].look()
    for view in views:
        view.close()


def test_viewers_that_ask_without_pause_delay_nothing(serve_shared, start):
    """Between two of their questions the watchdog has a turn; too many are heard at the next beat."""
    server = serve_shared(signal="none", evidence=0)
    view = View(server.address)
    turns = view.look().watchdog.turns
    for _ in range(50):
        picture = view.look()
    assert picture.watchdog.turns - turns >= 50
    view.close()


def test_a_worker_with_too_many_pages_is_refused(shared_server, start):
    """It would keep all viewers from hearing of anybody; those who look see nothing of it."""
    view = View(shared_server.address)
    assert "16 pages at most" in start(send_pages, shared_server.address, 17).heard()
    assert view.look().rows == ()
    view.close()


def test_events_that_were_missed_lose_no_worker_and_count_none_twice(shared_server, start):
    """All are listed again: those who are there are there once, with what they have learned."""
    client = unhang.SharedTimerClient(shared_server.address, learn=True)
    view = View(shared_server.address)
    staying, leaving = (start(arm_and_wait, client, 60) for _ in range(2))
    for worker in (staying, leaving):
        worker.heard()
    assert len(workers_of(view, 2).rows) == 2
    leaving.end()
    until(lambda: shared_server.workers == 1)
    for _ in range(5000):
        shared_server._journal.add("connect")
    picture = view.look()
    assert ([row.info.pid for row in picture.rows], picture.missed > 0) == ([staying.pid], True)
    view.close()


def test_what_a_worker_learned_before_is_not_told_again(serve_shared, start):
    """A watchdog that is started again gets the same pages: what stands in them by then was told to the one before."""
    server = serve_shared()
    worker = start(learn_by_steps, server.address)
    assert worker.told("blocks", 10) == 10
    server.stop()
    server.start()
    view = View(server.address)
    assert worker.told("blocks", 5) == 5

    def count():
        view.look()
        return sum(known.steady.count for known in view.durations().values())

    until(lambda: view.look().rows)
    assert worker.told("blocks", 3) == 3
    assert count() <= 8
    until(lambda: count() >= 3)
    view.close()


def test_many_clients_that_leave_at_once_are_counted_once(many_descriptors, shared_server, start):
    """Word of it comes in several answers, in which events and workers are not in step."""
    view = View(shared_server.address)
    crowd = start(learn_with_many_clients, shared_server.address, 150)
    crowd.heard()
    until(lambda: [row.sequence for row in view.look().rows] == [150 * 3])
    crowd.end()
    until(lambda: shared_server.workers == 0)
    until(lambda: not view.look().rows)
    assert view.durations()["step"].steady.count == 150 * 2
    view.close()


def test_learned_durations_are_seen_of_those_that_left_too(shared_server, start):
    """What a worker wrote down outlives it."""
    client = unhang.SharedTimerClient(shared_server.address, learn=True)
    view = View(shared_server.address)
    worker = start(blocks_without_end, client)
    worker.heard()

    def count():
        view.look()
        return sum(known.steady.count for known in view.durations().values())

    until(lambda: count() > 10)
    worker.end()
    until(lambda: not view.look().rows)
    assert count() > 10
    view.close()


def test_the_only_watchdog_is_found(tmp_path, monkeypatch):
    """By name, by the environment, or because there is no other; else all are named."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("UNHANG_ADDRESS", raising=False)
    # Other watchdogs may be anywhere else, and are looked for where a path in here would be too long for a socket.
    for elsewhere in ("_parents", "_temporary_directory"):
        monkeypatch.setattr(socket_directory, elsewhere, list)
    monkeypatch.setattr(socket_directory, "_PARENTS", ())
    tmp_path.chmod(0o700)
    with pytest.raises(ViewError, match="no watchdog listens"):
        find_watchdog()
    directory = tmp_path / "unhang"
    (directory / "stale.sock").touch()
    servers = [unhang.SharedTimerServer(str(directory / f"{name}.sock")) for name in "ab"]
    servers[0].start()
    assert find_watchdog() == servers[0].address
    servers[1].start()
    with pytest.raises(ViewError, match="2 watchdogs are there") as raised:
        find_watchdog()
    assert all(server.address in str(raised.value) for server in servers)
    monkeypatch.setenv("UNHANG_ADDRESS", "/run/other.sock")
    assert (find_watchdog(), find_watchdog("/run/x.sock")) == ("/run/other.sock", "/run/x.sock")
    for server in servers:
        server.stop()
