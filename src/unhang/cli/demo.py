"""``unhang demo``: the main job, on real processes."""

from __future__ import annotations

import sys
import time

import click
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from unhang.cli.demo_run import Worker, find, servers, start, watch
from unhang.cli.demo_workers import BEHAVIOURS
from unhang.cli.quantities import Seconds
from unhang.report.model import Report

# Columns, where nobody says how many there are.
_WIDTH = 80
_TITLES = {
    "shared": "shared timers: signalled some hundredths of a second after the deadline, when the evidence about all "
    "who hang is there (--evidence 0: at the deadline)",
    "queue": "a multiprocessing queue, as torch has it: signalled at the deadline, no evidence is taken",
    "fifo": "a named pipe, as torch has it: signalled at the deadline, no evidence is taken",
}
_WAYS = {"shared": ["shared"], "queue": ["queue"], "fifo": ["fifo"], "all": ["shared", "queue", "fifo"]}


@click.command()
@click.option(
    "--via",
    type=click.Choice(list(_WAYS)),
    envvar="UNHANG_DEMO_VIA",
    show_envvar=True,
    default="all",
    show_default=True,
    help="Where workers keep their timers: in shared memory, or at the server behind a multiprocessing queue or a "
    "named pipe; or eight workers each way, one way after the other.",
)
@click.option(
    "--after",
    type=Seconds(0.1, 60),
    envvar="UNHANG_DEMO_AFTER",
    show_envvar=True,
    default="1s",
    show_default=True,
    help="The time that a block may take.",
)
def demo(via: str, after: float) -> None:
    """Watch eight workers finish or hang, and see the hung ones killed on time.

    Three finish. Five hang: asleep, in a Python loop, in a lock, in C code that keeps the GIL, in a blocking
    read. The exit status is 0 when each finished, or was killed at its deadline, as it should.
    """
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    workers: list[Worker] = []
    for way in _WAYS[via]:
        # One after the other: the start of one crowd would make the kills of another look late.
        reports: list[Report] = []
        with servers([way], reports) as clients, Live(console=console, auto_refresh=False, transient=True) as live:
            crowd = start(clients, after)

            def show(live: Live = live, crowd: list[Worker] = crowd) -> None:
                if console.is_terminal:
                    live.update(_view(crowd, after), refresh=True)

            watch(crowd, after, show)
        find(crowd, reports)
        workers += crowd
    console.print(_results(workers))
    sys.exit(0 if all(worker.as_it_should for worker in workers) else 1)


def _view(workers: list[Worker], after: float) -> Group:
    """What the workers do at the moment."""
    now = time.monotonic()
    table = Table("via", "worker", "time in block", "", box=None, pad_edge=False)
    for worker in workers:
        spent = 0.0 if worker.deadline is None else (worker.ended or now) - worker.deadline + after
        bar = ProgressBar(total=after, completed=min(spent, after), width=24)
        table.add_row(worker.via, worker.behaviour.name, bar, _state(worker))
    running = sum(worker.ended is None for worker in workers)
    return Group(table, Text(f"{running} of {len(workers)} workers running; a block may take {after:g} s"))


def _state(worker: Worker) -> Text:
    if worker.ended is None:
        return Text("starting" if worker.deadline is None else "in its block", style="dim")
    return Text("killed", style="red") if worker.killed else Text("finished", style="green")


def _results(workers: list[Worker]) -> Group:
    """For each way a line of each worker: what it did, what became of it, how late."""
    ways = dict.fromkeys(worker.via for worker in workers)
    parts: list[Text | Table] = []
    for way in ways:
        parts += [Text(_TITLES[way], style="bold"), _table([worker for worker in workers if worker.via == way]), Text()]
    wrong = sum(not worker.as_it_should for worker in workers)
    summary = (
        Text(f"{wrong} of {len(workers)} workers did not end as they should", style="red")
        if wrong
        else Text(f"All {len(workers)} workers ended as they should", style="green")
    )
    return Group(*parts, summary)


def _table(workers: list[Worker]) -> Table:
    table = Table("", "worker", "", "late by", "reported", box=None, pad_edge=False)
    for column, width in zip(table.columns, (1, max(len(each.name) for each in BEHAVIOURS), 8, 9, None), strict=True):
        column.width = width
    table.columns[-2].justify = "right"
    for worker in workers:
        mark = Text("✓", style="green") if worker.as_it_should else Text("✗", style="red bold")
        late = f"{worker.late_ms:.1f} ms" if worker.killed and worker.late_ms is not None else ""
        table.add_row(mark, worker.behaviour.name, _fate(worker), late, worker.found)
    return table


def _fate(worker: Worker) -> str:
    if worker.killed:
        return "killed"
    if worker.gave_up:
        return "not killed; ended by the demo"
    return "finished" if worker.process.exitcode == 0 else f"ended with {worker.process.exitcode}"
