"""What the log says about a worker, one line each."""

import logging
import signal

import pytest

import unhang
from unhang._core.identity import Identity
from unhang._watchdog.announce import announce
from unhang._watchdog.journal import event_of
from unhang._watchdog.watched import Expired, Origin, Watched
from workers import idle

RANK = Watched(7, origin=Origin(identity=Identity(rank=2)))
NEAR = Expired(scope="near", after=1.0, late=0.1, running=1.25)
OTHER = Expired(scope="far", after=9.0, late=0.1, running=9.5)


@pytest.mark.parametrize(
    ("event", "worker", "timers", "detail", "line"),
    [
        (
            "near miss",
            RANK,
            [NEAR],
            "",
            "rank 2 (pid 7) left 'near' after 1.25 s (timeout 1 s), just before the first signal: spared",
        ),
        (
            "killed",
            Watched(7),
            [NEAR, OTHER],
            "SIGTERM",
            "worker 7 is still in 'near' and 1 more after 1.25 s (timeout 1 s): ending it with SIGTERM",
        ),
        ("ended", RANK, [NEAR], "SIGTERM", "rank 2 (pid 7) is dead, by SIGTERM: it was in 'near' (timeout 1 s)"),
        ("ended", Watched(7), [NEAR], "SIGKILL", "worker 7 is dead, by SIGKILL: it was in 'near' (timeout 1 s)"),
        (
            "ended",
            Watched(7),
            [NEAR],
            "SIGTERM and SIGKILL",
            "worker 7 is dead, by SIGKILL, after SIGTERM did not end it: it was in 'near' (timeout 1 s)",
        ),
        ("died", Watched(7), [NEAR], "SIGSEGV", "worker 7 died in 'near': SIGSEGV"),
        ("died", Watched(7), [], "exit code 1", "worker 7 died: exit code 1"),
        ("overslept", None, [NEAR], "", "the watchdog overslept: all deadlines are given 0.1 s back"),
    ],
)
def test_each_event_is_a_line(caplog, event, worker, timers, detail, line):
    """Who, in which block, for how long, and what follows."""
    with caplog.at_level(logging.DEBUG, "unhang.watchdog"):
        announce(event, worker, timers, detail)
    assert caplog.messages == [line]


@pytest.mark.parametrize(
    ("signals", "is_warning"), [("SIGTERM", False), ("SIGKILL", True), ("SIGINT and SIGKILL", True)]
)
def test_an_end_by_sigkill_is_a_warning(caplog, signals, is_warning):
    """The report, which is printed before the first signal, could not say so; the end it announced needs no line."""
    with caplog.at_level(logging.WARNING, "unhang.watchdog"):
        announce("ended", RANK, [NEAR], signals)
    assert bool(caplog.messages) is is_warning


@pytest.mark.parametrize(
    ("event", "line"),
    [
        ("connect", "rank 2 (pid 7) is watched"),
        ("disconnect", "rank 2 (pid 7) has left"),
        ("lost watchdog", "rank 2 (pid 7) is back, and watched again: its watchdog was gone, or did not look"),
    ],
)
def test_coming_and_going_is_for_those_who_ask(caplog, event, line):
    """Nothing of it is a warning."""
    with caplog.at_level(logging.DEBUG, "unhang.watchdog"):
        announce(event, RANK, [])
    assert caplog.messages == [line]
    assert caplog.records[0].levelno < logging.WARNING


def test_a_report_is_announced_by_its_headline(caplog):
    """Its text is another line."""
    with caplog.at_level(logging.DEBUG, "unhang.watchdog"):
        announce("report", None, [], "rank 2 hangs")
    assert caplog.messages == ["report: rank 2 hangs"]


def test_a_record_has_the_fields_of_its_event(caplog):
    """In one attribute, so that none of them gets into the way of logging's own; what is not known is left out."""
    written = event_of("near miss", RANK, [NEAR, OTHER], 12.5)
    with caplog.at_level(logging.DEBUG, "unhang.watchdog"):
        announce("near miss", RANK, [NEAR, OTHER], "", written)
    (record,) = caplog.records
    assert record.unhang == {
        "time": written.time,
        "event": "near miss",
        "at": 12.5,
        "pid": 7,
        "rank": 2,
        "scope": "near",
        "timers": 2,
        "after": 1.0,
        "running": 1.25,
        "late": 0.1,
    }


def test_records_of_the_timer_contracts_servers_have_fields(caplog, file_server, local_server, start, spawn):
    """Named alike: who, in which block, and the signal."""
    worker = start(idle)
    assert worker.heard() == "ready"
    with caplog.at_level(logging.INFO):
        timer = unhang.FileTimerRequest(worker.pid, "scope", 1.0, int(signal.SIGUSR1))
        file_server._reap_worker = lambda pid, number: True
        file_server._reap_expired(worker.pid, [timer])
        local_server._reap_worker = lambda pid: False
        local_server._reap_expired({worker.pid: [unhang.TimerRequest(worker.pid, "other", 1.0)]})
    fields = [record.unhang for record in caplog.records if hasattr(record, "unhang")]
    assert fields == [
        {"event": "expired", "pid": worker.pid, "scope": "scope", "timers": 1},
        {"event": "killed", "pid": worker.pid, "scope": "scope", "timers": 1, "signal": "SIGUSR1"},
        {"event": "expired", "pid": worker.pid, "scope": "other", "timers": 1},
    ]


def test_a_worker_that_loses_its_watchdog_says_so_with_fields(caplog, tmp_path):
    """The address, and why."""
    tmp_path.chmod(0o700)
    address = str(tmp_path / "nobody.sock")
    with unhang.expires(60, client=unhang.SharedTimerClient(address)):
        pass
    (record,) = caplog.records
    assert record.unhang["event"] == "watchdog lost"
    assert record.unhang["address"] == address
    assert record.unhang["detail"]
