"""Faults 23 to 27 for shared timers as they come: workers that do not end when asked to, and near misses.

All of them are gone within the grace and a second more, from the first signal on, and nobody else is.
"""

from __future__ import annotations

import collections
import os
import signal
import threading
import time
from multiprocessing.connection import Connection
from typing import Any
from unittest import mock

import chaos_trees
from chaos_shared_stage import EVIDENCE, GRACE, SharedStage, leave_in_time, none_else
from chaos_stage import HANG, BrokenScenarioError, Outcome, Server, Stage, Worker, failed, idle, sessions, wait_until
from unhang._watchdog import incidents
from unhang._watchdog.evidence import gather

# Seconds behind the grace within which everybody has to be gone; and for the first signal, on a busy machine.
_MORE = 1.0
_BUSY = 0.5
# Workers that leave their block behind its deadline, while evidence about them is gathered.
LATE_LEAVERS = 5

# In the server's process: what it told, to whom that happened, and when.
_told: list[tuple[str, int | None, float]] = []
# There too: of whom there is evidence, which is handed on once the worker has left its block.
_looked_at: collections.defaultdict[int, threading.Event] = collections.defaultdict(threading.Event)


def note(event: str, pid: int | None, _timers: list[Any]) -> None:
    """For ``on_event``."""
    _told.append((event, pid, time.monotonic()))


def told(_server: Any) -> list[tuple[str, int | None, float]]:
    """Asked in the server's process."""
    return _told


def serve(stage: SharedStage, **options: Any) -> tuple[Server, list[Worker]]:
    """A server that notes what it tells, and two of its workers that are well: one in a block, one between two."""
    stage.options |= {"on_event": note, **options}
    server = stage.serve()
    innocents = [stage.worker(leave_in_time, 60.0, 50.0), stage.worker(leave_in_time, 60.0, 0.1)]
    for innocent in innocents:
        innocent.hear()
    return server, innocents


def ended(server: Server, hung: Worker, deadline: float, innocents: list[Worker], also: str = "") -> Outcome:
    """Survived if the worker and all that hold its pipe are gone in time, and nobody else is."""
    gone = _all_gone(hung, deadline + EVIDENCE + _BUSY + GRACE + _MORE)
    first = first_signal(server, hung)
    if first is None or first - deadline > EVIDENCE + _BUSY:
        return failed("no signal was sent" if first is None else f"the first signal was {first - deadline:.1f} s late")
    if gone is None or gone - first > GRACE + _MORE:
        return failed(f"not all are gone {GRACE + _MORE:g} s behind the first signal")
    wait_until(lambda: _is_told(server, "ended", hung), "word that all are gone", limit=1.0)
    took, late = max(0.0, gone - first), (first - deadline) * 1000
    return none_else(
        server, innocents, f"gone {took:.2f} s behind the first signal, which came {late:.0f} ms late{also}"
    )


def _all_gone(hung: Worker, give_up: float) -> float | None:
    """When nobody was left who holds the worker's end of its pipe."""
    try:
        while hung.pipe.poll(max(0.0, give_up - time.monotonic())):
            hung.pipe.recv()
    except (EOFError, ConnectionError):
        return time.monotonic()
    return None


def first_signal(server: Server, worker: Worker) -> float | None:
    """When the server sent it the first signal."""
    return next((at for event, pid, at in server.ask(told) if event == "killed" and pid == worker.pid), None)


def _is_told(server: Server, event: str, worker: Worker) -> bool:
    return (event, worker.pid) in [seen[:2] for seen in server.ask(told)]


def ignores_sigterm(stage: SharedStage) -> Outcome:
    """A hung worker ignores SIGTERM."""
    server, innocents = serve(stage)
    hung = stage.hung(0.5, _ignore_and_hang)
    return ended(server, hung, hung.hear(), innocents)


def _ignore_and_hang(stage: Stage, after: float, pipe: Connection) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _hang(stage, after, pipe)


def _hang(stage: Stage, after: float, pipe: Connection) -> None:
    client = stage.client()
    deadline = time.monotonic() + after
    with stage.api.expires(after=after, scope="hangs", client=client):
        pipe.send(deadline)
        until = deadline + HANG
        while time.monotonic() < until:  # a signal that is handled ends a sleep, and no hang
            time.sleep(until - time.monotonic())


def is_stopped(stage: SharedStage) -> Outcome:
    """A worker is stopped in its block."""
    server, innocents = serve(stage)
    hung = stage.hung(0.5, _stop_in_block)
    deadline: float = hung.hear()
    hung.await_stop()
    return ended(server, hung, deadline, innocents)


def _stop_in_block(stage: Stage, after: float, pipe: Connection) -> None:
    client = stage.client()
    deadline = time.monotonic() + after
    with stage.api.expires(after=after, scope="stopped", client=client):
        pipe.send(deadline)
        os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(HANG)


def forks_while_it_dies(stage: SharedStage) -> Outcome:
    """Asked to end, a worker forks without end, and so do its children; the server ends trees."""
    server, innocents = serve(stage, tree=True)
    hung = stage.worker(_hang_and_rage, 1.0)
    session: int = hung.hear()
    server.ask(admit_session, session)
    deadline: float = hung.hear()
    wait_until(lambda: chaos_trees.count_in(session) > chaos_trees.MOST // 2, "the worker to fork")
    time.sleep(1.0)
    raging = chaos_trees.count_in(session)
    outcome = ended(server, hung, deadline, innocents, f"; {raging} processes meanwhile, each forks or exits")
    left = chaos_trees.count_in(session)
    return failed(f"{left} processes are left") if left else outcome


def admit_session(_server: Any, session: int) -> None:
    """Asked in the server's process: the signals of the server may reach this session too."""
    sessions.add(session)


def _hang_and_rage(stage: Stage, after: float, pipe: Connection) -> None:
    # As torchrun starts its workers.
    os.setsid()
    pipe.send(os.getpid())
    chaos_trees.rage_when_asked()
    _hang(stage, after, pipe)


def in_a_tree(stage: SharedStage) -> Outcome:
    """A worker has 200 processes below it; one that is none of them is in its process group."""
    server, innocents = serve(stage, tree=True)
    hung = stage.worker(_hang_above_tree, 1.5)
    bystander = stage.worker(_enter_group, hung.hear())
    bystander.hear()
    innocents.append(bystander)
    hung.pipe.send("hang")
    outcome = ended(
        server, hung, hung.hear(), innocents, f"; {chaos_trees.BELOW} below it; its group's other one lives"
    )
    if os.getpgid(bystander.pid) != hung.pid:
        raise BrokenScenarioError("the bystander was not in the worker's group")
    return outcome


def _hang_above_tree(stage: Stage, after: float, pipe: Connection) -> None:
    os.setpgid(0, 0)
    chaos_trees.grow()
    pipe.send(os.getpid())
    pipe.recv()
    _hang(stage, after, pipe)


def _enter_group(stage: Stage, group: int, pipe: Connection) -> None:
    os.setpgid(0, group)
    idle(stage, pipe)


def leaves_late(stage: SharedStage) -> Outcome:
    """Blocks end behind their deadlines, while evidence is gathered."""
    server, innocents = serve(stage)
    server.ask(_hold_evidence)
    late = []
    for number in range(LATE_LEAVERS):
        late.append(stage.worker(_leave_late, f"job {number}", 0.3))
        _have_it_leave(server, late[-1])
    wait_until(lambda: all(_is_told(server, "near miss", worker) for worker in late), "near misses")
    # A report that says so is made behind that.
    wait_until(lambda: _outcomes(stage) == ["spared"] * LATE_LEAVERS, "reports of near misses alone")
    return none_else(server, [*innocents, *late], f"near misses, told and reported: {LATE_LEAVERS} of {LATE_LEAVERS}")


def _have_it_leave(server: Server, worker: Worker) -> None:
    """Have the worker leave its block while evidence about it is held, and let that be handed on."""
    wait_until(lambda: bool(server.ask(_is_looked_at, worker.pid)), "a look at the worker")
    worker.pipe.send("leave")
    worker.hear()
    if first_signal(server, worker) is not None:
        raise BrokenScenarioError("the time for evidence was over before the block was left")
    server.ask(_hand_on_evidence, worker.pid)


def _hold_evidence(_server: Any) -> None:
    """Asked in the server's process: evidence is gathered, and then held until it may be handed on."""

    def gather_and_hold(subject: Any, **options: Any) -> Any:
        evidence = gather(subject, **options)
        _looked_at[subject.handle.pid].wait(HANG)
        return evidence

    mock.patch.object(incidents, "gather", gather_and_hold).start()


def _is_looked_at(_server: Any, pid: int) -> bool:
    return pid in _looked_at


def _hand_on_evidence(_server: Any, pid: int) -> None:
    _looked_at[pid].set()


def _outcomes(stage: SharedStage) -> list[str]:
    return [worker.outcome for report in stage.kept() for worker in report.workers if worker.expired]


def _leave_late(stage: Stage, job: str, after: float, pipe: Connection) -> None:
    os.environ["UNHANG_JOB"] = job
    client = stage.client()
    client.connect()
    with stage.api.expires(after=after, scope="late", client=client):
        pipe.recv()
    idle(stage, pipe)
