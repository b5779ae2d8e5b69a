"""One process is one worker, however many timers and clients it has; and the block that expired is the one named."""

import json
import re
import signal
import subprocess
import sys

import pytest

import capabilities
import many_timers
import unhang
from many_timers import BAD
from support import LONG, until
from unhang.observe.measures import State
from unhang.observe.metrics import render as metrics_of
from unhang.observe.viewing import View
from unhang.report.load import load
from unhang.report.text import render as text_of

CROWDS = [
    (function, count) for function in (many_timers.in_threads, many_timers.in_tasks) for count in (49, 300, 10_000)
]


@pytest.fixture
def crowd(start):
    """Start a worker with so many timers that are armed."""

    def start_crowd(function, client, count):
        worker = start(function, client, count)
        if worker.heard() != "armed":
            capabilities.lacks("threads", f"a process that may have {count}")
        return worker

    return start_crowd


def unhang_says(*command):
    """What a command of the command line prints, and its status."""
    done = subprocess.run(
        [sys.executable, "-m", "unhang", *command], capture_output=True, text=True, timeout=LONG, check=False
    )
    return done.returncode, done.stdout + done.stderr


def report_in(directory):
    """The report, once there is one."""
    until(lambda: list(directory.glob("*.json")))
    (path,) = directory.glob("*.json")
    return load(str(path))


def metric(text, name):
    return float(re.search(rf"^{name} (.+)$", text, re.MULTILINE)[1])


@pytest.mark.parametrize(("function", "count"), CROWDS)
def test_the_block_that_expired_is_named_among_many(tmp_path, serve_shared, crowd, events, function, count):
    """In headline, text, JSON and event; a report that is as small as with few timers."""
    server = serve_shared(signal="none", report_dir=str(tmp_path / "reports"))
    worker = crowd(function, unhang.SharedTimerClient(server.address), count)
    worker._pipe.send("expire")
    assert events.get(timeout=LONG) == ("killed", worker.pid, [BAD])
    assert worker.ended() == -signal.SIGKILL
    report = report_in(tmp_path / "reports")
    assert f"hangs in '{BAD}' for" in report.headline
    assert f"in '{BAD}' for" in text_of(report)
    (seen,) = report.workers
    assert (seen.armed, len(seen.blocks) <= 64) == (count, True)
    assert [block.scope for block in seen.blocks if block.expired] == [BAD]


@pytest.mark.parametrize(("function", "count"), CROWDS)
def test_viewers_see_one_worker_and_its_expired_block(serve_shared, crowd, events, function, count):
    """In status, check and metrics."""
    server = serve_shared(observe=True, evidence=0)
    worker = crowd(function, unhang.SharedTimerClient(server.address), count)
    worker._pipe.send("expire")
    assert events.get(timeout=LONG) == ("expired", worker.pid, [BAD])
    _, status = unhang_says("status", "--address", server.address, "--json")
    (row,) = json.loads(status)["workers"]
    assert (row["pid"], row["timers"], row["blocks"][0]["scope"], row["left"] < 0) == (worker.pid, count, BAD, True)
    assert unhang_says("check", "--address", server.address, "--min-workers", "2") == (
        1,
        "1 worker connected, not 2\n",
    )
    code, line = unhang_says("check", "--address", server.address, "--max-stall", "0.01")
    assert (code, f"worker {worker.pid} makes no progress" in line, f"in '{BAD}'" in line) == (1, True, True)
    view = View(server.address)
    text = metrics_of(State(picture=view.look())).decode()
    view.close()
    assert (metric(text, "unhang_workers"), metric(text, "unhang_timers")) == (1, count)
    assert metric(text, "unhang_nearest_deadline_seconds") < 0


def test_many_clients_of_a_process_are_one_worker(many_descriptors, serve_shared, start):
    """Also when there are more of them than one message of a viewer holds descriptors; their timers are all there."""
    server = serve_shared(evidence=0)
    worker = start(many_timers.with_many_clients, server.address, [False] * 300)
    assert worker.heard() == 300
    assert server.workers == 1
    view = View(server.address)
    until(lambda: [row.timers for row in view.look().rows] == [300])
    worker.told("close", 7)
    until(lambda: [row.timers for row in view.look().rows] == [299])
    assert [row.sequence for row in view.look().rows] == [300]
    assert server.workers == 1
    comings = [event.event for event in view.look().recent if event.event in ("connect", "disconnect")]
    assert comings == ["connect"]
    late = View(server.address)
    assert [row.timers for row in late.look().rows] == [299]
    late.close()
    worker.end()
    until(lambda: not view.look().rows)
    assert server.workers == 0
    view.close()


def test_a_client_that_is_closed_takes_its_timers_along(serve_shared, start, events):
    """The process goes on being watched for those of its other clients."""
    server = serve_shared(signal="none", evidence=0)
    worker = start(many_timers.with_many_clients, server.address, [False, False])
    worker.heard()
    worker.told("close", 0)
    worker.told("expire", 1)
    assert events.get(timeout=LONG) == ("killed", worker.pid, ["expires of 1"])
    assert worker.ended() == -signal.SIGKILL
    until(lambda: server.workers == 0)


def test_a_client_that_observes_spares_its_own_timers_alone(serve_shared, start, events):
    """Its process is killed for those of another client, and only for them."""
    server = serve_shared(signal="none", evidence=0)
    worker = start(many_timers.with_many_clients, server.address, [True, False])
    worker.heard()
    worker.told("expire", 0)
    assert events.get(timeout=LONG) == ("expired", worker.pid, ["expires of 0"])
    assert worker.runs()
    worker.told("expire", 1)
    assert events.get(timeout=LONG) == ("killed", worker.pid, ["expires of 1"])
    assert worker.ended() == -signal.SIGKILL
