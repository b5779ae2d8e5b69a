"""From the deadline to the death, on real workers: evidence, the soft signal, the grace, the kill, the report."""

import gc
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading

import pytest

import unhang
import workers
from support import LONG, handle_signals, until
from unhang._watchdog import response
from unhang.report.load import load
from unhang.report.model import HangClass, Sure
from unhang.report.store import latest


@pytest.fixture
def reports():
    """The reports that a server hands to `on_expired`."""
    return queue.SimpleQueue()


def last_of(reports):
    """The report that is complete."""
    while not (report := reports.get(timeout=LONG)).complete:
        pass
    return report


def steps(report, index=0):
    return [step.what for step in report.workers[index].steps]


def test_a_hung_worker_is_looked_at_asked_and_dead(start, serve_shared, reports):
    """The first report has stacks and comes before the signal; the last one says how it ended."""
    server = serve_shared(on_expired=reports.put)
    worker = start(workers.wait_for_a_lock, unhang.SharedTimerClient(server.address), 0.3)
    assert worker.ended() == -signal.SIGTERM
    first, last = reports.get(timeout=LONG), last_of(reports)
    assert (steps(first), first.workers[0].evidence.hang) == ([], HangClass.LOCK)
    assert "wait_for_a_lock" in [frame.function for frame in first.workers[0].evidence.threads[0].frames]
    assert first.verdict.culprits == (worker.pid,)
    assert (steps(last), last.workers[0].outcome, last.workers[0].exit) == (["SIGTERM", "dead"], "killed", "SIGTERM")


def test_a_deaf_worker_is_killed_behind_the_grace(start, serve_shared, reports):
    """SIGTERM first, SIGKILL then."""
    server = serve_shared(on_expired=reports.put, grace=0.2)
    worker = start(workers.ignore_sigterm_in_block, unhang.SharedTimerClient(server.address), 0.2)
    assert worker.ended() == -signal.SIGKILL
    assert steps(last_of(reports)) == ["SIGTERM", "SIGKILL", "dead"]


@pytest.mark.parametrize(
    ("server_options", "timer_options", "number"),
    [
        ({"signal": "SIGUSR1"}, {}, signal.SIGUSR1),
        ({"signal": "SIGUSR1"}, {"signal": "SIGINT"}, signal.SIGINT),
        ({"grace": 3600}, {"grace": 2}, signal.SIGTERM),
    ],
    ids=["of the server", "of the timer", "with the timer's grace"],
)
def test_the_signal_and_the_grace_can_be_chosen(start, serve_shared, server_options, timer_options, number):
    """Per server, and per timer, which has the last word; SIGKILL follows."""
    server = serve_shared(**{"grace": 2, **server_options})
    client = unhang.SharedTimerClient(server.address)
    worker = start(workers.say_how_it_is_asked, client, 0.2, timer_options)
    assert worker.heard() == "ready"
    assert worker.heard() == number
    assert worker.ended() == -signal.SIGKILL


def test_a_timer_may_want_no_soft_signal(start, serve_shared):
    """``signal="none"``: SIGKILL is the first."""
    server = serve_shared()
    client = unhang.SharedTimerClient(server.address)
    worker = start(workers.say_how_it_is_asked, client, 0.2, {"signal": "none"})
    assert worker.ended() == -signal.SIGKILL


def test_a_stopped_worker_is_continued_to_hear_the_signal(start, serve_shared, stopped, reports):
    """SIGTERM ends it, since SIGCONT follows; the report says that it was stopped."""
    server = serve_shared(on_expired=reports.put)
    worker = start(workers.step_by_step, unhang.SharedTimerClient(server.address))
    assert worker.heard() == "ready"
    worker.told("enter", 1.0, "step")
    stopped(worker.pid)
    assert worker.ended() == -signal.SIGTERM
    assert reports.get(timeout=LONG).workers[0].evidence.hang is HangClass.STOPPED


def test_a_block_that_ends_during_the_evidence_is_spared(start, serve_shared, events, monkeypatch):
    """Nobody is signalled; the near miss is told, and the worker goes on and is watched."""
    from unhang._watchdog import incidents

    looked_at, gather = threading.Event(), incidents.gather

    def slow(*args, **options):
        found = gather(*args, **options)
        worker._pipe.send("leave")
        assert worker.heard() == "alive"
        looked_at.set()
        return found

    server = serve_shared()
    monkeypatch.setattr(incidents, "gather", slow)
    worker = start(workers.leave_when_looked_at, unhang.SharedTimerClient(server.address), 0.2)
    assert worker.heard() == "ready"
    assert looked_at.wait(LONG)
    assert events.get(timeout=LONG) == ("near miss", worker.pid, ["slow"])
    assert worker.runs()
    assert server.workers == 1
    assert events.empty()


def test_eight_ranks_in_one_collective_are_one_incident(start, serve_shared, reports, tmp_path):
    """One report, which has all their stacks before anybody is asked to end; the rank that never came is named."""
    server = serve_shared(on_expired=reports.put, report_dir=str(tmp_path / "reports"))
    ranks = [
        start(workers.rank_in_block, server.address, n, "job", "reduce" if n != 2 else "load", 0.5 if n != 2 else 30)
        for n in range(8)
    ]
    for rank in ranks:
        assert rank.heard() == "ready"
    ranks[2]._pipe.send("go")
    for rank in ranks[:2] + ranks[3:]:
        rank._pipe.send("go")
    first, last = reports.get(timeout=LONG), last_of(reports)
    assert [rank.ended() for rank in ranks[:2] + ranks[3:]] == [-signal.SIGTERM] * 7
    assert ranks[2].runs()
    assert all(worker.evidence.threads for worker in first.workers)
    assert {worker.rank for worker in first.workers} == set(range(8))
    assert not any(worker.steps for worker in first.workers)
    assert [worker.rank for worker in last.workers if worker.pid in last.verdict.culprits] == [2]
    assert len(os.listdir(tmp_path / "reports")) == 1
    assert load(latest(str(tmp_path / "reports"))) == last


def test_evidence_is_recorded_before_the_deadline(start, serve_shared, events, reports):
    """So many seconds before it, gently; the block that ends in time is not touched."""
    server = serve_shared(pretimeout=30.7, on_expired=reports.put)
    worker = start(workers.step_by_step, unhang.SharedTimerClient(server.address))
    assert worker.heard() == "ready"
    worker.told("enter", 31, "slow")
    assert events.get(timeout=LONG) == ("pretimeout", worker.pid, ["slow"])
    report = reports.get(timeout=LONG)
    worker.told("leave")
    assert (report.kind, report.workers[0].expired) == ("pretimeout", False)
    assert report.workers[0].evidence.threads
    assert worker.runs()


def test_a_timer_has_a_pretimeout_of_its_own(start, serve_shared, events):
    """Told for the timer that wants it, and the worker is killed at the deadline all the same."""
    server = serve_shared(evidence=0)
    worker = start(
        workers.say_how_it_is_asked, unhang.SharedTimerClient(server.address), 1.5, {"pretimeout": 1.0, "grace": 0.1}
    )
    assert worker.heard() == "ready"
    assert events.get(timeout=LONG)[0] == "pretimeout"
    assert events.get(timeout=LONG)[0] == "killed"
    assert worker.ended() == -signal.SIGKILL


def test_an_observed_worker_is_looked_at_and_lives(start, serve_shared, reports):
    """The report is made, and says so."""
    server = serve_shared(observe=True, on_expired=reports.put)
    worker = start(workers.sleep_in_block, unhang.SharedTimerClient(server.address), 0.2)
    report = reports.get(timeout=LONG)
    assert (report.workers[0].outcome, report.workers[0].evidence.hang) == ("observed", HangClass.SLEEP)
    assert worker.runs()


@pytest.fixture
def their_directory(other_user):
    """A directory of somebody else's."""
    directory = tempfile.mkdtemp(prefix="unhang-test-")
    os.chown(directory, other_user, other_user)
    yield directory
    shutil.rmtree(directory)


def test_stacks_come_without_ptrace_and_with_the_gil_held(start, their_directory, other_user):
    """As an ordinary user, with a worker that nobody may look into: it writes them down itself."""
    address, kept = f"{their_directory}/watchdog.sock", f"{their_directory}/reports"
    serving = start(workers.as_user, other_user, workers.serve_for_reports, address, kept, {})
    assert serving.heard() == "started"
    worker = start(workers.as_user, other_user, workers.hang_sealed, unhang.SharedTimerClient(address), 0.5)
    assert worker.ended() == -signal.SIGTERM
    until(lambda: (path := latest(kept)) and load(path).complete)
    evidence = load(latest(kept)).workers[0].evidence
    assert evidence.stacks_from == "faulthandler"
    assert "hang_sealed" in [frame.function for frame in evidence.threads[0].frames]


def test_a_directory_that_cannot_be_written_does_not_stop_the_kill(start, serve_shared, tmp_path, caplog):
    """It is said once, and the worker is ended."""
    (tmp_path / "file").touch()
    server = serve_shared(report_dir=str(tmp_path / "file" / "reports"))
    for _ in range(2):
        worker = start(workers.sleep_in_block, unhang.SharedTimerClient(server.address), 0.2)
        assert worker.ended() == -signal.SIGTERM
    server.stop()
    assert sum("cannot be kept" in record.getMessage() for record in caplog.records) == 1


def test_a_callback_that_hangs_or_raises_delays_nobody(start, serve_shared):
    """It has a thread of its own, and the next one is called all the same."""
    hangs, called = threading.Event(), threading.Event()

    def bad(report):
        raise LookupError("of the callback")

    def slow(report):
        called.set()
        hangs.wait(LONG)

    server = serve_shared(on_expired=[bad, slow])
    client = unhang.SharedTimerClient(server.address)
    for _ in range(2):
        assert start(workers.sleep_in_block, client, 0.2).ended() == -signal.SIGTERM
    assert called.wait(LONG)
    hangs.set()


def test_a_worker_that_dies_in_a_block_is_told_with_its_cause(start, serve_shared, events, caplog):
    """Not by us: its exit code, or the signal; a clean end is no news."""
    server = serve_shared()
    client = unhang.SharedTimerClient(server.address)
    worker = start(workers.exit_in_block, client, 3)
    worker.ended()
    assert events.get(timeout=LONG) == ("died", worker.pid, ["fatal"])
    assert any("died in 'fatal': exit code 3" in record.getMessage() for record in caplog.records)
    assert start(workers.exit_in_block, client, 0).ended() == 0
    until(lambda: server.workers == 0)
    assert events.empty()


def test_a_tree_is_ended_with_its_worker(start, serve_shared):
    """Children that are deaf to SIGTERM are gone too, and a sibling of the worker lives."""
    server = serve_shared(tree=True, grace=0.2)
    client = unhang.SharedTimerClient(server.address)
    sibling = start(workers.blocks_without_end, client)
    assert sibling.heard() == "ready"
    worker = start(workers.parent_of_many, client, 0.3, 30)
    children = worker.heard()
    assert worker.ended() in (-signal.SIGTERM, -signal.SIGKILL)
    until(lambda: not any(_runs(child) for child in children))
    assert sibling.runs()


def _runs(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_many_workers_are_ended_at_once(start, serve_shared, reports):
    """Twelve that hang by themselves: each is asked, none waits for another one's grace."""
    server = serve_shared(grace=60)
    client = unhang.SharedTimerClient(server.address)
    crowd = [start(workers.sleep_in_block, client, 0.5) for _ in range(12)]
    assert [worker.ended() for worker in crowd] == [-signal.SIGTERM] * 12


def test_a_worker_that_hangs_up_during_its_grace_is_not_forgotten(start, serve_shared):
    """Closing the connection does not save it from SIGKILL."""
    server = serve_shared(grace=2)
    worker = start(hang_up_when_asked, server.address)
    assert worker.heard() == "ready"
    assert worker.heard() == "hung up"
    assert worker.ended() == -signal.SIGKILL


def hang_up_when_asked(address, say):
    """Close the connection on SIGTERM, and go on."""
    client = unhang.SharedTimerClient(address)

    def hang_up(number, frame):
        client.close()
        say.send("hung up")

    signal.signal(signal.SIGTERM, hang_up)
    say.send("ready")
    with unhang.expires(0.3, "step", client):
        handle_signals()


def test_who_hangs_alone_is_certain(start, serve_shared, reports):
    """Among workers that make progress, the one that hangs is its own culprit."""
    server = serve_shared(on_expired=reports.put)
    client = unhang.SharedTimerClient(server.address)
    healthy = start(workers.blocks_without_end, client)
    assert healthy.heard() == "ready"
    worker = start(workers.sleep_in_block, client, 2.5)
    report = reports.get(timeout=LONG)
    assert (report.verdict.culprits, report.verdict.sure) == ((worker.pid,), Sure.CERTAIN)


def test_a_worker_in_grace_is_killed_when_the_watchdog_stops(start, serve_shared, reports):
    """Nobody would do it later: a worker that is stuck never finds the next watchdog. The report is completed."""
    server = serve_shared(grace=600, on_expired=reports.put)
    worker = start(workers.ignore_sigterm_in_block, unhang.SharedTimerClient(server.address), 0.2)
    while "SIGTERM" not in [step.what for step in reports.get(timeout=LONG).workers[0].steps]:
        pass
    server.stop()
    assert worker.ended() == -signal.SIGKILL
    assert steps(last_of(reports)) == ["SIGTERM", "SIGKILL", "dead"]


def test_a_report_directory_that_hangs_keeps_nobody_from_being_told(
    start, serve_shared, reports, tmp_path, monkeypatch
):
    """Kills, what is printed and callbacks do not wait for it; reports of the next incidents are made too."""
    from unhang.report.store import ReportStore

    hangs = threading.Event()
    monkeypatch.setattr(ReportStore, "write", lambda store, report: hangs.wait(LONG) and "")
    server = serve_shared(report_dir=str(tmp_path / "reports"), on_expired=reports.put)
    for _ in range(2):
        worker = start(workers.sleep_in_block, unhang.SharedTimerClient(server.address), 0.2)
        assert worker.ended() == -signal.SIGTERM
        assert worker.pid in [seen.pid for seen in reports.get(timeout=LONG).workers]
        last_of(reports)
    hangs.set()


def test_a_report_directory_that_was_removed_is_made_anew(start, serve_shared, reports, tmp_path):
    """Cleaners of temporary directories do that."""
    directory = tmp_path / "reports"
    server = serve_shared(report_dir=str(directory), on_expired=reports.put)
    for _ in range(2):
        worker = start(workers.sleep_in_block, unhang.SharedTimerClient(server.address), 0.2)
        assert worker.ended() == -signal.SIGTERM
        last_of(reports)
        assert os.listdir(directory)
        shutil.rmtree(directory)


def test_nothing_is_left_of_hangs_that_are_over(start, serve_shared, reports):
    """Descriptors of workers that are dead are given back, also by threads that wait for the next hang."""
    before = _stack_files()  # of the budget of the test, and of servers before, which are garbage
    server = serve_shared(on_expired=reports.put, signal="none")
    client = unhang.SharedTimerClient(server.address)
    assert start(workers.sleep_in_block, client, 0.1).ended() == -signal.SIGKILL
    last_of(reports)
    for _ in range(6):
        worker = start(workers.sleep_in_block, client, 0.1)
        assert worker.ended() == -signal.SIGKILL
        last_of(reports)
        worker.end()
    server._response._incidents._incidents.clear()
    gc.collect()
    until(lambda: _stack_files() <= before)


def _stack_files():
    return sum("unhang-stacks" in _target(fd) for fd in os.listdir("/proc/self/fd"))


def _target(fd):
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""


AT_A_PROMPT = """
import unhang
with unhang.expires(0.5, "step"):
    breakpoint()
    print("on")
print("done")
"""


def test_a_worker_at_a_prompt_of_pdb_is_spared(popen, serve_shared, events):
    """Somebody thinks at the prompt: told once, and as soon as it goes on, all is as before."""
    server = serve_shared(evidence=5)
    environment = {**os.environ, "UNHANG_ADDRESS": server.address}
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    worker = popen([sys.executable, "-c", AT_A_PROMPT], env=environment, text=True, **pipes)
    assert events.get(timeout=30)[0] == "held"
    said, errors = worker.communicate("continue\n", timeout=30)
    assert (worker.returncode, said.splitlines()[-1]) == (0, "done"), errors


def test_a_frozen_worker_is_spared_until_it_is_thawed(start, serve_shared, events, monkeypatch):
    """Also where no evidence is gathered; then its block has all its time again."""
    frozen = [True]
    monkeypatch.setattr(response, "is_frozen", lambda pid: frozen[0])
    server = serve_shared(signal="none", evidence=0)
    worker = start(workers.sleep_in_block, unhang.SharedTimerClient(server.address), 0.3)
    assert events.get(timeout=30)[:2] == ("held", worker.pid)
    frozen[0] = False
    assert worker.ended() == -signal.SIGKILL
