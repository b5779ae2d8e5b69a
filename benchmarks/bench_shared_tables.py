"""The figures of shared timers alone as tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from bench_anatomy import WHOLE, anatomy
from bench_channel import PLAIN
from bench_tables import Row, number, percentile, table_of

_LATE = {
    "signal": "the signal, as the watchdog tells",
    "death": "the death, as the parent sees it",
    "own death": "from a parent's own SIGKILL to the death",
    "bare sleep": "a bare time.sleep()",
}


def anatomy_table(steps: dict[str, float], blocks: Sequence[Row]) -> Table:
    """What the time of a block is spent on."""
    whole = {
        row["scope"]: row["us"]
        for row in blocks
        if (row["library"], row["client"], row["frames"]) == (PLAIN, "shared", 1)
    }
    table = table_of(
        "What the time of a block of shared timers is spent on, in µs",
        "Medians of snippets on the same objects, in turns with the blocks above; the loop around each is left out.",
        ["", "named", "unnamed"],
    )
    for step, *costs in anatomy(steps, whole["named"], whole["unnamed"]):
        if step == WHOLE:
            table.add_section()
        table.add_row(step, *("" if cost is None else f"{cost:.3f}" for cost in costs))
    return table


def paces_table(paces: dict[str, Row]) -> Table:
    """What a single worker costs the watchdog."""
    table = table_of(
        "The watchdog's CPU time against what its only worker does",
        "Medians of windows in turns. Timers of 60 s, but for the last. 1 ms/s is 0.1 % of a core.",
        ["the worker arms", "blocks/s", "turns of the loop/s", "CPU ms/s"],
    )
    for name, row in paces.items():
        table.add_row(name, number(row["blocks_per_s"]), number(row["turns_per_s"]), f"{row['cpu_ms_per_s']:.3f}")
    return table


def crowd_table(found: dict[str, Any]) -> Table:
    """What many workers cost the watchdog."""
    table = table_of(
        "The watchdog's CPU time against the number of workers",
        f"Each worker is a connection and a page of its own with {found['timers_each']} idle timers; "
        "they share a few processes. 10 ms/s is 1 % of a core.",
        ["workers", "turns of the loop/s", "CPU ms/s"],
    )
    for name, row in found["cpu"].items():
        table.add_row(name, number(row["turns_per_s"]), f"{row['cpu_ms_per_s']:.2f}")
    return table


def crowd_lateness(late: dict[str, list[float]]) -> dict[str, Row]:
    """Milliseconds from the deadline."""
    return {
        name: {
            "count": len(seconds),
            "p50_ms": percentile(seconds, 50) * 1e3,
            "p99_ms": percentile(seconds, 99) * 1e3,
            "max_ms": max(seconds) * 1e3,
        }
        for name, seconds in late.items()
    }


def crowd_lateness_table(found: dict[str, Any], late: dict[str, Row]) -> Table:
    """How late kills are among many workers."""
    table = table_of(
        f"From the deadline, with {found['beside']['timers']:,} idle timers of {found['beside']['workers']:,} others",
        "Without evidence. Timeouts of 50 to 200 ms, three real workers at a time. Below the line what is no doing of "
        "the watchdog.",
        ["to", "timers", "p50 ms", "p99 ms", "max ms"],
    )
    for name, row in late.items():
        if name == "own death":
            table.add_section()
        table.add_row(_LATE[name], str(row["count"]), *(number(row[spot]) for spot in ("p50_ms", "p99_ms", "max_ms")))
    return table


def memory_table(found: dict[str, Any]) -> Table:
    """What a worker occupies."""
    table = table_of(
        f"Memory of one more worker with {found['timers_each']} timers, in KiB",
        "Differences between many workers and few. Shared: the page, which both map and which is there once. Fair "
        "share: PSS, with a half of each page. Without what the kernel keeps for descriptors and sockets.",
        ["in the process of", "resident", "of that shared", "fair share"],
    )
    for side, sizes in found["memory"]["each"].items():
        table.add_row(f"the {side}", *(number(sizes[kind] / 1024) for kind in ("resident", "shared", "fair_share")))
    return table


def many_table(found: dict[str, Any]) -> Table:
    """Many timers in one process."""
    many = found["many"]
    table = table_of(
        "Many timers at once in one process",
        "Medians of a few processes. Arming: nested blocks, each with a slot that was never used. The kill: from the "
        "deadline of one more timer, without evidence.",
        ["seen armed by the watchdog", "µs to arm one", "ms to the signal", "ms to the death"],
    )
    late = (number(many[name] / 1e3) for name in ("signal_us", "death_us"))
    table.add_row(f"{many['live']:,}", number(many["arm_us"]), *late)
    return table
