"""What text and page say about a worker, and which workers they can say it of together."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import NamedTuple, TypeVar

from unhang.report.frames import telling_thread, user_frame
from unhang.report.model import Block, Departed, Frame, HangClass, Report, Worker

_Key = TypeVar("_Key", bound=Hashable)


class Cast(NamedTuple):
    """The parts that the workers play. ``gone`` are those of the culprits that had departed."""

    culprits: tuple[Worker, ...]
    gone: tuple[Departed, ...]
    victims: tuple[Worker, ...]
    suspects: tuple[Worker, ...]
    others: tuple[Worker, ...]


def cast(report: Report) -> Cast:
    """Who plays which part; ``suspects`` are those that have expired and that the verdict says nothing of."""
    blamed, pitied = set(report.verdict.culprits), set(report.verdict.victims)
    rest = [worker for worker in report.workers if worker.pid not in blamed | pitied]
    here = {worker.pid for worker in report.workers}
    return Cast(
        tuple(worker for worker in report.workers if worker.pid in blamed),
        tuple(worker for worker in report.departed if worker.pid in blamed - here),
        tuple(worker for worker in report.workers if worker.pid in pitied - blamed),
        tuple(worker for worker in rest if is_suspect(report, worker)),
        tuple(worker for worker in rest if not is_suspect(report, worker)),
    )


def is_suspect(report: Report, worker: Worker) -> bool:
    """Whether a worker that the verdict does not name is what the report is about all the same."""
    is_near = report.kind == "pretimeout" and worker.evidence is not None and bool(worker.blocks)
    return worker.expired or is_near or report.kind in ("asked", "command")


def block_of(worker: Worker | Departed) -> Block | None:
    """The block to name: the first that has expired, else the one that is about to, else the one entered last."""
    expired = [block for block in worker.blocks if block.expired]
    due = [block for block in worker.blocks if block.due]
    if found := [block for block in expired if block.due] or expired or due:
        return min(found, key=lambda block: block.deadline)
    return next(reversed(worker.blocks), None)


def deadline(block: Block) -> float:
    """When a block expires; 0 is the first expiry in one that has expired, and means unknown in another."""
    return block.deadline if block.deadline or block.expired else block.started + block.after


def seen_at(worker: Worker | Departed) -> float:
    """When it was looked at."""
    if isinstance(worker, Departed):
        return worker.at
    return worker.evidence.at if worker.evidence else 0.0


def running(worker: Worker | Departed, block: Block) -> float:
    """For how long the block had run when the worker was looked at, in seconds."""
    return max(0.0, seen_at(worker) - block.started)


def frame_of(worker: Worker) -> Frame | None:
    """The user's frame of the thread that tells most."""
    thread = telling_thread(worker.evidence)
    return user_frame(thread) if thread else None


class Site(NamedTuple):
    """Where a worker is, and how: two workers of the same site are told of in one line."""

    scope: str | None
    hang: HangClass | None
    function: str
    file: str
    line: int


def site(worker: Worker) -> Site:
    """The site of a worker."""
    block, frame = block_of(worker), frame_of(worker)
    command = None if worker.timers or worker.evidence is None else worker.evidence.process.command
    return Site(
        block.scope if block else command,
        worker.evidence.hang if worker.evidence else None,
        *(frame.function, frame.file, frame.line) if frame else ("", "", 0),
    )


def stack(worker: Worker) -> tuple[Hashable, ...]:
    """What two stacks must share to be shown as one; empty if there is none."""
    thread = telling_thread(worker.evidence)
    return tuple((each.function, each.file, each.line, each.native) for each in thread.frames) if thread else ()


def grouped(workers: Iterable[Worker], key: Callable[[Worker], _Key]) -> list[Sequence[Worker]]:
    """The workers of the same key together, in the order of the first of each."""
    groups: dict[_Key, list[Worker]] = {}
    for worker in workers:
        groups.setdefault(key(worker), []).append(worker)
    return list(groups.values())
