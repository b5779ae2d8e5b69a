"""What evidence costs, as tables for a terminal."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from bench_tables import number, table_of


def evidence_table(found: dict[str, Any]) -> Table:
    """From the deadline to the first signal, with evidence and without."""
    table = table_of(
        "From the deadline to the first signal, in ms",
        "Medians, as the watchdog tells. Without evidence: SIGKILL at the deadline. With it: as shared timers come, "
        f"SIGTERM behind the evidence and its report. A job: {found['ranks']} ranks that expire together; all are "
        "looked into before the first of them is signalled.",
        ["a worker hangs", "without evidence", "with it"],
    )
    ways = found["without"], found["with"]
    for kind in found["with"]["single_ms_by_kind"]:
        table.add_row(kind, *(number(way["single_ms_by_kind"][kind]) for way in ways))
    table.add_section()
    for name, figure in (("all of these, median", "median"), ("p90", "p90"), ("the latest", "most")):
        table.add_row(name, *(number(way["single_ms"][figure]) for way in ways))
    table.add_section()
    for name in ("first", "last"):
        table.add_row(f"a job, {name} signal", *(number(way["job_ms"][name]) for way in ways))
    return table


def siblings_table(found: dict[str, Any]) -> Table:
    """What workers that are well notice of it."""
    table = table_of(
        "Blocks of workers that are well, while evidence about one of their job is taken, in ms",
        "Beside blocks of the same workers in the tenth of a second before. They go on meanwhile; what they notice is "
        "that the watchdog wants a processor too.",
        ["a sibling that", "blocks", "median", "before", "ratio", "mean", "before", "ratio", "p90 ratio"],
    )
    for name, row in found["with"]["beside"].items():
        if "median_ms" not in row:
            table.add_row(name, str(row["blocks"]))
            continue
        cells = [
            number(row[f"{prefix}{of}_{unit}"])
            for of in ("median", "mean")
            for prefix, unit in (("", "ms"), ("quiet_", "ms"), ("", "ratio"))
        ]
        table.add_row(name, str(row["blocks"]), *cells, number(row["p90_ratio"]))
    return table
