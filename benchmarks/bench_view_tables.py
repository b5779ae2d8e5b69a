"""What a viewer costs, as tables for a terminal, and what it may cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from bench_requirements import Requirement
from bench_tables import Row, number, percentile, table_of

_PERCENTS = (50, 99)
# Of so many kills the 99th percentile is a figure of its own, and not the latest of all.
_SLOWED = {50: 1.25, 99: 2.0}
_ENOUGH = {50: 0, 99: 200}


def view_figures(found: dict[str, Any]) -> dict[str, Row]:
    """For each crowd: milliseconds of processor time a second, and milliseconds from the deadline to the signal."""
    return {
        crowd: {**row["load"], "kills": len(row["late"]["with"]), **_late_ms(row["late"])}
        for crowd, row in found.items()
    }


def _late_ms(late: dict[str, Sequence[float]]) -> dict[str, float]:
    return {
        f"{name}_p{percent}_ms": percentile(late[name], percent) * 1e3
        for percent in _PERCENTS
        for name in ("without", "with")
    }


def view_table(figures: dict[str, Row]) -> Table:
    """What `unhang top` costs the watchdog."""
    table = table_of(
        "What one `unhang top` costs the watchdog that it looks at, at one look a second",
        "In turns with none. Workers that restart their timers twice a second. Processor time of the watchdog's whole "
        "process; from the deadline to the signal, as it tells, without evidence. The viewer itself wants a processor "
        "too.",
        ["workers", "CPU ms/s without", "with", "kills", "p50 ms without", "with", "ratio", "p99 ms", "with", "ratio"],
    )
    for crowd, row in figures.items():
        load = [number(row["without_ms_per_s"]), number(row["with_ms_per_s"])]
        table.add_row(f"{int(crowd):,}", *load, str(row["kills"]), *_late(row, 50), *_late(row, 99))
    return table


def _late(row: Row, percent: int) -> list[str]:
    without, with_ = row[f"without_p{percent}_ms"], row[f"with_p{percent}_ms"]
    return [number(without), number(with_), number(with_ / without)]


def of_views(figures: dict[str, Row]) -> list[Requirement]:
    """What a viewer may cost."""
    found = []
    for crowd, row in figures.items():
        beside = f"with a viewer, {int(crowd):,} workers"
        more = (row["with_ms_per_s"] - row["without_ms_per_s"]) / 10
        found.append(Requirement(f"CPU of the watchdog {beside}, over none", 1.0, "% of a core", more))
        for percent, most in _SLOWED.items():
            if row["kills"] >= _ENOUGH[percent]:
                ratio = row[f"with_p{percent}_ms"] / row[f"without_p{percent}_ms"]
                found.append(Requirement(f"deadline to signal, p{percent}, {beside}, over none", most, "times", ratio))
    return found
