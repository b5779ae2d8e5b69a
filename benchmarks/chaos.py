"""Who survives: the faults of torch's timers, provoked for real against torch's servers and ours.

``python benchmarks/chaos.py --json chaos.json``. Each scenario runs in a session of its own, so that a server which
kills more than it should harms nobody. The columns are torch, unhang's servers of the same kinds, unhang's shared
timers, and these without evidence: their watchdog sends SIGKILL at the deadline, as the other servers do. The exit code
is 0 if all of ours survive every row that this machine can provoke, 1 if they do not, 2 if there is no torch to compare
with.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from chaos_runner import run
from chaos_scenarios import BARE, SCENARIOS, SHARED, Scenario
from chaos_stage import Outcome, Verdict

Result = tuple[Outcome, float]
Results = dict[tuple[Scenario, str], Result]

OURS = ["unhang", SHARED, BARE]
# Scenarios wait more than they compute.
_AT_ONCE = 3
_MARKS = {
    Verdict.SURVIVED: ("✓", "green"),
    Verdict.FAILED: ("✗", "red"),
    Verdict.NOT_PROVOKED: ("-", "yellow"),
    Verdict.BROKEN: ("?", "magenta"),
    Verdict.NO_SUCH_THING: ("·", "dim"),
}


@click.command()
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the table to this file, too.")
@click.option("--only", type=int, multiple=True, metavar="N", help="Provoke this fault alone; may be repeated.")
@click.option("--without-torch", is_flag=True, help="Provoke the faults against unhang alone.")
def main(json_path: Path | None, only: tuple[int, ...], *, without_torch: bool) -> None:
    """Provoke the faults of torch's timers, and what shared timers must bear, against torch's servers and unhang's."""
    if not without_torch and version("torch") is None:
        raise SystemExit(no_torch())
    implementations = OURS if without_torch else ["torch", *OURS]
    scenarios = [scenario for scenario in SCENARIOS if not only or scenario.fault in only]
    if not scenarios:
        raise click.BadParameter(f"there are faults 1 to {SCENARIOS[-1].fault}", param_hint="--only")
    started = time.monotonic()
    results = run_all(scenarios, implementations)
    seconds = time.monotonic() - started
    Console(width=None if sys.stdout.isatty() else 200).print(table(scenarios, implementations, results))
    print(summary(scenarios, implementations, results, seconds))
    if json_path is not None:
        json_path.write_text(json.dumps(as_json(scenarios, implementations, results, seconds), indent=2) + "\n")
    raise SystemExit(0 if survives_all(OURS, scenarios, results) else 1)


def version(package: str) -> str | None:
    """The version of a package, or of the package that a column begins with, that is installed; else None."""
    try:
        return importlib.metadata.version(package.split(maxsplit=1)[0])
    except importlib.metadata.PackageNotFoundError:
        return None


def no_torch() -> int:
    """Say so, and return the exit code."""
    click.echo("torch is not installed: install torch 2.13, or run unhang alone with --without-torch", err=True)
    return 2


def run_all(scenarios: list[Scenario], implementations: list[str]) -> Results:
    """Run every scenario against every implementation."""
    console = Console(stderr=True)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        futures: dict[Future[Result], tuple[Scenario, str]] = {
            pool.submit(run, scenario, implementation): (scenario, implementation)
            for scenario in scenarios
            for implementation in implementations
        }
        try:
            done = track(as_completed(futures), "Provoking", len(futures), console=console, transient=True)
            return {futures[future]: future.result() for future in done}
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def table(scenarios: list[Scenario], implementations: list[str], results: Results) -> Table:
    """The results for a terminal."""
    view = Table(title="Who survives", show_lines=False)
    view.add_column("#", justify="right")
    view.add_column("server")
    view.add_column("what is provoked")
    for implementation in implementations:
        view.add_column(f"{implementation} {version(implementation)}")
    last = None
    for scenario in scenarios:
        if last is not None and scenario.fault != last:
            view.add_section()
        last = scenario.fault
        cells = [cell(results[scenario, implementation][0]) for implementation in implementations]
        view.add_row(str(scenario.fault), scenario.kind, scenario.what, *cells)
    return view


def cell(outcome: Outcome) -> Text:
    """One outcome for a terminal."""
    mark, style = _MARKS[outcome.verdict]
    return Text.assemble((mark, style), " ", outcome.line) if outcome.line else Text()


def survives_all(ours: list[str], scenarios: list[Scenario], results: Results) -> bool:
    """Whether they survive every row that could be provoked."""
    fine = (Verdict.SURVIVED, Verdict.NOT_PROVOKED, Verdict.NO_SUCH_THING)
    return all(results[scenario, name][0].verdict in fine for scenario in scenarios for name in ours)


def summary(scenarios: list[Scenario], implementations: list[str], results: Results, seconds: float) -> str:
    """One line for each implementation, and the time that it took."""
    lines = []
    for implementation in implementations:
        verdicts = [results[scenario, implementation][0].verdict for scenario in scenarios]
        there = [verdict for verdict in verdicts if verdict is not Verdict.NO_SUCH_THING]
        counts = ", ".join(f"{verdict} {there.count(verdict)}" for verdict in Verdict if verdict in there)
        lines.append(f"{implementation}: {counts}, of {len(there)}")
    return "\n".join([*lines, f"took {seconds:.0f} s"])


def as_json(scenarios: list[Scenario], implementations: list[str], results: Results, seconds: float) -> dict[str, Any]:
    """The results for a program."""
    rows = []
    for scenario in scenarios:
        row: dict[str, Any] = {"fault": scenario.fault, "server": scenario.kind, "what": scenario.what}
        for implementation in implementations:
            outcome, took = results[scenario, implementation]
            row[implementation] = {"verdict": outcome.verdict, "line": outcome.line, "seconds": round(took, 2)}
        rows.append(row)
    return {
        "versions": {name: version(name) for name in implementations},
        "python": platform.python_version(),
        "system": platform.platform(),
        "seconds": round(seconds, 1),
        "unhang_survives": survives_all(OURS, scenarios, results),
        "rows": rows,
    }


if __name__ == "__main__":
    main()
