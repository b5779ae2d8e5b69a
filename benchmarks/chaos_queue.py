"""Faults 1 and 2: what a worker can do to a server that listens to a ``multiprocessing.Queue``."""

from __future__ import annotations

import ctypes
import importlib
import os
import signal
import time
from multiprocessing.connection import Connection
from typing import Any

from chaos_stage import (
    HANG,
    ROOTS,
    BrokenScenarioError,
    Outcome,
    Stage,
    Worker,
    failed,
    how_late,
    killed_in_time,
    survived,
    wait_until,
)

ROUNDS = 10
BLOCKS = 200


def hang_with_gil(stage: Stage) -> Outcome:
    """A worker arms a timer and enters, at once, C code that keeps the GIL."""
    stage.serve()
    return killed_in_time(stage.hung(0.5, _arm_and_keep_gil))


def _arm_and_keep_gil(stage: Stage, after: float, pipe: Connection) -> None:
    client = stage.client()
    sleep = ctypes.PyDLL(None).sleep
    pipe.send(time.monotonic() + after)
    with stage.api.expires(after=after, scope="step", client=client):
        sleep(HANG)


def killed_while_sending(stage: Stage) -> Outcome:
    """Workers that do nothing but arm and disarm are killed from outside; is another one still heard?"""
    stage.serve()
    latest = 0.0
    for played in range(1, ROUNDS + 1):
        busy = stage.worker(_arm_and_disarm)
        busy.hear()
        busy.send_signal(signal.SIGKILL)
        busy.dead_within(1)
        lateness = stage.hung(0.3).lateness()
        if lateness is None:
            return failed(f"deaf to every worker after round {played} of {ROUNDS}")
        latest = max(latest, lateness)
    return survived(f"heard the others in {ROUNDS} of {ROUNDS} rounds, the latest {how_late(latest)}")


def _arm_and_disarm(stage: Stage, pipe: Connection) -> None:
    client = stage.client()
    for block in range(1_000_000):
        with stage.api.expires(after=HANG, scope="busy", client=client):
            pass
        if block == BLOCKS:
            pipe.send("busy")


class PuttingClient:
    """Stands in for torch's LocalTimerClient where torch is missing: it puts, as that does."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue

    def acquire(self, scope: str, expiration_time: float) -> None:
        """Arm a timer."""
        from unhang import TimerRequest

        self._queue.put(TimerRequest(os.getpid(), scope, expiration_time))

    def release(self, scope: str) -> None:
        """Disarm a timer."""
        self.acquire(scope, -1)


def torch_client(queue: Any) -> Any:
    """Torch's own client, or what stands in for it."""
    try:
        return importlib.import_module(f"{ROOTS['torch']}.local_timer").LocalTimerClient(queue)
    except ImportError:
        return PuttingClient(queue)


def killed_with_lock(stage: Stage) -> Outcome:
    """A worker with torch's client hangs while its queue thread holds the lock; the server kills it."""
    client = torch_client(stage.queue)
    name = "torch's client" if not isinstance(client, PuttingClient) else "a client that puts"
    server = stage.serve()
    holder = stage.worker(_hang_with_lock, 3.0, client)
    deadline: float = holder.hear()
    server.await_timers(1)
    holder.pipe.send("go")
    wait_until(lambda: _stays_locked(stage), "a lock that stays locked")
    if time.monotonic() > deadline:
        raise BrokenScenarioError("the worker had the lock too late")
    if not holder.killed_within(deadline + 5 - time.monotonic()):
        return failed("the worker that holds the lock is never killed")
    lateness = Worker(stage, _arm_with, 0.3, client).lateness()
    if lateness is None:
        return failed(f"deaf to every worker with {name} after its kill")
    return survived(f"the next worker with {name} {how_late(lateness)}")


def _stays_locked(stage: Stage) -> bool:
    """Whether the lock is taken ten times in a row, 5 ms apart: by someone who hangs, not by someone who writes."""
    for _ in range(10):
        if not stage.queue._wlock._semlock._is_zero():  # type: ignore[attr-defined]
            return False
        time.sleep(0.005)
    return True


def _hang_with_lock(stage: Stage, after: float, client: Any, pipe: Connection) -> None:
    lock = stage.queue._wlock._semlock  # type: ignore[attr-defined]
    sleep = ctypes.PyDLL(None).sleep
    client.acquire("step", time.time() + after)
    pipe.send(time.monotonic() + after)
    pipe.recv()
    while not lock._is_zero():
        client.release("another")
    sleep(HANG)


def _arm_with(stage: Stage, after: float, client: Any, pipe: Connection) -> None:
    pipe.send(time.monotonic() + after)
    with stage.api.expires(after=after, scope="step", client=client):
        time.sleep(HANG)
