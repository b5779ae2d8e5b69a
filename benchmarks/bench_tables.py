"""The figures of the benchmarks as tables for a terminal; those of shared timers alone are in bench_shared_tables."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from rich.table import Table

Row = dict[str, Any]


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least ``percent`` of a hundred values do not exceed."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def number(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def table_of(title: str, caption: str, columns: Sequence[str], labels: int = 1) -> Table:
    """An empty table; the first ``labels`` columns are text."""
    table = Table(
        title=title, caption=caption, title_justify="left", caption_justify="left", caption_style="dim", min_width=100
    )
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place < labels else "right", no_wrap=place < labels)
    return table


def block_table(rows: Sequence[Row]) -> Table:
    """What a block costs the worker."""
    deepest = max(row["frames"] for row in rows)
    table = table_of(
        "Cost of a block, for the worker",
        "Medians of bursts in turns. / with: over an empty `with` on a new object. / setitimer: over setting and "
        "clearing one. CPU: of all threads of the worker, with what a queue's own thread does later. Floor: what the "
        "system takes for requests that are in the pipe when arming returns, for a queue and for a named pipe.",
        [
            "",
            "scope",
            "µs at the top",
            "/ with",
            "/ setitimer",
            f"µs {deepest} deep",
            "/ with",
            "/ setitimer",
            "CPU µs",
        ],
        labels=2,
    )
    unit = {row["client"]: row["us"] for row in rows if not row["library"]}
    deep = {(row["library"], row["client"], row["scope"]): row for row in rows if row["frames"] != 1}
    for row in rows:
        if row["frames"] == 1:
            below = deep.get((row["library"], row["client"], row["scope"]))
            cells = _costs(row, unit) + (_costs(below, unit) if below else ["", "", ""])
            table.add_row(f"{row['library']} {row['client']}".strip(), row["scope"], *cells, number(row["cpu_us"]))
    return table


def _costs(row: Row, unit: dict[str, float]) -> list[str]:
    """The cost in microseconds, and the two ratios."""
    cost = row["us"]
    return [number(cost), number(cost / unit["empty with"]), number(cost / unit["signal.setitimer"])]


def instructions_table(counts: dict[str, dict[str, float]]) -> Table:
    """How many instructions a block takes."""
    table = table_of(
        "Instructions of a block, for the worker",
        "Counted by callgrind, without the loop around each. What a system call does in the kernel is not counted.",
        ["", *counts, "over an empty `with`"],
    )
    first, *_ = counts.values()
    for name, count in first.items():
        each = (number(found[name]) if name in found else "" for found in counts.values())
        table.add_row(name, *each, number(count / first["empty with"]))
    return table


def learning_table(rows: Sequence[Row]) -> Table:
    """What learning costs a block."""
    table = table_of(
        "What it costs that durations are learned, for the worker",
        "Medians of bursts in turns, each way in a process of its own. An empty `with` tells how alike these are.",
        ["", "", "µs without", "with", "more"],
    )
    for row in rows:
        figures = (row["without"], row["with"], row["with"] - row["without"])
        table.add_row(row["library"], row["way"], *map(number, figures))
    return table


def lateness_figures(late: Sequence[float | None], cap: float) -> Row:
    """Milliseconds; None where more than ``cap`` seconds, since so many workers outlived them."""
    values = [math.inf if value is None else value for value in late]
    spots = {"p50_ms": percentile(values, 50), "p99_ms": percentile(values, 99), "max_ms": max(values)}
    return {
        "count": len(values),
        "in_time": sum(value < math.inf for value in values),
        "cap_s": cap,
        **{name: None if value == math.inf else value * 1e3 for name, value in spots.items()},
    }


def lateness_table(rows: dict[str, Row]) -> Table:
    """From the deadline to the worker's death."""
    table = table_of(
        "From the deadline to the worker's death, as its parent sees it",
        "Servers at their default intervals, timeouts of 50 to 200 ms. With evidence: as shared timers come, with "
        "SIGTERM behind the evidence, one worker at a time; all others: SIGKILL at the deadline. torch: a few samples, "
        "each waited for for a bounded time; its interval is 60 s for the queue, 10 s for the named pipe.",
        ["", "timers", "killed in time", "p50 ms", "p99 ms", "max ms"],
    )
    for name, row in rows.items():
        beyond = f"> {row['cap_s']:g} s"
        spots = [beyond if row[spot] is None else number(row[spot]) for spot in ("p50_ms", "p99_ms", "max_ms")]
        in_time = "" if name == "bare sleep" else str(row["in_time"])
        table.add_row(name, str(row["count"]), in_time, *spots)
    return table


def requests_table(rows: Sequence[Row]) -> Table:
    """What requests cost the server."""
    table = table_of(
        "The server's CPU time for requests that two workers send as fast as they can",
        "A pair is one arm and one disarm; medians of rounds in turns. torch's named pipe: with an interval of "
        "0.1 s and a pipe of 1 MiB, since at the defaults it is full before the server looks.",
        ["server", "µs a pair", "µs a request", "requests", "times the pipe was full"],
    )
    for row in rows:
        pair = row["us_per_pair"]
        counts = [_handled(row), str(row["pipe_full"])]
        table.add_row(f"{row['library']} {row['kind']}", number(pair), number(pair / 2), *counts)
    return table


def _handled(row: Row) -> str:
    if row["handled"] < row["sent"]:
        return f"capped: {row['handled']:,} of {row['sent']:,} in time"
    return f"{row['handled']:,}"


def live_table(rows: Sequence[Row]) -> Table:
    """What live timers cost the server."""
    counts = sorted({row["live"] for row in rows})
    table = table_of(
        "The server's CPU time against the number of live timers, in µs",
        "A pair: one worker arms and disarms every millisecond, so this includes the server's wake-ups. A turn: the "
        "loop once, with no request and nothing expired. torch's named pipe: its server looks every 0.1 s, as above. "
        "*: the server did not keep up, and was not waited for.",
        ["server", "", *(f"{count:,} live" for count in counts)],
        labels=2,
    )
    for name in dict.fromkeys(f"{row['library']} {row['kind']}" for row in rows):
        mine = {row["live"]: row for row in rows if f"{row['library']} {row['kind']}" == name}
        pairs = [number(row["us_per_pair"]) + "*" * (row["handled"] < row["sent"]) for row in mine.values()]
        table.add_row(name, "a pair", *pairs)
        table.add_row("", "a turn", *(number(row["us_per_turn"]) for row in mine.values()), end_section=True)
    return table


def import_table(rows: dict[str, list[float]]) -> Table:
    """What an import costs, from lists of milliseconds of whole processes."""
    table = table_of(
        "Start of a process, in ms of wall-clock time",
        "Medians of processes started in turns: `python -c` and these lines. The watchdog of the block runs already.",
        ["", "median", "over the bare interpreter"],
    )
    medians = {name: statistics.median(values) for name, values in rows.items()}
    bare = next(iter(medians.values()))
    for name, median in medians.items():
        table.add_row(name, number(median), "" if median == bare else number(median - bare))
    return table
