"""The rows that shared timers alone have."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import chaos_flood
import chaos_hostile
import chaos_kills
import chaos_process
import chaos_restart
import chaos_shared_endings
import chaos_shared_lost
import chaos_shared_reports
import chaos_threads
from chaos_shared_stage import SharedStage
from chaos_stage import Outcome


class Row(NamedTuple):
    """As `chaos_scenarios.Scenario`."""

    fault: int
    what: str
    play: Callable[[SharedStage], Outcome]
    needs: str = ""


def _hostile(what: str, body: chaos_hostile.Body, needs: str = "", *, dies: bool = False) -> Row:
    play = functools.partial(chaos_hostile.beside, body=body, dies=dies)
    return Row(22, f"a hostile worker: {what}", play, needs)


ROWS = [
    Row(6, "the server is stopped; a worker goes on, a new one comes", chaos_shared_lost.server_stops),
    Row(14, "1,000 workers are SIGKILLed at random instants", chaos_kills.killed_at_random),
    Row(15, "the server is SIGKILLed and started again", chaos_restart.killed_and_restarted),
    Row(15, "a timer is due before the server is started again", chaos_restart.due_meanwhile),
    Row(16, "the server is stopped for 10 s, in which 100 timers are due", chaos_restart.stopped_meanwhile),
    Row(17, "10,000 connections say nothing", chaos_flood.silent_crowd, "many files"),
    Row(17, "a worker does nothing but wake the server", chaos_flood.flood_of_kicks),
    Row(18, "20 workers hang in C code that keeps the GIL", chaos_kills.all_keep_gil),
    Row(19, "a worker closes all descriptors and goes on", chaos_process.closes_descriptors),
    Row(19, "a worker closes all descriptors, goes on and hangs", chaos_process.hangs_without_descriptors),
    Row(20, "a worker forks inside a block", chaos_process.forks_in_block),
    Row(21, "the server is short of descriptors", chaos_flood.few_descriptors),
    _hostile("all of its deadlines are over", chaos_hostile.all_expired, dies=True),
    _hostile("130,000 deadlines are over", chaos_hostile.big_pages_expired, dies=True),
    _hostile("nonsense in all words of its page", chaos_hostile.nonsense),
    _hostile("it punches holes into its page", chaos_hostile.holes),
    _hostile("it sends a hundred pages", chaos_hostile.many_pages),
    _hostile("it sends descriptors that are no pages", chaos_hostile.strange_descriptors),
    _hostile("it sends one that is slow to close", chaos_hostile.slow_to_close),
    _hostile("it kicks with 253 descriptors, for ever", chaos_hostile.kicks_with_descriptors),
    _hostile("a hole in a huge page, and none left", chaos_hostile.hole_in_huge_page, "huge pages"),
]

# What can only happen where evidence is gathered, and workers are asked to end before they are killed.
ENDINGS = [
    Row(23, "a hung worker ignores SIGTERM", chaos_shared_endings.ignores_sigterm),
    Row(24, "a worker forks without end while it dies (kill tree)", chaos_shared_endings.forks_while_it_dies),
    Row(25, "a worker is stopped in its block", chaos_shared_endings.is_stopped),
    Row(26, "a worker with 200 processes below it (kill tree)", chaos_shared_endings.in_a_tree),
    Row(27, "a block ends in the middle of the evidence", chaos_shared_endings.leaves_late),
    Row(
        28,
        "the directory for reports is full",
        functools.partial(chaos_shared_reports.not_kept, full=True),
        "pid namespace",
    ),
    Row(
        28,
        "the directory for reports can only be read",
        functools.partial(chaos_shared_reports.not_kept, full=False),
        "pid namespace",
    ),
    Row(29, "eight ranks of a job hang at once", chaos_shared_reports.ranks_at_once),
    # This one is about the worker's side alone: once is enough.
    Row(30, chaos_threads.WHAT, chaos_threads.at_once),
]
