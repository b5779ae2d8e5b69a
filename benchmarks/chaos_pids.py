"""Fault 9: requests that name a process which is not a worker.

A forged request that names another process of the same user is not among them: over these transports it looks
exactly like that process's own.
"""

from __future__ import annotations

import json
import os
import time
from multiprocessing.connection import Connection
from pathlib import Path

from chaos_stage import (
    TURN,
    BrokenScenarioError,
    Outcome,
    Server,
    Stage,
    Worker,
    await_judgement,
    failed,
    idle,
    spared,
    survived,
)

NOBODY = 65534
_LAST_PID = Path("/proc/sys/kernel/ns_last_pid")


def names_server(stage: Stage) -> Outcome:
    """The server itself."""
    server = stage.serve()
    return _forge(stage, server, server.pid)


def names_pid_0(stage: Stage) -> Outcome:
    """To ``kill``, pid 0 is the caller's process group."""
    return _forge(stage, stage.serve(), 0)


def names_group(stage: Stage) -> Outcome:
    """The process group of the server, which it leads."""
    server = stage.serve()
    return _forge(stage, server, -server.pid)


def names_ancestor(stage: Stage) -> Outcome:
    """This process, which has started the server, and does not live to tell if the request is obeyed."""
    return _forge(stage, stage.serve(), os.getpid())


def names_init(stage: Stage) -> Outcome:
    """Pid 1."""
    return _forge(stage, stage.serve(), 1)


def names_everybody(stage: Stage) -> Outcome:
    """To ``kill``, pid -1 is everybody whom the caller may signal."""
    return _forge(stage, stage.serve(), -1)


def names_other_user(stage: Stage) -> Outcome:
    """A process of another user, as root."""
    server = stage.serve()
    other = stage.worker(_become_nobody)
    other.hear()
    outcome = _forge(stage, server, other.pid)
    return failed("the other user's process was killed") if other.killed_within(2 * TURN) else outcome


def _become_nobody(stage: Stage, pipe: Connection) -> None:
    os.setresuid(NOBODY, NOBODY, NOBODY)
    idle(stage, pipe)


def _forge(stage: Stage, server: Server, pid: int) -> Outcome:
    """Send a request that names ``pid``, due at once, and see what becomes of the server."""
    forger = stage.worker(_send_forged, pid)
    # It ends when what it sent is in the pipe: what the next worker sends comes behind.
    if not forger.dead_within(5):
        raise BrokenScenarioError("the forged request was not sent")
    trouble = await_judgement(server, stage.hung(0.5))
    withheld = server.withheld()
    if withheld:
        return failed(f"SIGKILL for pid {withheld[0]} (held back here, not sent)")
    return failed(trouble) if trouble else survived("refused, and the next hung worker is killed")


def _send_forged(stage: Stage, pid: int, _pipe: Connection) -> None:
    due = time.time() + 0.1
    if stage.kind == "FIFO":
        request = {"version": 1, "pid": pid, "scope_id": "forged", "expiration_time": due, "signal": 9}
        with open(stage.path, "w") as fifo:  # noqa: PTH123 - a named pipe, not a file
            fifo.write(json.dumps(request) + "\n")
    else:
        stage.queue.put(stage.api.TimerRequest(pid, "forged", due))


def reused_pid(stage: Stage) -> Outcome:
    """A worker dies with a timer armed, and another process gets its pid: in a pid namespace of its own."""
    server = stage.serve()
    worker = stage.hung(2.0)
    worker.hear()
    server.await_timers(1)
    worker.process.kill()
    worker.dead_within(5)
    heir = _inherit(stage, worker.pid)
    return spared([heir], await_judgement(server, stage.hung(2.0)))


def _inherit(stage: Stage, pid: int) -> Worker:
    """A process with this pid, which is free."""
    if os.getpid() != 1:
        raise BrokenScenarioError("this is not a pid namespace of its own")
    for _ in range(50):
        _LAST_PID.write_text(str(pid - 1))
        heir = stage.worker(idle)
        if heir.pid == pid:
            return heir
        heir.process.kill()
    raise BrokenScenarioError(f"pid {pid} could not be had again")
