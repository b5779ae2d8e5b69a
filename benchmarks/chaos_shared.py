"""Faults 3, 4, 5, 7, 12 and 13 for shared timers: what comes nearest to what torch's servers trip over."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest import mock

import chaos_liar
from chaos_liar import HELLO, SEALS, answer, dial, say
from chaos_shared_stage import hang_when_told, leave_in_time, watched_on
from chaos_stage import HANG, Outcome, Stage, failed, idle, killed_in_time, survived
from unhang._watchdog import kill
from unhang.errors import AddressError

# Seconds in which no client comes.
QUIET = 5.0

_GARBAGE: dict[str, Callable[[], tuple[bytes, list[int]]]] = {
    "garbage": lambda: (b"\xff\x00garbage", []),
    "a torch request": lambda: (b'{"version": 1, "pid": 1, "scope_id": "s", "expiration_time": 0, "signal": 9}\n', []),
    "an empty packet": lambda: (b"", []),
    "a packet of 64 KiB": lambda: (HELLO + bytes(65_000), []),
    "another version": lambda: (chaos_liar.hello_of_version(7), [chaos_liar.Page().fd]),
    "half of its first words": lambda: (HELLO[:7], [chaos_liar.Page().fd]),
    "a page with another magic": lambda: (HELLO, [chaos_liar.memory_that_begins({0: 42})]),
    "a page of another version": lambda: (HELLO, [chaos_liar.memory_that_begins({1: 7})]),
    "a page that counts its slots wrong": lambda: (HELLO, [chaos_liar.memory_that_begins({2: 1 << 40})]),
    "an unsealed page": lambda: (HELLO, [chaos_liar.memory(65536)]),
    "an empty page": lambda: (HELLO, [chaos_liar.memory(0, SEALS)]),
    "a page of zeros": lambda: (HELLO, [chaos_liar.memory(65536, SEALS)]),
}


def bad_messages(stage: Stage) -> Outcome:
    """One process sends all kinds of bad messages while others are watched."""
    server = stage.serve()
    innocents = [stage.worker(leave_in_time, 3.5, 1.5) for _ in range(3)]
    hung = stage.hung(3.5)
    server.await_timers(4)
    taken: list[str] = stage.worker(_send_garbage).hear()
    if taken:
        return failed(f"taken for a worker: {', '.join(taken)}")
    return watched_on(server, [hung], innocents, f"; {len(_GARBAGE)} bad messages refused")


def _send_garbage(stage: Stage, pipe: Connection) -> None:
    taken = []
    for name, make in _GARBAGE.items():
        message, fds = make()
        with dial(stage.path) as connection:
            say(connection, message, fds)
            if answer(connection)[:1] == b"W":
                taken.append(name)
    pipe.send(taken)
    idle(stage, pipe)


def stopped_in_handshake(stage: Stage, said: bytes) -> Outcome:
    """A worker connects, says so much of its first words, and is stopped; others go on."""
    server = stage.serve()
    innocent = stage.worker(leave_in_time, 3.0, 1.0)
    stopped = stage.worker(_connect_and_stop, said)
    stopped.hear()
    stopped.await_stop()
    return watched_on(server, [stage.hung(3.0)], [innocent, stopped])


def _connect_and_stop(stage: Stage, said: bytes, pipe: Connection) -> None:
    connection = dial(stage.path)
    if said:
        page = chaos_liar.Page()
        page.arm(time.monotonic_ns() + HANG * 1_000_000_000)
        say(connection, said, [page.fd])
    pipe.send("connected")
    os.kill(os.getpid(), signal.SIGSTOP)


def late_first_client(stage: Stage) -> Outcome:
    """Nobody comes for five seconds; the first one hangs."""
    server = stage.serve(max_interval=None)
    time.sleep(QUIET)
    return watched_on(server, [stage.hung(0.5)], [])


def clock_steps(stage: Stage, seconds: float) -> Outcome:
    """The wall clock of the watchdog and of its workers steps, as they see it; their timers count on."""
    server = stage.serve()
    innocents = [stage.worker(_hold_while_clock_steps, seconds, 600.0)]
    hung = [stage.worker(_hold_while_clock_steps, seconds, 2.0), stage.worker(hang_when_told, 1.5)]
    innocents[0].hear()
    hung[1].hear()
    server.await_timers(2)
    server.ask(_step_clock, seconds)
    hung[1].pipe.send("hang")
    return watched_on(server, hung, innocents)


def _step_clock(_server: Any, seconds: float) -> None:
    clock = time.time

    def stepped() -> float:
        return clock() + seconds

    for name in ("time.time", "unhang._core.real_time.time"):
        mock.patch(name, stepped).start()


def _hold_while_clock_steps(stage: Stage, seconds: float, after: float, pipe: Connection) -> None:
    # The only call of shared timers that takes an instant of the wall clock.
    client = stage.client()
    pipe.send(time.monotonic() + after)
    client.acquire("step", time.time() + after)
    _step_clock(None, seconds)
    with stage.api.expires(after=600.0, scope="armed behind the step", client=client):
        time.sleep(HANG)


def failed_kill(stage: Stage) -> Outcome:
    """The first attempt to kill a hung worker fails."""
    server = stage.serve()
    server.ask(_fail_once)
    return killed_in_time(stage.hung(0.3), stage.in_time)


def _fail_once(_server: Any) -> None:
    answers = iter([kill.Outcome.FAILED])
    send = kill.send
    mock.patch.object(kill, "send", lambda *args, **more: next(answers, None) or send(*args, **more)).start()


def file_at_address(stage: Stage) -> Outcome:
    """An ordinary file stands at the address given to the watchdog."""
    path = Path(stage.path)
    path.write_text("results\n")
    raised = "no error"
    try:
        stage.build(None).start()
    except AddressError as error:
        raised = type(error).__name__
    if path.is_file() and path.read_text() == "results\n":
        return survived(f"{raised}, and the file is as it was")
    return failed(f"{raised}, and the file is deleted")
