"""Faults 17 and 21: one process wants all of the watchdog, and a watchdog that is short of descriptors."""

from __future__ import annotations

import resource
import socket
import time
from multiprocessing.connection import Connection
from typing import Any

import chaos_liar
from chaos_liar import HELLO, answer, dial, say
from chaos_shared_stage import CROWD, MANY_FILES, leave_in_time, watched_on
from chaos_stage import HANG, TURN, BrokenScenarioError, Outcome, Stage, Verdict, failed, idle, survived
from unhang._core.messages import KICK

# Descriptors of the server, and the processes that connect when it has few.
FEW = 48
NEWCOMERS = 30
# Seconds that a worker may wait for its connection behind a crowd.
_LONGEST_WAIT = 6.0
# Seconds behind the kills, and the part of a processor that a server with nothing to do may use in them.
_REST = 1.0
_IDLE = 0.3


def silent_crowd(stage: Stage) -> Outcome:
    """Ten thousand connections say nothing, while workers come and hang."""
    server = stage.serve()
    innocent = stage.worker(leave_in_time, 60.0, 50.0)
    hung = stage.hung(4.0)
    server.await_timers(2)
    crowd = stage.worker(_say_nothing)
    crowd.hear()
    new = stage.worker(_connect_and_hang, 2.0, 1.0)
    outcome = watched_on(server, [hung, new], [innocent, crowd], f"; {CROWD} connections say nothing")
    made = crowd.hear(30)
    if made != CROWD:
        raise BrokenScenarioError(f"only {made} connections were made")
    last = stage.worker(_connect_and_hang, 0.0, 1.0)
    later = watched_on(server, [last], [innocent, crowd])
    if Verdict.FAILED in (outcome.verdict, later.verdict):
        return outcome if outcome.verdict is Verdict.FAILED else later
    return _waited(outcome.line, [float(worker.hear()) for worker in (new, last)])


def _waited(line: str, waits: list[float]) -> Outcome:
    """Survived if no newcomer had to wait too long for its connection."""
    line = f"{line}; newcomers waited {max(waits):.1f} s at most"
    return survived(line) if max(waits) < _LONGEST_WAIT else failed(line)


def _say_nothing(stage: Stage, pipe: Connection) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (MANY_FILES, hard))
    made: list[socket.socket] = []
    for number in range(CROWD):
        if number == CROWD // 10:
            pipe.send("started")
        made.append(dial(stage.path))
    pipe.send(len(made))
    time.sleep(HANG)


def _connect_and_hang(stage: Stage, busy: float, after: float, pipe: Connection) -> None:
    """A new worker that is in one short block after the other for ``busy`` seconds, and hangs.

    It says its deadline, and then how long it has waited for its connection.
    """
    client, began = stage.client(), time.monotonic()
    client.connect()
    connected = time.monotonic()
    while time.monotonic() < connected + busy:
        with stage.api.expires(after=HANG, scope="short", client=client):
            time.sleep(0.01)
    pipe.send(time.monotonic() + after)
    pipe.send(connected - began)
    with stage.api.expires(after=after, scope="hangs", client=client):
        time.sleep(HANG)


def flood_of_kicks(stage: Stage) -> Outcome:
    """One worker does nothing but wake the watchdog."""
    server = stage.serve()
    flood = stage.worker(_kick_for_ever)
    flood.hear()
    innocent = stage.worker(leave_in_time, 3.0, 1.0)
    time.sleep(1.0)
    new = stage.worker(_connect_and_hang, 0.5, 1.0)
    return watched_on(server, [stage.hung(2.0), new], [innocent, flood])


def _kick_for_ever(stage: Stage, pipe: Connection) -> None:
    page = chaos_liar.Page()
    connection = dial(stage.path)
    say(connection, HELLO, [page.fd])
    answer(connection)
    connection.settimeout(None)
    pipe.send("kicks")
    while True:
        connection.send(KICK)


def few_descriptors(stage: Stage) -> Outcome:
    """The server may have 48 open files; thirty workers and thirty silent connections come."""
    server = stage.serve()
    server.ask(_limit_files, FEW)
    hung = [stage.hung(6.0) for _ in range(3)]
    innocent = stage.worker(leave_in_time, 6.0, 4.0)
    server.await_timers(4)
    crowd = [stage.worker(_come_and_arm) for _ in range(NEWCOMERS)]
    silent = stage.worker(_dial_often)
    waits = [float(newcomer.hear()) for newcomer in crowd]
    silent.hear()
    if server.ask(_count_workers) >= len(hung) + len(crowd):
        raise BrokenScenarioError("the server is not short of descriptors")
    outcome = watched_on(server, hung, [innocent, silent, *crowd])
    if outcome.verdict is not Verdict.SURVIVED:
        return outcome
    before = server.ask(_processor_time)
    time.sleep(_REST)
    busy = (server.ask(_processor_time) - before) / _REST
    if busy > _IDLE:
        return failed(f"{outcome.line}; then the watchdog uses {busy:.0%} of a processor, for nothing")
    return _waited(outcome.line, waits)


def _processor_time(_server: Any) -> float:
    return time.process_time()


def _limit_files(_server: Any, soft: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def _count_workers(server: Any) -> int:
    return int(server.workers)


def _come_and_arm(stage: Stage, pipe: Connection) -> None:
    client, began = stage.client(), time.monotonic()
    with stage.api.expires(after=HANG, scope="newcomer", client=client):
        pipe.send(time.monotonic() - began)
        time.sleep(HANG)


def _dial_often(stage: Stage, pipe: Connection) -> None:
    made: list[socket.socket] = []
    for _ in range(NEWCOMERS):
        made.append(dial(stage.path))
        time.sleep(TURN / 10)
    pipe.send(len(made))
    idle(stage, pipe)
