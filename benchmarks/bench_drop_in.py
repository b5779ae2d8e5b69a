"""The drop-in beside torch, cell by cell: a requirement for each table, of the cell in which torch is nearest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from bench_channel import KINDS
from bench_requirements import Requirement

Row = dict[str, Any]
_BLOCKS = {"us": "the caller's time", "cpu_us": "the worker's processor time"}
_SERVERS = {"us_per_pair": "the server's processor time a pair", "us_per_turn": "its time a turn"}


def of_drop_in_blocks(rows: Sequence[Row]) -> list[Requirement]:
    """What a block over the queue or the named pipe may cost: no more than torch's."""
    return list(_worst(rows, ("scope", "frames"), "client", _BLOCKS))


def of_drop_in_servers(found: dict[str, Sequence[Row]]) -> list[Requirement]:
    """What requests and live timers may cost the server: no more than torch's."""
    flat_out = _worst(found["flat_out"], (), "kind", {"us_per_pair": f"{_SERVERS['us_per_pair']}, flat out"})
    return [*flat_out, *_worst(found["live"], ("live",), "kind", _SERVERS)]


def _worst(rows: Sequence[Row], axes: Sequence[str], kind_of: str, measures: dict[str, str]) -> Iterable[Requirement]:
    """For each kind and measure, the largest ratio of ours to torch's; nothing where torch was not measured."""
    cells = {(row["library"], row[kind_of], *(row[axis] for axis in axes)): row for row in rows}
    for kind in KINDS:
        pairs = [(cells[key], torchs) for key, torchs in _beside(cells, kind)]
        for measure, name in measures.items() if pairs else ():
            ratio = max(ours[measure] / torchs[measure] for ours, torchs in pairs)
            yield Requirement(f"drop-in, {kind}: {name}, over torch's, the worst cell", 1.0, "times", ratio)


def _beside(cells: dict[tuple[Any, ...], Row], kind: str) -> list[tuple[tuple[Any, ...], Row]]:
    """The keys of our cells for which there is one of torch's, and that one."""
    ours = [key for key in cells if key[0] == "unhang" and key[1] == kind]
    return [(key, cells["torch", *key[1:]]) for key in ours if ("torch", *key[1:]) in cells]
