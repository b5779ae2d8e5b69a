"""Making reports: what is printed, kept and handed on, and what goes wrong there."""

import functools
import logging
import threading

import pytest

from support import LONG, until
from unhang._watchdog.departures import Departure, Departures
from unhang._watchdog.hooks import Hooks
from unhang._watchdog.incident import Findings
from unhang._watchdog.recorder import Recorder
from unhang._watchdog.timers import Timers
from unhang._watchdog.watched import Origin
from unhang.report.model import Block, Departed, Evidence, HangClass, Report, Worker
from unhang.testing import ManualClock


def worker(pid, *, expired=True):
    block = Block(scope="step", after=5.0, started=-5.0, expired=expired)
    return Worker(pid=pid, expired=expired, blocks=(block,), evidence=Evidence(hang=HangClass.LOCK))


def findings(*workers, first=True, departed=(), complete=False):
    time = "2026-03-01T12:00:00+00:00"
    return Findings("id", time, "job", 0.0, workers, departed, 0, complete, first, 0, "SIGTERM now")


class Kept:
    """A store in memory that fails when it is told to."""

    def __init__(self, error=None):
        self.reports, self.error = [], error

    def write(self, report):
        if self.error:
            raise self.error
        self.reports.append(report)
        return "/reports/id.json"


@pytest.fixture
def said(caplog):
    """What was printed, a text each."""
    caplog.set_level(logging.INFO, "unhang.watchdog")
    return lambda: [record.getMessage() for record in caplog.records]


def test_the_first_report_is_printed_and_those_who_join_are_a_line_each(said):
    """Once for each worker, however often the report is made anew."""
    recorder = Recorder(Kept, Hooks([]), "1")
    recorder.record(findings(worker(7)))
    recorder.record(findings(worker(7), worker(8), first=False))
    recorder.record(findings(worker(7), worker(8), first=False, complete=True))
    first, second = said()
    assert first.startswith("worker 7 hangs in 'step'")
    assert "next:    SIGTERM now" in first
    assert first.endswith("report: /reports/id.json")
    assert second.startswith("worker 8 hangs in 'step'")
    assert second.endswith("added to report id")


def test_a_report_that_cannot_be_kept_is_printed_and_handed_on_all_the_same(said):
    """Once it is said why; when it works again and fails again, once more."""
    store, handed = Kept(OSError(28, "No space left on device")), []
    done = threading.Event()
    recorder = Recorder(lambda: store, Hooks([handed.append, lambda report: report.complete and done.set()]), "1")
    recorder.record(findings(worker(7)))
    recorder.record(findings(worker(7), first=False))
    store.error = None
    recorder.record(findings(worker(7), first=False))
    store.error = OSError(30, "Read-only file system")
    recorder.record(findings(worker(7), first=False, complete=True))
    assert done.wait(LONG)
    assert len(handed) == 4
    assert [text for text in said() if "cannot be kept" in text] == [
        f"The report cannot be kept: {error}; --report-dir (UNHANG_REPORT_DIR) names another place"
        for error in ("[Errno 28] No space left on device", "[Errno 30] Read-only file system")
    ]


def test_workers_stand_in_the_order_of_their_parts():
    """Culprits, then those that have expired, then the others, each by rank."""
    store = Kept()
    workers = [
        Worker(pid=20 + rank, rank=rank, expired=rank != 3, evidence=Evidence(hang=hang))
        for rank, hang in enumerate([HangClass.NETWORK, HangClass.NETWORK, HangClass.STOPPED, HangClass.NETWORK])
    ]
    Recorder(lambda: store, Hooks([]), "1").record(findings(*reversed(workers), departed=(Departed(pid=3),)))
    assert [each.rank for each in store.reports[0].workers] == [2, 0, 1, 3]
    assert store.reports[0].headline.startswith("rank 2")


def test_a_callback_that_is_too_slow_loses_reports_and_nothing_else(said):
    """What does not fit behind 64 waiting reports is dropped, and said once."""
    hangs, begun = threading.Event(), threading.Event()

    def slow(report):
        begun.set()
        hangs.wait(LONG)

    hooks = Hooks([slow])
    report = Report(id="id", time="")
    hooks.call(report)
    assert begun.wait(LONG)
    for _ in range(70):
        hooks.call(report)
    assert hooks.dropped == 6
    assert sum("too slow" in text for text in said()) == 1
    hangs.set()
    hooks.close(LONG)


def test_callbacks_get_what_waits_when_the_server_stops():
    """And nobody waits longer than so long for them."""
    got = []
    hooks = Hooks([got.append])
    for number in range(10):
        hooks.call(Report(id=str(number), time=""))
    hooks.close(LONG)
    assert [report.id for report in got] == [str(number) for number in range(10)]


class Dead:
    """A process that has exited."""

    pid, fd = 7, -1

    def copy(self):
        return self

    def alive(self):
        return False


class Group:
    """A control group in which the kernel has killed so many."""

    def __init__(self, count):
        self.count = count

    def kills(self):
        return self.count


@pytest.mark.parametrize(
    ("status", "before", "after", "said_to_be", "abnormal"),
    [
        ("SIGKILL", 1, 2, "SIGKILL (out of memory)", True),
        ("SIGKILL", 1, 1, "SIGKILL", True),
        ("SIGKILL", None, 2, "SIGKILL", True),
        ("SIGSEGV", 1, 2, "SIGSEGV", True),
        ("exit code 1", 1, 1, "exit code 1", True),
        ("exit code 0", 1, 1, "exit code 0", False),
        ("SIGTERM", 1, 1, "SIGTERM", False),
        ("", 1, 1, "", False),
    ],
)
def test_deaths_are_told_apart(monkeypatch, status, before, after, said_to_be, abnormal):
    """Exit codes, signals, and the kernel's want of memory; what is on purpose, or not known, is no news."""
    from unhang._watchdog import departures

    monkeypatch.setattr(departures, "exit_of", lambda handle: status)
    origin = Origin(memory=Group(after), memory_kills=before)
    departure = Departure(7, origin, Dead(), 0.0, Timers(0, (), (), {}, 1, 0))
    departure.find_out()
    assert (departure.exit, departure.is_abnormal) == (said_to_be, abnormal)


def test_only_so_many_departures_are_remembered():
    """The last ones."""
    told = Departures(None, ManualClock(), lambda departure: None)
    for pid in range(300):
        told._last.append(Departure(pid, Origin(), Dead(), 0.0, Timers(0, (), (), {}, 1, 0)))
    assert [departure.pid for departure in told.of("")][:2] == [299, 298]
    assert len(told.of("")) == 256


def test_helpers_begin_when_the_loop_has_time():
    """What is given to them while they are held is begun afterwards, in its order."""
    begun, results, woken = [], [], threading.Event()
    from unhang._watchdog.helpers import Helpers

    helpers = Helpers(1, woken.set)
    with helpers.held():
        for number in range(3):
            helpers.submit(functools.partial(begun.append, number), results.append)
        assert not woken.wait(0.05)
        assert (begun, helpers.backlog) == ([], 3)
    until(lambda: not helpers.backlog, helpers.deliver)
    assert (begun, results) == ([0, 1, 2], [None] * 3)
    helpers.close()


def test_where_no_thread_can_be_started_the_work_is_given_back_undone(monkeypatch):
    """And as soon as there are threads again, it is done."""
    from unhang._watchdog.helpers import Helpers

    woken, results = threading.Event(), []
    helpers = Helpers(2, woken.set)

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for _ in range(5):
            helpers.submit(lambda: "done", results.append)
        helpers.deliver()
    assert results == [None] * 5
    woken.clear()
    helpers.submit(lambda: "done", results.append)
    assert woken.wait(LONG)
    helpers.deliver()
    assert results[-1] == "done"
    helpers.close()


def test_long_reports_are_printed_whole_even_through_a_pipe():
    """In pieces of whole lines, none larger than a pipe takes at once."""
    from unhang._platform.logs import _pieces

    text = "".join(f"{'é' * 100} {number}\n" for number in range(100)).encode()
    pieces = list(_pieces(text))
    assert b"".join(pieces) == text
    assert all(len(piece) <= 4096 and piece.endswith(b"\n") for piece in pieces)
    assert len(b"".join(_pieces(b"x" * 10_000))) == 4096
