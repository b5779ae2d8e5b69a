"""Who is to blame, and where it hung: programs that hang, run for real, and what the report says of each.

``python benchmarks/verdict.py --json verdict.json``. Each program of ``hangs`` runs under ``unhang run``; those of one
process run again, sealed: as an ordinary user, with memory that nobody may look into; and some of them in the same way
as root of a container. Then stacks and line must be right as well, and the class must not be wrong. Exit status: 0, or
1 if a class, a line or a culprit is wrong, or stacks are missing. Not to know the culprit is not wrong; it is counted.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from unhang.report.model import HangClass
from verdict_checks import Blame, Row, expected_blame, judged
from verdict_director import run
from verdict_stage import Stage, stage
from verdict_table import CONTAINED, JOBS, SEALED, SINGLE, Case

# Runs at once: programs wait more than they compute, but they have to be started.
_AT_ONCE = 4
_JOBS_AT_ONCE = 2
_MARKS = {True: Text("✓ ", "green"), False: Text("✗ ", "bold red")}


@click.command()
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the table to this file, too.")
@click.option("--only", multiple=True, metavar="NAME", help="Run this program alone; may be repeated.")
@click.option("--no-ptrace", is_flag=True, help="Run only those that nobody may look into.")
@click.option("--without-torch", is_flag=True, help="Leave out what needs torch.")
def main(json_path: Path | None, only: tuple[str, ...], *, no_ptrace: bool, without_torch: bool) -> None:
    """Let programs hang, and hold the reports against what is right."""
    cases = chosen(only, no_ptrace=no_ptrace, without_torch=without_torch)
    if not cases:
        names = ", ".join(case.name for case in (*SINGLE, *JOBS, *SEALED, *CONTAINED))
        raise click.BadParameter(f"there are {names}", param_hint="--only")
    started = time.monotonic()
    with stage() as where:
        possible = [case for case in cases if where.can_run(case)]
        found = dict(run_all(possible, where))
    rows = [found[case] for case in possible]
    without = len(cases) - len(possible)
    left_out = f"; {without} left out: no such user can run this Python here" if without else ""
    console = Console(width=None if sys.stdout.isatty() else 180)
    console.print(table(rows))
    print_faults(console, rows)
    console.print(summary(rows, time.monotonic() - started, left_out), highlight=False)
    if json_path is not None:
        json_path.write_text(json.dumps(as_json(rows, time.monotonic() - started), indent=2) + "\n", encoding="utf-8")
    raise SystemExit(0 if all(row.right for row in rows) else 1)


def chosen(only: Iterable[str], *, no_ptrace: bool, without_torch: bool) -> list[Case]:
    """The cases to run."""
    wanted = set(only)
    cases = [*([] if no_ptrace else [*SINGLE, *JOBS]), *SEALED, *CONTAINED]
    return [case for case in cases if (not wanted or case.name in wanted) and not (without_torch and case.torchrun)]


def run_all(cases: list[Case], where: Stage) -> Iterator[tuple[Case, Row]]:
    """Run all of them: those that disturb others alone, jobs two at once, the others four at once."""
    quiet = [case for case in cases if not case.alone]
    batches = [
        (_AT_ONCE, [case for case in quiet if not case.ranks]),
        (_JOBS_AT_ONCE, [case for case in quiet if case.ranks]),
        (1, [case for case in cases if case.alone]),
    ]
    progress = track(_in_batches(batches, where), "Hanging", len(cases), console=Console(stderr=True), transient=True)
    yield from progress


def _in_batches(batches: list[tuple[int, list[Case]]], where: Stage) -> Iterator[tuple[Case, Row]]:
    for at_once, cases in batches:
        with ThreadPoolExecutor(at_once) as pool:
            try:
                yield from zip(cases, pool.map(lambda case: judged(case, run(case, where)), cases), strict=True)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def table(rows: list[Row]) -> Table:
    """What the reports said, for a terminal."""
    view = Table(title="What the verdict says of planted hangs")
    for name in ("program", "what hangs", "class: expected → said", "line", "to blame: expected → said", "stacks by"):
        view.add_column(name, overflow="fold")
    view.add_column("ms to the signal", justify="right")
    last: tuple[bool, bool, bool] | None = None
    for row in rows:
        group = bool(row.case.ranks), row.case.sealed, row.case.contained
        if last not in (None, group):
            view.add_section()
        last = group
        view.add_row(*cells(row))
    return view


def cells(row: Row) -> list[Text]:
    """One row for a terminal."""
    expected = "/".join(map(short, row.case.hang))
    blamed = f"{expected_blame(row.case)} → {row.culprits or '-'}"
    if row.sure and row.culprits != row.sure:
        blamed += f" ({row.sure})"
    return [
        Text(row.case.name),
        Text(row.case.what),
        _MARKS[row.hang_ok] + Text(f"{expected} → {short(row.said) if row.said else '-'}"),
        _MARKS[row.line_ok] + Text(row.line.removeprefix(f"{row.case.program}.py") or "-"),
        (Text("? ", "yellow") if row.blame is Blame.CANNOT_TELL else _MARKS[row.blame is Blame.RIGHT]) + Text(blamed),
        _MARKS[row.stacks_ok] + Text(row.stacks_from or "-"),
        Text("-" if row.signal_ms is None else f"{row.signal_ms:.0f}"),
    ]


def short(hang: str) -> str:
    """A class in fewer letters."""
    return HangClass(hang).name.lower().replace("_", " ")


def print_faults(console: Console, rows: list[Row]) -> None:
    """All that is wrong, with the facts."""
    for row in rows:
        for fault in row.faults:
            console.print(f"✗ {row.case.name}: {fault}", style="red", markup=False, highlight=False)


def summary(rows: list[Row], seconds: float, left_out: str) -> str:
    """The totals, in one line."""
    blames = [row.blame for row in rows]
    parts = [
        f"{len(rows)} hangs: class right {sum(row.hang_ok for row in rows)}",
        f"line right {sum(row.line_ok for row in rows)}",
        f"stacks {sum(row.stacks_ok for row in rows)}",
        f"culprit right {blames.count(Blame.RIGHT)}, can't tell {blames.count(Blame.CANNOT_TELL)}",
        f"WRONG {blames.count(Blame.WRONG)}",
        f"with a fault {sum(bool(row.faults) for row in rows)}",
    ]
    return f"{', '.join(parts)}; {seconds:.0f} s{left_out}"


def as_json(rows: list[Row], seconds: float) -> dict[str, Any]:
    """The table for a program."""
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "seconds": round(seconds, 1),
        "right": all(row.right for row in rows),
        "rows": [row.as_json() for row in rows],
    }


if __name__ == "__main__":
    main()
