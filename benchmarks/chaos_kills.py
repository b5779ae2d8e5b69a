"""Faults 14 and 18: workers killed from outside at any instant, and workers that keep the GIL, all of them."""

from __future__ import annotations

import ctypes
import functools
import os
import random
import select
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

from chaos_shared_stage import finish_when_told, hang_when_told, holdings, watched_on
from chaos_stage import HANG, BrokenScenarioError, Outcome, Stage, failed, wait_until

VICTIMS = 1_000
# Seconds within which each is killed: from its birth or, for every other one, from its first block.
WITHIN = 0.005
HANGS = 20


def killed_at_random(stage: Stage) -> Outcome:
    """A thousand workers are killed while they connect, arm and disarm: what becomes of the others?"""
    server = stage.serve()
    siblings = [stage.worker(hang_when_told, 2.5), stage.worker(finish_when_told, 2.5)]
    for sibling in siblings:
        sibling.hear()
    wait_until(lambda: bool(server.ask(holdings).workers == len(siblings)), "the siblings at the server")
    before = server.ask(holdings)
    _kill_victims(stage)
    try:
        wait_until(lambda: bool(server.ask(holdings) == before), "a server as it was before")
    except BrokenScenarioError:
        return failed(f"left behind: {before} became {server.ask(holdings)}")
    for sibling in siblings:
        sibling.pipe.send("go")
    return watched_on(server, siblings[:1], siblings[1:], f"; {VICTIMS} victims left nothing behind")


def _kill_victims(stage: Stage) -> None:
    reading, writing = os.pipe()
    # The same instants in each run.
    dice = random.Random(14)  # noqa: S311
    for number in range(VICTIMS):
        waits = number % 2 == 1
        victim = _fork(functools.partial(_arm_for_ever, stage, writing if waits else None))
        if waits:
            _await_byte(reading)
        time.sleep(dice.uniform(0.0, WITHIN))
        os.kill(victim, signal.SIGKILL)
        os.waitpid(victim, 0)


def _await_byte(fd: int) -> None:
    if not select.select([fd], [], [], 5.0)[0]:
        raise BrokenScenarioError("a worker never armed its first timer")
    os.read(fd, 1)


def _fork(body: Callable[[], None]) -> int:
    """A child without a pipe of its own: a thousand of them take no time."""
    pid = os.fork()
    if pid == 0:
        try:
            body()
        finally:
            os._exit(1)
    return pid


def _arm_for_ever(stage: Stage, writing: int | None) -> None:
    client = stage.client()
    told = writing is None
    while True:
        with stage.api.expires(after=HANG, scope="victim", client=client):
            pass
        if not told and writing is not None:
            told = os.write(writing, b"!") == 1


def all_keep_gil(stage: Stage) -> Outcome:
    """Twenty workers enter C code that keeps the GIL."""
    server = stage.serve()
    innocent = stage.worker(finish_when_told, 3.0)
    innocent.hear()
    innocent.pipe.send("go")
    hung = [stage.hung(1.5, _arm_and_keep_gil) for _ in range(HANGS)]
    return watched_on(server, hung, [innocent], f"; {HANGS} of {HANGS}")


def _arm_and_keep_gil(stage: Stage, after: float, pipe: Connection) -> None:
    client = stage.client()
    sleep = ctypes.PyDLL(None).sleep
    pipe.send(time.monotonic() + after)
    with stage.api.expires(after=after, scope="step", client=client):
        sleep(HANG)
