"""The rows of the table: which fault, at which server, how it is provoked."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import chaos_both
import chaos_fifo
import chaos_pids
import chaos_queue
import chaos_shared
import chaos_shared_lost
import chaos_shared_pids
from chaos_liar import HELLO
from chaos_shared_rows import ENDINGS, ROWS
from chaos_stage import Outcome

# Shared timers as they come; and with a watchdog that kills at the deadline with SIGKILL, and looks into nobody.
SHARED = "unhang shared"
BARE = "unhang shared, without evidence"
# What provokes a fault; or why it cannot happen; or nothing, where nobody asks.
Play = Callable[[Any], Outcome] | str

_BOTH = ("queue", "FIFO")
_HALF_A_LINE = '{"version": 1, "pid": '
_AS_ABOVE = "as above: there is one kind of shared timers"
_NO_NAMES = "cannot happen: who a worker is, the kernel says"


@dataclass(frozen=True)
class Scenario:
    """One row.

    Attributes:
        fault: its number among those that the design answers.
        kind: the server, ``queue`` or ``FIFO``; ``shared`` if shared timers alone have this row.
        what: what is provoked.
        play: provokes it and looks.
        shared: the same for shared timers.
        bare: the same for shared timers without evidence; None: as ``shared``.
        needs: ``""``, ``"root"``, ``"pid namespace"``, ``"many files"`` or ``"huge pages"``.
        on_death: what it means if the process that plays the scenario is killed.
    """

    fault: int
    kind: str
    what: str
    play: Play
    shared: Play
    needs: str = ""
    on_death: str = "the processes of the scenario were killed"
    bare: Play | None = None

    def play_for(self, implementation: str) -> Play:
        """What provokes it there, or why nothing does."""
        if implementation == BARE and self.bare is not None:
            return self.bare
        return self.shared if implementation in (SHARED, BARE) else self.play


def _forged(whom: str, play: Play, shared: Play = _NO_NAMES, needs: str = "") -> list[Scenario]:
    on_death = "the process that started the server was killed"
    what = f"a forged request names {whom}"
    return [
        Scenario(9, kind, what, play, shared if kind == "queue" or shared is _NO_NAMES else _AS_ABOVE, needs, on_death)
        for kind in _BOTH
    ]


def _both(fault: int, what: str, play: Play, shared: Play | None = None, needs: str = "") -> list[Scenario]:
    return [
        Scenario(fault, kind, what, play, (shared or play) if kind == "queue" else _AS_ABOVE, needs) for kind in _BOTH
    ]


def _queue(fault: int, what: str, play: Play, shared: Play | None = None) -> Scenario:
    return Scenario(fault, "queue", what, play, shared or play)


def _fifo(fault: int, what: str, play: Play, shared: Play | None = None) -> Scenario:
    return Scenario(fault, "FIFO", what, play, shared or play)


_CONTRACT_ROWS = [
    _queue(1, "a worker arms a timer and enters C code that keeps the GIL", chaos_queue.hang_with_gil),
    _queue(2, "workers are SIGKILLed while they arm and disarm", chaos_queue.killed_while_sending),
    _queue(
        2,
        "torch's client: its worker is killed holding the queue's lock",
        chaos_queue.killed_with_lock,
        "cannot happen: no worker takes a lock that another one knows",
    ),
    *_both(3, "a bad message comes with the release of a timer", chaos_both.bad_message, chaos_shared.bad_messages),
    _fifo(
        4,
        "a writer is stopped before its first byte",
        functools.partial(chaos_fifo.writer_stops, written=""),
        functools.partial(chaos_shared.stopped_in_handshake, said=b""),
    ),
    _fifo(
        4,
        "a writer is stopped in the middle of a line",
        functools.partial(chaos_fifo.writer_stops, written=_HALF_A_LINE),
        functools.partial(chaos_shared.stopped_in_handshake, said=HELLO),
    ),
    _fifo(5, "the first client comes after 5 s", chaos_fifo.late_first_client, chaos_shared.late_first_client),
    _fifo(
        6, "the pipe is full: the server is stopped for a second", chaos_fifo.full_pipe, chaos_shared_lost.full_socket
    ),
    _fifo(6, "the server dies while a worker is in a block", chaos_fifo.server_dies, chaos_shared_lost.server_dies),
    *_both(
        7,
        "the clock steps an hour forward (time.time patched)",
        chaos_both.clock_steps_forward,
        functools.partial(chaos_shared.clock_steps, seconds=3600.0),
    ),
    *_both(
        7,
        "the clock steps an hour back (time.time patched)",
        chaos_both.clock_steps_back,
        functools.partial(chaos_shared.clock_steps, seconds=-3600.0),
    ),
    _queue(8, "a hang behind an inner block, both unnamed", chaos_both.nested_timers),
    _queue(8, "a hang beside another thread's block, both unnamed", chaos_both.threaded_timers),
    *_forged("the server", chaos_pids.names_server, chaos_shared_pids.server_connects),
    *_forged("pid 0", chaos_pids.names_pid_0),
    *_forged("the server's process group", chaos_pids.names_group),
    *_forged("the process that started the server", chaos_pids.names_ancestor, chaos_shared_pids.ancestor_connects),
    *_forged("pid 1", chaos_pids.names_init),
    *_forged("pid -1", chaos_pids.names_everybody),
    *_forged(
        "another user's process",
        chaos_pids.names_other_user,
        functools.partial(chaos_shared_pids.other_user, uid=chaos_pids.NOBODY),
        "root",
    ),
    *_both(9, "a dead worker's pid is another process's by now", chaos_pids.reused_pid, needs="pid namespace"),
    *_both(10, "a worker hangs; max_interval is the default", chaos_both.default_interval),
    _fifo(11, "the server kills a worker", chaos_fifo.server_kills),
    *_both(12, "the first attempt to kill fails (patched)", chaos_both.failed_reap, chaos_shared.failed_kill),
    _fifo(13, "an ordinary file stands at the path", chaos_fifo.file_at_path, chaos_shared.file_at_address),
]

SCENARIOS = [
    *_CONTRACT_ROWS,
    *(Scenario(row.fault, "shared", row.what, "", row.play, row.needs) for row in ROWS),
    *(Scenario(row.fault, "shared", row.what, "", row.play, row.needs, bare="") for row in ENDINGS),
]
