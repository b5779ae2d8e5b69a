"""Faults 3, 7, 8, 10 and 12: what concerns either server."""

from __future__ import annotations

import os
import threading
import time
from multiprocessing.connection import Connection
from typing import Any
from unittest import mock

from chaos_stage import (
    HANG,
    Outcome,
    Stage,
    await_judgement,
    failed,
    how_late,
    idle,
    killed_in_time,
    spared,
    survived,
)

INNOCENTS = 3


def bad_message(stage: Stage) -> Outcome:
    """A message that is no request comes together with the release of a timer."""
    server = stage.serve()
    innocents = [stage.worker(_release_with_garbage, 2.5) for _ in range(INNOCENTS)]
    for innocent in innocents:
        innocent.hear()
    server.await_timers(INNOCENTS)
    for innocent in innocents:
        innocent.pipe.send("release")
    for innocent in innocents:
        innocent.hear()
    return spared(innocents, await_judgement(server, stage.hung(2.5)))


def _release_with_garbage(stage: Stage, after: float, pipe: Connection) -> None:
    client = stage.client()
    client.acquire("step", time.time() + after)
    pipe.send("armed")
    pipe.recv()
    if stage.kind == "FIFO":
        release = stage.fifo.FileTimerRequest(os.getpid(), "step", -1).to_json()
        with open(stage.path, "w") as fifo:  # noqa: PTH123 - a named pipe, not a file
            fifo.write(release + "\nnot a request\n")
    else:
        # The first of a burst wakes the server, which then takes the others at once.
        for _ in range(20):
            client.release("nothing")
        stage.queue.put("not a request")
        client.release("step")
    idle(stage, pipe)


def clock_steps_forward(stage: Stage) -> Outcome:
    """The wall clock of the server's process steps forward by an hour; a worker has ten minutes left."""
    server = stage.serve()
    innocent = stage.hung(600.0)
    innocent.hear()
    control = stage.hung(1.5)
    server.await_timers(2)
    server.ask(_step_clock, 3600.0)
    return spared([innocent], await_judgement(server, control))


def clock_steps_back(stage: Stage) -> Outcome:
    """The wall clock of the server's process steps back by an hour; a worker is due in a second."""
    server = stage.serve()
    hung = stage.hung(1.5)
    server.await_timers(1)
    server.ask(_step_clock, -3600.0)
    return killed_in_time(hung)


def _step_clock(_server: Any, seconds: float) -> None:
    clock = time.time

    def stepped() -> float:
        return clock() + seconds

    for name in ("time.time", "unhang._core.real_time.time"):
        mock.patch(name, stepped).start()


def nested_timers(stage: Stage) -> Outcome:
    """A worker hangs in a block behind an inner block, both unnamed."""
    stage.serve()
    return killed_in_time(stage.hung(0.5, _hang_behind_inner_block))


def _hang_behind_inner_block(stage: Stage, after: float, pipe: Connection) -> None:
    client = stage.client()
    pipe.send(time.monotonic() + after)
    with stage.api.expires(after=after, client=client):
        with stage.api.expires(after=HANG, client=client):
            pass
        time.sleep(HANG)


def threaded_timers(stage: Stage) -> Outcome:
    """A worker hangs in a block while another thread passes through a block elsewhere, both unnamed."""
    stage.serve()
    return killed_in_time(stage.hung(0.5, _hang_beside_other_thread))


def _hang_beside_other_thread(stage: Stage, after: float, pipe: Connection) -> None:
    client = stage.client()

    def pass_through() -> None:
        with stage.api.expires(after=HANG, client=client):
            pass

    pipe.send(time.monotonic() + after)
    with stage.api.expires(after=after, client=client):
        thread = threading.Thread(target=pass_through)
        thread.start()
        thread.join()
        time.sleep(HANG)


def default_interval(stage: Stage) -> Outcome:
    """A worker hangs; the server has the ``max_interval`` that it comes with."""
    stage.serve(max_interval=None)
    lateness = stage.hung(0.5).lateness()
    if lateness is None:
        return failed(f"not killed {stage.limit:g} s after its deadline")
    return survived(how_late(lateness)) if lateness < stage.in_time else failed(how_late(lateness))


def failed_reap(stage: Stage) -> Outcome:
    """The first attempt to kill a hung worker fails."""
    server = stage.serve()
    server.ask(_fail_once)
    return killed_in_time(stage.hung(0.3))


def _fail_once(server: Any) -> None:
    reap, answers = server._reap_worker, iter([False])
    server._reap_worker = lambda *args: next(answers, True) and reap(*args)
