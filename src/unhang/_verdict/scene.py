"""What the rules about culprits look at: who hangs, what each waits for, how far each has come."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import NamedTuple

from unhang.report.model import Block, Departed, HangClass, Worker

_OF_CLASS = {
    HangClass.STOPPED: "halted",
    HangClass.DEBUGGER: "halted",
    HangClass.DISK: "halted",
    HangClass.STARVED: "halted",
    HangClass.PYTHON_LOOP: "busy",
    HangClass.NATIVE_GIL: "busy",
    HangClass.SLEEP: "idle",
    HangClass.LOCK: "idle",
    HangClass.CHILD: "idle",
    HangClass.PIPE: "idle",
}
COLLECTIVE = "torch.distributed"


class Kind(enum.Enum):
    """What a worker's hang says about the others."""

    HALTED = "halted"  # it cannot go on, whatever the others do
    BUSY = "busy"  # it is at work
    IDLE = "idle"  # it waits for something of its own; or for the others, in a way of its own
    FOR_RANKS = "for ranks"  # it waits for other workers
    FOR_OTHERS = "for others"  # it waits for somebody who is none of them, as far as is known
    NETWORK = "network"  # it waits for somebody
    UNKNOWN = "unknown"


class Scene(NamedTuple):
    """A hang.

    Attributes:
        workers: who hangs.
        expired: those of them that have expired.
        gone: those of the job that had left before, and are missing.
        progressing: how many others of the job make progress.
    """

    workers: Sequence[Worker]
    expired: Sequence[Worker]
    gone: Sequence[Departed]
    progressing: int

    def are_ranks(self) -> bool:
        """Whether they are ranks of one job, and so run the same program, as far as is known."""
        ranks = [worker.rank for worker in self.workers]
        return None not in ranks and len(set(ranks)) == len(ranks)

    def kinds(self, *kinds: Kind) -> list[Worker]:
        """The workers of these kinds."""
        return [worker for worker in self.workers if self.kind(worker) in kinds]

    def kind(self, worker: Worker) -> Kind:
        """What a worker's hang says."""
        hang = hang_of(worker)
        if hang is not HangClass.NETWORK:
            return Kind(_OF_CLASS.get(hang, "unknown"))
        waits_for = worker.evidence.waits_for if worker.evidence else ()
        if not waits_for:
            return Kind.NETWORK
        return Kind.FOR_RANKS if {COLLECTIVE, *self.addresses()} & set(waits_for) else Kind.FOR_OTHERS

    def addresses(self) -> set[str]:
        """Where the workers can be reached. One of them may serve the others, and itself, in a thread."""
        found = [worker.evidence for worker in self.workers if worker.evidence is not None]
        return {socket.local for evidence in found for socket in evidence.sockets}


def hang_of(worker: Worker) -> HangClass:
    """The class of its hang."""
    return HangClass.UNKNOWN if worker.evidence is None else worker.evidence.hang


def place(worker: Worker) -> str | None:
    """The block that it entered last; None if it is in none."""
    block: Block | None = max(worker.blocks, key=lambda block: block.started, default=None)
    return None if block is None else block.scope


def counts(worker: Worker) -> dict[str, int] | None:
    """How often it has armed each scope; None if that is not known."""
    found = {block.scope: block.count for block in (*worker.finished, *worker.blocks)}
    return None if 0 in found.values() else found


def scopes(worker: Worker) -> set[str]:
    """The scopes that it is known to have armed."""
    return {block.scope for block in (*worker.blocks, *worker.finished)}


def is_behind(one: Worker, other: Worker, among: set[str]) -> bool:
    """Whether it has armed none of these scopes more often, and one less often."""
    mine, theirs = counts(one) or {}, counts(other) or {}
    pairs = [(mine.get(scope, 0), theirs.get(scope, 0)) for scope in among]
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def common(workers: Sequence[Worker]) -> set[str]:
    """The scopes that all of them have armed."""
    return set.intersection(*(scopes(worker) for worker in workers))
