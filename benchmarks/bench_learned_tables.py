"""The figures of bench_learned as a table, and what is required of them."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from bench_requirements import Requirement
from bench_tables import Row, number, table_of

_OURS = "unhang"
_KINDS = {
    "recorded": "recorded on one machine",
    "made": "drawn at random",
    "beyond": "beyond what the margin is for, in no sum",
}


def learned_table(rows: Sequence[Row]) -> Table:
    """False kills and detection time of each rule on each series."""
    rules = list(rows[0]["rules"])
    table = table_of(
        "Learned budgets: false kills, and how long a hang goes on, in longest blocks of the series",
        "All rules learn from the same blocks, each when a process ends, and keep within a median block and ten times "
        "the longest one. The first block of a process is budgeted apart. 5 x longest, merged: as "
        "nvidia-resiliency-ext does it. After three false kills in a run somebody lets the rule begin anew.",
        ["series", "blocks", *(title for rule in rules for title in (f"{rule}: kills", "time"))],
    )
    for kind, title in _KINDS.items():
        same = [row for row in rows if row["kind"] == kind]
        if same:
            table.add_section()
            table.add_row(f"[dim]{title}[/dim]")
        for row in same:
            table.add_row(row["series"], f"{row['blocks']:,}", *_cells(row, rules))
        if len(same) > 1:
            table.add_row("[bold]sum[/bold]", *_sums(same, rules))
    table.add_section()
    table.add_row("[bold]sum of both[/bold]", *_sums(_counted(rows), rules))
    return table


def _cells(row: Row, rules: Sequence[str]) -> list[str]:
    found = [row["rules"][rule] for rule in rules]
    return [cell for each in found for cell in (f"{each['kills']:,}", number(each["detection"]))]


def _sums(rows: Sequence[Row], rules: Sequence[str]) -> list[str]:
    sums = [f"{sum(row['blocks'] for row in rows):,}"]
    for rule in rules:
        sums += [f"{_sum(rows, rule, 'kills'):,.0f}", number(_sum(rows, rule, "detection"))]
    return sums


def _counted(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["kind"] != "beyond"]


def _sum(rows: Sequence[Row], rule: str, name: str) -> float:
    return float(sum(row["rules"][rule][name] for row in rows))


def of_learned(rows: Sequence[Row]) -> list[Requirement]:
    """Ahead of the other rules in both, and behind the one in use in no series."""
    _, merged, *_ = others = list(rows[0]["rules"])
    counted = _counted(rows)
    requirements = []
    for other in others[1:]:
        for name, title in (("kills", "false kills"), ("detection", "detection time")):
            ratio = _sum(counted, _OURS, name) / max(1.0, _sum(counted, other, name))
            requirements.append(Requirement(f"learned budgets: {title}, over {other}", 0.99, "times", ratio))
    worse = sum(row["rules"][_OURS]["kills"] > row["rules"][merged]["kills"] for row in counted)
    requirements.append(Requirement(f"learned budgets: series with more false kills than {merged}", 0, "series", worse))
    return requirements
