"""What is required of unhang, and whether it is met."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench_lateness import AS_IT_COMES
from bench_tables import Row

_DROP_IN_US = 2.0
_DROP_IN_MS = 20.0
_EVIDENCE_MS = 50.0
_LEARNING_US = 0.25
# In these milliseconds the watchdog and what reads stacks for it want a processor: on few of them, siblings wait.
_SLOWED = 1.3


@dataclass(frozen=True)
class Requirement:
    """What is required of unhang, and what was found; ``figure`` is None when it was beyond measuring."""

    name: str
    limit: float
    unit: str
    figure: float | None
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Whether the figure is on the right side of the limit."""
        if self.figure is None:
            return False
        return self.figure >= self.limit if self.at_least else self.figure <= self.limit

    def __str__(self) -> str:
        found = "too much to measure" if self.figure is None else f"{round(self.figure, 2):,g} {self.unit}"
        bound = f"{'at least' if self.at_least else 'at most'} {self.limit:,g} {self.unit}"
        return f"{'met' if self.met else 'NOT MET'}: {self.name}: {found} ({bound})"


def of_blocks(rows: Sequence[Row]) -> list[Requirement]:
    """What a compiled block may cost, at the top and deep in the stack."""
    peers = {row["client"]: row["us"] for row in rows if not row["library"]}
    empty, setitimer = peers["empty with"], peers["signal.setitimer"]
    named, unnamed = (_worst(rows, "shared", scope) for scope in ("named", "unnamed"))
    beat = _worst(rows, "shared", "a beat()")
    return [
        _of_contract(rows),
        Requirement("a block, named, however deep, over an empty `with` on a new object", 0.8, "times", named / empty),
        Requirement("a block, unnamed, however deep, over the same", 1.0, "times", unnamed / empty),
        Requirement("a beat() of a heartbeat, over the same", 0.5, "times", beat / empty),
        Requirement("a block, over signal.setitimer", 0.3, "times", max(named, unnamed) / setitimer),
        *_of_torch(rows, unnamed, 500.0),
    ]


def of_learning(rows: Sequence[Row]) -> list[Requirement]:
    """What learning may cost."""
    return [
        Requirement(
            f"learning, {row['way']}, {row['library']}", _LEARNING_US, "µs a block", row["with"] - row["without"]
        )
        for row in rows
        if row["way"] == "block"
    ]


def of_plain_blocks(rows: Sequence[Row]) -> list[Requirement]:
    """What a block in plain Python may cost."""
    setitimer = next(row["us"] for row in rows if row["client"] == "signal.setitimer")
    named, unnamed = (_worst(rows, "shared", scope) for scope in ("named", "unnamed"))
    return [
        _of_contract(rows),
        Requirement("a block, named, however deep, over signal.setitimer", 1.5, "times", named / setitimer),
        Requirement("a block, unnamed, however deep, over signal.setitimer", 2.0, "times", unnamed / setitimer),
        *_of_torch(rows, unnamed, 150.0),
    ]


def _worst(rows: Sequence[Row], client: str, scope: str) -> float:
    return float(max(row["us"] for row in rows if _is(row, "unhang", client, scope)))


def _of_contract(rows: Sequence[Row]) -> Requirement:
    cost = _worst(rows, "do-nothing", "unnamed")
    return Requirement("a block with a contract client that does nothing, unnamed", _DROP_IN_US, "µs", cost)


def _of_torch(rows: Sequence[Row], unnamed: float, times: float) -> list[Requirement]:
    torchs = [row["us"] for row in rows if _is(row, "torch", "queue", "unnamed")]
    if not torchs:
        return []
    ratio = min(torchs) / unnamed
    return [Requirement("torch's unnamed block over unhang's", times, "times", ratio, at_least=True)]


def _is(row: Row, library: str, client: str, scope: str) -> bool:
    return (row["library"], row["client"], row["scope"]) == (library, client, scope)


def of_lateness(rows: dict[str, Row]) -> list[Requirement]:
    """How late each server may kill at its default interval, without the time for evidence."""
    return [
        Requirement(f"lateness of the kill, p99, {name}", _DROP_IN_MS, "ms", row["p99_ms"])
        for name, row in rows.items()
        if name.startswith("unhang") and name != AS_IT_COMES
    ]


def of_evidence(found: dict[str, Any]) -> list[Requirement]:
    """What evidence may cost: time before the first signal, and time of workers of the same job that are well."""
    siblings = [
        Requirement(
            f"a block of a sibling that {name} while evidence is taken, median, over before",
            _SLOWED,
            "times",
            row.get("median_ratio"),
        )
        for name, row in found["with"]["beside"].items()
    ]
    added = Requirement(
        "evidence: added between deadline and first signal, median", _EVIDENCE_MS, "ms", found["added_ms"]
    )
    return [added, *siblings]


def of_crowds(found: dict[str, Any], late: dict[str, Row]) -> list[Requirement]:
    """What many timers and many workers may cost."""
    thousand = max(row["cpu_ms_per_s"] for name, row in found["cpu"].items() if name.startswith("1,000"))
    return [
        *_of_paces({name: row["cpu_ms_per_s"] / 10 for name, row in found["paces"].items()}),
        Requirement("CPU of the watchdog for 1,000 workers", 1.0, "% of a core", thousand / 10),
        Requirement("deadline to signal among 1,000 workers, p50", 0.5, "ms", late["signal"]["p50_ms"]),
        Requirement("deadline to signal among 1,000 workers, p99", 5.0, "ms", late["signal"]["p99_ms"]),
        Requirement("timers at once in one process", 10_000, "timers", found["many"]["live"], at_least=True),
        Requirement("workers on one watchdog", 2_000, "workers", found["workers"], at_least=True),
    ]


def _of_paces(percents: dict[str, float]) -> list[Requirement]:
    """What a worker may cost that arms more timers; short ones need more looks, but not more for more of them."""
    once, *others = percents
    return [
        Requirement(
            f"CPU of the watchdog for a worker with {name}, over {once}",
            0.5 if "of 0.1 s" in name else 0.1,
            "% of a core",
            percents[name] - percents[once],
        )
        for name in others
    ]


def of_imports(bare: Sequence[float], ours: Sequence[float]) -> list[Requirement]:
    """How much longer a worker may take to start, from milliseconds of whole processes."""
    more = statistics.median(ours) - statistics.median(bare)
    return [Requirement("import unhang, over a bare interpreter", 15.0, "ms", more)]
