"""Faults 19 and 20: what a worker does to its own process: it closes all descriptors, it forks inside a block."""

from __future__ import annotations

import os
import select
import socket
import time
from multiprocessing.connection import Connection

from chaos_shared_stage import watched_on
from chaos_stage import HANG, LIMIT, BrokenScenarioError, Outcome, Stage, Verdict, failed, how_late, idle, survived

# Descriptors that a worker opens where others were closed, and seconds for which it goes on arming.
STRANGERS = 16
GOES_ON = 5.0
# More than any worker here has open.
LAST = 4096


def closes_descriptors(stage: Stage) -> Outcome:
    """A worker closes all descriptors, opens its own, goes on arming, and forks."""
    server = stage.serve()
    worker = stage.worker(_close_and_go_on)
    worker.hear()
    trouble = worker.hear()
    if trouble is not None:
        return failed(trouble)
    return watched_on(server, [stage.hung(0.5)], [worker], f"; {STRANGERS} descriptors untouched")


def hangs_without_descriptors(stage: Stage) -> Outcome:
    """A worker closes all descriptors, goes on arming for longer than it takes to notice, and hangs."""
    server = stage.serve()
    worker = stage.worker(_close_and_hang, 1.0)
    worker.hear()
    return watched_on(server, [worker], [])


def _close_all_but(kept: int) -> None:
    os.closerange(3, kept)
    os.closerange(kept + 1, LAST)


def _close_and_go_on(stage: Stage, pipe: Connection) -> None:
    client = stage.client()
    with stage.api.expires(after=HANG, scope="before", client=client):
        _close_all_but(pipe.fileno())
        strangers = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(STRANGERS)]
        pipe.send("closed")
        _arm_for(stage, GOES_ON)
    trouble = _touched(strangers) or _touched_in_child(strangers)
    client.close()
    pipe.send(trouble or _touched(strangers))
    idle(stage, pipe)


def _arm_for(stage: Stage, seconds: float) -> None:
    """Arm one short block after the other; the watchdog has to be told of some of them."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with stage.api.expires(after=0.5, scope="step"):
            time.sleep(0.01)


def _touched(strangers: list[tuple[socket.socket, socket.socket]]) -> str | None:
    """What happened to the descriptors of somebody else; None if nothing did."""
    for pair in strangers:
        for end in pair:
            try:
                return f"{len(end.recv(512, socket.MSG_DONTWAIT))} bytes came out of a stranger's descriptor"
            except BlockingIOError:
                pass
            except OSError as error:
                return f"a stranger's descriptor was closed ({error.strerror})"
    return None


def _touched_in_child(strangers: list[tuple[socket.socket, socket.socket]]) -> str | None:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        trouble = _touched(strangers)
        os.write(writing, f"in a forked child {trouble}".encode() if trouble else b"-")
        os._exit(0)
    os.waitpid(child, 0)
    said = os.read(reading, 4096).decode() if select.select([reading], [], [], 1)[0] else "a forked child said nothing"
    return None if said == "-" else said


def _close_and_hang(stage: Stage, after: float, pipe: Connection) -> None:
    client = stage.client()
    with stage.api.expires(after=HANG, scope="before", client=client):
        pass
    _close_all_but(pipe.fileno())
    pipe.send("closed")
    _arm_for(stage, GOES_ON)
    pipe.send(time.monotonic() + after)
    with stage.api.expires(after=after, scope="hangs", client=client):
        time.sleep(HANG)


def forks_in_block(stage: Stage) -> Outcome:
    """A worker forks inside a block; the child leaves it, and hangs in one of its own."""
    server = stage.serve()
    parent = stage.worker(_fork_in_block, 2.0, 3.5)
    child, due = parent.hear()
    pidfd = os.pidfd_open(child)
    outcome = watched_on(server, [parent], [])
    if outcome.verdict is not Verdict.SURVIVED:
        return outcome
    if select.select([pidfd], [], [], 0)[0]:
        return failed("the child was killed with its parent")
    lateness = _lateness(pidfd, due, stage.limit)
    if lateness is None or not 0 < lateness < stage.in_time:
        return failed("the child is never killed" if lateness is None else f"the child was {how_late(lateness)}")
    return survived(f"each is killed for a block of its own, the child {how_late(lateness)}")


def _lateness(pidfd: int, due: float, limit: float) -> float | None:
    died = select.select([pidfd], [], [], max(0.0, due + limit - time.monotonic()))[0]
    return time.monotonic() - due if died else None


def _fork_in_block(stage: Stage, after: float, childs: float, pipe: Connection) -> None:
    client, deadline = stage.client(), time.monotonic() + after
    reading, writing = os.pipe()
    with stage.api.expires(after=after, scope="parent's", client=client):
        if os.fork():
            if not select.select([reading], [], [], LIMIT)[0]:
                raise BrokenScenarioError("the child said nothing")
            pipe.send(deadline)
            time.sleep(HANG)
    # Only the child leaves the block.
    with stage.api.expires(after=HANG, scope="child's first", client=client):
        pipe.send((os.getpid(), time.monotonic() + childs))
        os.write(writing, b"!")
    with stage.api.expires(after=childs, scope="child's", client=client):
        time.sleep(HANG)
