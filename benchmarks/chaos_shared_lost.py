"""Fault 6 for shared timers: the watchdog does not read, is stopped, or has gone; no worker waits long, or fails."""

from __future__ import annotations

import signal
import time
from multiprocessing.connection import Connection

from chaos_shared_stage import watched_on
from chaos_stage import HANG, BrokenScenarioError, Outcome, Stage, Verdict, Worker, failed, idle, survived

# Blocks of a worker that has to tell the watchdog about each, and seconds that the longest may take.
BLOCKS = 8_000
BOUND = 1.0
# Seconds that the first arming waits for a watchdog that is stopped, and some for a busy machine.
FIRST_BOUND = 7.0
# Behind this many seconds workers notice that their watchdog has gone; they go on arming for longer.
NOTICED = 3.0
GOES_ON = NOTICED + 2.0


def full_socket(stage: Stage) -> Outcome:
    """A worker tells a watchdog that is stopped about 8,000 deadlines, each before the others."""
    server = stage.serve()
    worker = stage.worker(_kick_often)
    worker.hear()
    server.stop()
    worker.pipe.send("go")
    error, longest = worker.hear()
    server.send_signal(signal.SIGCONT)
    if error or longest > BOUND:
        return failed(error or f"a block took {longest:.2f} s")
    slowest = f"; {BLOCKS} blocks, the slowest took {longest * 1000:.1f} ms"
    return watched_on(server, [stage.hung(0.5)], [worker], slowest)


def _kick_often(stage: Stage, pipe: Connection) -> None:
    client = stage.client()
    client.connect()
    pipe.send("connected")
    pipe.recv()
    # Each deadline is before all others, so that the watchdog has to be told.
    pipe.send(_longest_block(stage, [HANG - block / 100 for block in range(BLOCKS)]))
    idle(stage, pipe)


def _longest_block(stage: Stage, timeouts: list[float], pause: float = 0.0) -> tuple[str | None, float]:
    """What entering or leaving one of these blocks raised, and the seconds of the one that took longest."""
    longest = 0.0
    for after in timeouts:
        began = time.monotonic()
        try:
            with stage.api.expires(after=after, scope="step"):
                pass
        except Exception as error:  # noqa: BLE001 - a block raises nothing of its own
            return f"{type(error).__name__} out of a block: {error}", longest
        longest = max(longest, time.monotonic() - began)
        time.sleep(pause)
    return None, longest


def server_dies(stage: Stage) -> Outcome:
    """The watchdog is killed while a worker is in a block; the worker goes on arming."""
    server = stage.serve()
    worker = stage.worker(_go_on)
    worker.hear()
    server.send_signal(signal.SIGKILL)
    if not server.dead_within(1):
        raise BrokenScenarioError("the server cannot be killed")
    worker.pipe.send("go on")
    return _went_on(worker, BOUND)


def _went_on(worker: Worker, bound: float) -> Outcome:
    error, longest = worker.hear()
    if error is not None:
        return failed(error)
    line = f"goes on arming, and waits {longest * 1000:.1f} ms at most"
    return survived(line) if longest < bound else failed(line)


def _go_on(stage: Stage, pipe: Connection) -> None:
    client = stage.client()
    with stage.api.expires(after=HANG, scope="outer", client=client):
        pipe.send("in the block")
        pipe.recv()
    pipe.send(_longest_block(stage, [1.0] * int(GOES_ON / 0.02), pause=0.02))
    idle(stage, pipe)


def server_stops(stage: Stage) -> Outcome:
    """The watchdog is stopped while a worker goes on arming, and a new one comes."""
    server = stage.serve()
    old, new = stage.worker(_go_on), stage.worker(_arm_when_told)
    old.hear()
    new.hear()
    server.stop()
    for worker in (old, new):
        worker.pipe.send("go on")
    outcomes = [_went_on(old, BOUND), _went_on(new, FIRST_BOUND)]
    server.send_signal(signal.SIGCONT)
    bad = [outcome for outcome in outcomes if outcome.verdict is Verdict.FAILED]
    return bad[0] if bad else watched_on(server, [stage.hung(0.5)], [old, new], f"; the old one {outcomes[0].line}")


def _arm_when_told(stage: Stage, pipe: Connection) -> None:
    stage.client()
    pipe.send("here")
    pipe.recv()
    pipe.send(_longest_block(stage, [HANG] * 100, pause=0.01))
    idle(stage, pipe)
