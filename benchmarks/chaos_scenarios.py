"""The rows of the table: which fault, at which server, how it is provoked."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import chaos_both
import chaos_fifo
import chaos_pids
import chaos_queue
from chaos_stage import Outcome, Stage

_BOTH = ("queue", "FIFO")
_HALF_A_LINE = '{"version": 1, "pid": '


@dataclass(frozen=True)
class Scenario:
    """One row.

    Attributes:
        fault: its number among those that the design answers.
        kind: the server, ``queue`` or ``FIFO``.
        what: what is provoked.
        play: provokes it and looks.
        needs: ``""``, ``"root"`` or ``"pid namespace"``.
        on_death: what it means if the process that plays the scenario is killed.
    """

    fault: int
    kind: str
    what: str
    play: Callable[[Stage], Outcome]
    needs: str = ""
    on_death: str = "the processes of the scenario were killed"


def _forged(whom: str, play: Callable[[Stage], Outcome], needs: str = "") -> list[Scenario]:
    on_death = "the process that started the server was killed"
    return [Scenario(9, kind, f"a forged request names {whom}", play, needs, on_death) for kind in _BOTH]


def _both(fault: int, what: str, play: Callable[[Stage], Outcome], needs: str = "") -> list[Scenario]:
    return [Scenario(fault, kind, what, play, needs) for kind in _BOTH]


SCENARIOS = [
    Scenario(1, "queue", "a worker arms a timer and enters C code that keeps the GIL", chaos_queue.hang_with_gil),
    Scenario(2, "queue", "workers are SIGKILLed while they arm and disarm", chaos_queue.killed_while_sending),
    Scenario(2, "queue", "torch's client: its worker is killed holding the queue's lock", chaos_queue.killed_with_lock),
    *_both(3, "a bad message comes with the release of a timer", chaos_both.bad_message),
    Scenario(
        4,
        "FIFO",
        "a writer is stopped before its first byte",
        functools.partial(chaos_fifo.writer_stops, written=""),
    ),
    Scenario(
        4,
        "FIFO",
        "a writer is stopped in the middle of a line",
        functools.partial(chaos_fifo.writer_stops, written=_HALF_A_LINE),
    ),
    Scenario(5, "FIFO", "the first client comes after 5 s", chaos_fifo.late_first_client),
    Scenario(6, "FIFO", "the pipe is full: the server is stopped for a second", chaos_fifo.full_pipe),
    Scenario(6, "FIFO", "the server dies while a worker is in a block", chaos_fifo.server_dies),
    *_both(7, "the clock steps an hour forward (time.time patched)", chaos_both.clock_steps_forward),
    *_both(7, "the clock steps an hour back (time.time patched)", chaos_both.clock_steps_back),
    Scenario(8, "queue", "a hang behind an inner block, both unnamed", chaos_both.nested_timers),
    Scenario(8, "queue", "a hang beside another thread's block, both unnamed", chaos_both.threaded_timers),
    *_forged("the server", chaos_pids.names_server),
    *_forged("pid 0", chaos_pids.names_pid_0),
    *_forged("the server's process group", chaos_pids.names_group),
    *_forged("the process that started the server", chaos_pids.names_ancestor),
    *_forged("pid 1", chaos_pids.names_init),
    *_forged("pid -1", chaos_pids.names_everybody),
    *_forged("another user's process", chaos_pids.names_other_user, "root"),
    *_both(9, "a dead worker's pid is another process's by now", chaos_pids.reused_pid, "pid namespace"),
    *_both(10, "a worker hangs; max_interval is the default", chaos_both.default_interval),
    Scenario(11, "FIFO", "the server kills a worker", chaos_fifo.server_kills),
    *_both(12, "the first attempt to kill fails (_reap_worker patched)", chaos_both.failed_reap),
    Scenario(13, "FIFO", "an ordinary file stands at the path", chaos_fifo.file_at_path),
]
