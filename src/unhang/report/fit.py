"""Makes a report smaller: what tells least goes first."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec.structs import replace

from unhang.report import about
from unhang.report.frames import telling_thread
from unhang.report.model import Block, Departed, Evidence, Report, Thread, Worker, encode

LEAST_BYTES = 8192


def fit(report: Report, most_bytes: int) -> Report:
    """The report itself if it fits, else one that does; its ``omitted`` says what was cut.

    Args:
        report: what is to be kept.
        most_bytes: what its JSON may take, at least 8192.

    Raises:
        ValueError: ``most_bytes`` is smaller.
    """
    if most_bytes < LEAST_BYTES:
        raise ValueError(f"a report may take {LEAST_BYTES} bytes at least, not {most_bytes}")
    cuts: list[str] = []
    smaller = report
    for said, cut in itertools.chain(_CUTS, _last_cuts()):
        if len(encode(smaller)) <= most_bytes:
            return smaller
        cuts.append(f"{said}, since a report has {most_bytes} bytes at most")
        smaller = replace(cut(smaller), omitted=(*report.omitted[: _kept(len(cuts))], *cuts))
    return smaller


def _kept(cuts: int) -> int:
    """How many of the lines that were there already are kept: none when it comes to the last."""
    return 50 if cuts <= len(_CUTS) else 0


def _with_evidence(change: Callable[[Worker, Evidence, bool], Evidence | None]) -> Callable[[Report], Report]:
    """A cut that changes the evidence about each worker; it is told whether that one is a culprit."""

    def cut(report: Report) -> Report:
        blamed = set(report.verdict.culprits)
        workers = (
            replace(worker, evidence=change(worker, worker.evidence, worker.pid in blamed))
            if worker.evidence
            else worker
            for worker in report.workers
        )
        return replace(report, workers=tuple(workers))

    return cut


def _telling_alone(evidence: Evidence) -> Evidence:
    telling = telling_thread(evidence)
    return replace(evidence, threads=() if telling is None else (telling,))


def _shallow(evidence: Evidence, most: int, *, source: bool = True) -> Evidence:
    def thread(each: Thread) -> Thread:
        frames = each.frames[:most] if source else tuple(replace(frame, source="") for frame in each.frames[:most])
        return replace(each, frames=frames)

    return replace(evidence, threads=tuple(thread(each) for each in evidence.threads))


def _few_blocks(report: Report) -> Report:
    """The block to name, two more that have expired, the last one of each worker, and its last steps."""

    def few(worker: Worker | Departed) -> tuple[Block, ...]:
        named = about.block_of(worker)
        expired = [block for block in worker.blocks if block.expired and block is not named][:2]
        kept = {id(block) for block in (named, *expired, *worker.blocks[-1:])}
        return tuple(block for block in worker.blocks if id(block) in kept)

    return replace(
        report,
        workers=tuple(
            replace(worker, blocks=few(worker), finished=worker.finished[:2], steps=worker.steps[-6:])
            for worker in report.workers
        ),
        departed=tuple(replace(worker, blocks=few(worker)) for worker in report.departed),
    )


# In this order, until it fits.
_CUTS: tuple[tuple[str, Callable[[Report], Report]], ...] = (
    ("standard error", _with_evidence(lambda _, found, __: replace(found, stderr=""))),
    ("sockets and children", _with_evidence(lambda _, found, __: replace(found, sockets=(), children=()))),
    (
        "all threads but one of those that are no culprits",
        _with_evidence(lambda _, found, blamed: found if blamed else _telling_alone(found)),
    ),
    ("what is deeper in a stack than 40 calls", _with_evidence(lambda _, found, __: _shallow(found, 40))),
    ("most blocks and steps", _few_blocks),
    ("all threads but one of the culprits", _with_evidence(lambda _, found, __: _telling_alone(found))),
    (
        "source, and what is deeper in a stack than 10 calls",
        _with_evidence(lambda _, found, __: _shallow(found, 10, source=False)),
    ),
    ("what is longer than 500 characters", lambda report: _short(report, 500)),
    ("evidence of those that are no culprits", _with_evidence(lambda _, found, blamed: found if blamed else None)),
)


def _last_cuts() -> itertools.chain[tuple[str, Callable[[Report], Report]]]:
    """Fewer and fewer workers, at last none, with shorter and shorter texts."""
    return itertools.chain(
        ((f"all workers but {most}", _Fewer(most)) for most in (4096, 1024, 256, 64, 16, 4, 1, 0)),
        (("everything but the headline", _bare),),
    )


@dataclass(frozen=True)
class _Fewer:
    """A cut to so many workers, and 100 characters of each text."""

    most: int

    def __call__(self, report: Report) -> Report:
        verdict = report.verdict
        fewer = replace(
            report,
            workers=report.workers[: self.most],
            departed=report.departed[: self.most],
            verdict=replace(
                verdict, culprits=verdict.culprits[: self.most + 1], victims=verdict.victims[: self.most + 1]
            ),
        )
        return _short(fewer, 100)


def _bare(report: Report) -> Report:
    return _short(
        replace(report, workers=(), departed=(), verdict=replace(report.verdict, culprits=(), victims=())), 60
    )


def _short(report: Report, most: int) -> Report:
    """All texts in it cut, and all lists of texts to 20."""
    builtin = _shortened(msgspec.to_builtins(report), most)
    return msgspec.convert(builtin, Report)


def _shortened(value: Any, most: int) -> Any:
    if isinstance(value, str):
        return value if len(value) <= most else f"{value[: most - 1]}…"
    if isinstance(value, dict):
        return {name: _shortened(each, most) for name, each in value.items()}
    if isinstance(value, list):
        if value and isinstance(value[0], str):
            value = value[:20]
        return [_shortened(each, most) for each in value]
    return value
