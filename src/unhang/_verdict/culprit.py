"""Who is to blame for a hang: the worker that the others wait for.

The workers of a job run the same program, so what they have armed compares. A worker in a collective waits for all of
them: most of those that hang are victims. The culprit is whoever is gone, or stopped, or busy by itself, or has not
come as far as the others, or has gone elsewhere. Where the facts do not decide, nobody is blamed: a wrong culprit is
worse than none.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

from unhang.report.frames import is_library
from unhang.report.model import Block, Departed, Frame, HangClass, Socket, Sure, Verdict, Worker
from unhang.report.words import quoted, who

# What cannot go on by itself, whatever the others do.
_HALTED = {HangClass.STOPPED, HangClass.DEBUGGER, HangClass.DISK, HangClass.STARVED}
_ALONE = _HALTED | {
    HangClass.PYTHON_LOOP,
    HangClass.NATIVE_GIL,
    HangClass.LOCK,
    HangClass.PIPE,
    HangClass.CHILD,
    HangClass.SLEEP,
}
_WAITS = {HangClass.NETWORK}


def judge(workers: Sequence[Worker], departed: Sequence[Departed] = ()) -> Verdict:
    """The verdict about the workers of one job that hang; those that make progress are left out by the caller.

    Args:
        workers: those that have expired, and those that are as quiet.
        departed: those of the job that had left before.
    """
    # A process without a rank and a block is no worker of an SPMD job: a parent, say.
    workers = [worker for worker in workers if worker.expired or worker.blocks or worker.rank is not None]
    expired = [worker for worker in workers if worker.expired] or workers
    scene = _Scene(workers, expired, _missing(workers, departed))
    for rule in (_by_departure, _alone, _by_class, _by_progress, _by_lead, _by_place, _by_branch, _each_by_itself):
        verdict = rule(scene)
        if verdict is not None:
            return verdict
    return Verdict(why=_undecided(workers))


class _Scene(NamedTuple):
    """Who hangs, who of them has expired, and who had left before."""

    workers: Sequence[Worker]
    expired: Sequence[Worker]
    gone: Sequence[Departed]


def _missing(workers: Sequence[Worker], departed: Sequence[Departed]) -> list[Departed]:
    """Those that have left and were not started again, in this attempt of the job."""
    ranks = {worker.rank for worker in workers if worker.rank is not None}
    attempts = {worker.attempt for worker in workers}
    return [
        left
        for left in departed
        if left.attempt in attempts and left.rank is not None and left.rank not in ranks and _is_news(left, workers)
    ]


def _is_news(left: Departed, workers: Sequence[Worker]) -> bool:
    """Whether it left when the hang began, or shortly before: not if the others have gone on for long since."""
    if left.blocks:
        return True
    since = max((worker.idle for worker in workers), default=0.0)
    return left.at >= -2 * since - 5


def _by_departure(scene: _Scene) -> Verdict | None:
    """A rank is gone, and the others wait."""
    workers = scene.workers
    waiting = [worker for worker in workers if _class(worker) not in _ALONE]
    if not scene.gone or len(waiting) < len(workers):
        return None
    bad = [left for left in scene.gone if left.exit != "exit code 0"] or list(scene.gone)
    ends = " and ".join(sorted({left.exit or "it left" for left in bad}))
    return Verdict(
        culprits=tuple(left.pid for left in bad),
        victims=tuple(worker.pid for worker in scene.expired),
        sure=Sure.CERTAIN if all(left.exit and left.exit != "exit code 0" for left in bad) else Sure.LIKELY,
        why=f"{who(bad)} had ended before ({ends}), and the others wait",
    )


def _alone(scene: _Scene) -> Verdict | None:
    """Nobody else hangs."""
    workers = scene.workers
    if len(workers) != 1:
        return None
    sure = Sure.CERTAIN if not scene.gone else Sure.LIKELY
    return Verdict(culprits=(workers[0].pid,), sure=sure, why="no other worker of the job hangs")


def _by_class(scene: _Scene) -> Verdict | None:
    """Some wait for the network, and others could not answer."""
    workers = scene.workers
    waiting = [worker for worker in workers if _class(worker) in _WAITS]
    for classes, sure in ((_HALTED, Sure.CERTAIN), (_ALONE, Sure.LIKELY)):
        busy = [worker for worker in workers if _class(worker) in classes]
        if busy and waiting and len(busy) < len(workers):
            firm = sure is Sure.CERTAIN or _are_apart(busy, waiting)
            how = " and ".join(sorted({str(_class(worker)) for worker in busy}))
            return _verdict(
                busy,
                workers,
                Sure.CERTAIN if firm else Sure.LIKELY,
                f"{who(busy)} hangs by itself ({how}), and the others wait for the network",
            )
    return None


def _are_apart(some: Sequence[Worker], others: Sequence[Worker]) -> bool:
    """Whether these workers are in other blocks than those."""
    return not {_place(worker) for worker in some} & {_place(worker) for worker in others}


def _by_progress(scene: _Scene) -> Verdict | None:
    """Some have not come as far as the others: counted by the scopes that all of them know."""
    workers = scene.workers
    if any(_counts(worker) is None for worker in workers):
        return None
    for scopes in (_common(workers), _current(workers)):
        behind = [worker for worker in workers if any(_is_behind(worker, other, scopes) for other in workers)]
        ahead = [worker for worker in workers if worker not in behind]
        if not behind or len(behind) > len(ahead):
            continue
        if len(behind) == len(ahead) and not {_place(worker) for worker in behind} <= _known(ahead):
            continue  # they have gone where the others never were: either may be wrong
        if all(_is_behind(one, other, scopes) for one in behind for other in ahead):
            where = " and ".join(sorted({_where(worker) for worker in ahead}))
            return _verdict(
                behind,
                workers,
                Sure.CERTAIN if _are_apart(behind, ahead) else Sure.LIKELY,
                f"{who(behind)} has not come to where the others wait: {where}",
            )
    return None


def _by_lead(scene: _Scene) -> Verdict | None:
    """One has got ahead of all the others, which are even, though they depend on each other: it did not wait for them.

    Workers that depend on each other have connections to each other.
    """
    workers = scene.workers
    if any(_counts(worker) is None or _class(worker) not in _WAITS for worker in workers) or not _are_coupled(workers):
        return None
    scopes = _common(workers)
    ahead = [worker for worker in workers if all(worker is one or _is_behind(one, worker, scopes) for one in workers)]
    others = [worker for worker in workers if worker not in ahead]
    if len(ahead) != 1 or len(others) < 2 or any(_is_behind(a, b, scopes) for a in others for b in others):
        return None
    why = f"{who(ahead)} has got ahead of the others, which are even: it has not waited where they wait for it"
    return _verdict(ahead, workers, Sure.LIKELY, why)


def _are_coupled(workers: Sequence[Worker]) -> bool:
    """Whether each has a connection to another one of them."""
    ends = {(socket.remote, socket.local) for worker in workers for socket in _sockets(worker)}
    return all(any((socket.local, socket.remote) in ends for socket in _sockets(worker)) for worker in workers)


def _sockets(worker: Worker) -> Sequence[Socket]:
    found = () if worker.evidence is None else worker.evidence.sockets
    return [socket for socket in found if socket.remote]


def _counts(worker: Worker) -> dict[str, int] | None:
    """How often it has armed each scope; None if that is not known."""
    counts = {block.scope: block.count for block in (*worker.finished, *worker.blocks)}
    return None if 0 in counts.values() else counts


def _common(workers: Sequence[Worker]) -> set[str]:
    return set.intersection(*(set(_counts(worker) or ()) for worker in workers))


def _current(workers: Sequence[Worker]) -> set[str]:
    """The scopes that they are in, if they have others in common: so they run the same program."""
    if not _common(workers):
        return set()
    return {block.scope for worker in workers for block in worker.blocks}


def _is_behind(one: Worker, other: Worker, scopes: set[str]) -> bool:
    """Whether it has armed no scope more often, and one less often."""
    mine, theirs = _counts(one) or {}, _counts(other) or {}
    pairs = [(mine.get(scope, 0), theirs.get(scope, 0)) for scope in scopes]
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def _by_place(scene: _Scene) -> Verdict | None:
    """Most are in one block, and the others are not."""
    workers = scene.workers
    few, most = _split(workers, _place)
    if not few or not _are_alike(workers):
        return None
    return _verdict(
        few,
        workers,
        Sure.LIKELY,
        f"{who(few)} is {_where_all(few)}, and the others are {_where_all(most)}",
    )


def _are_alike(workers: Sequence[Worker]) -> bool:
    """Whether they run the same program, as far as their blocks tell: each knows a scope that most others know."""
    known: collections.Counter[str] = collections.Counter()
    for worker in workers:
        known.update(_scopes(worker))
    shared = {scope for scope, count in known.items() if count > len(workers) / 2}
    return all(_scopes(worker) & shared for worker in workers)


def _known(workers: Sequence[Worker]) -> set[str | None]:
    """The scopes that all of them have armed; and being in none."""
    return {None, *set.intersection(*(_scopes(worker) for worker in workers))}


def _scopes(worker: Worker) -> set[str]:
    return {block.scope for block in (*worker.blocks, *worker.finished)}


def _by_branch(scene: _Scene) -> Verdict | None:
    """In one block, most have called one thing, and the others another."""
    workers = scene.workers
    calls = {worker.pid: _branch(worker, workers) for worker in workers}
    if None in calls.values():
        return None
    few, most = _split(workers, lambda worker: calls[worker.pid])
    if not few:
        return None
    here, there = calls[few[0].pid], calls[most[0].pid]
    assert here is not None and there is not None  # noqa: S101, PT018 - for the type checker: see above
    return _verdict(few, workers, Sure.LIKELY, f"{who(few)} has gone to {here}, and the others to {there}")


def _branch(worker: Worker, workers: Sequence[Worker]) -> str | None:
    """Where this worker's stack parts from the others' first; None if they do not, or only within one call.

    A collective of several steps has its ranks in different lines of the same function. Only another function, called
    from another line of the program, in another file, is another branch.
    """
    stacks = [_outermost_first(other) for other in workers]
    if not all(stacks):
        return None
    depth = 0
    while all(len(stack) > depth for stack in stacks) and len({_at(stack[depth]) for stack in stacks}) == 1:
        depth += 1
    mine = _outermost_first(worker)
    if not all(len(stack) > depth + 1 for stack in stacks):
        return None
    parted, called = {stack[depth].file for stack in stacks}, {stack[depth + 1].function for stack in stacks}
    if len({stack[depth].function for stack in stacks}) != 1 or len(parted) != 1 or len(called) == 1:
        return None
    if is_library(mine[depth].file) or any(stack[depth + 1].file == stack[depth].file for stack in stacks):
        return None
    return f"{mine[depth].file}:{mine[depth].line} ({mine[depth + 1].function})"


def _outermost_first(worker: Worker) -> list[Frame]:
    if worker.evidence is None or not worker.evidence.threads:
        return []
    return [frame for frame in reversed(worker.evidence.threads[0].frames) if not frame.native]


def _at(frame: Frame) -> tuple[str, int]:
    return frame.file, frame.line


def _each_by_itself(scene: _Scene) -> Verdict | None:
    """Nobody waits for anybody."""
    workers = scene.workers
    # Ranks that poll for each other look busy, each by itself.
    classes = _ALONE if all(worker.rank is None for worker in workers) else _HALTED
    if not all(_class(worker) in classes for worker in workers):
        return None
    return Verdict(
        culprits=tuple(worker.pid for worker in scene.expired),
        sure=Sure.LIKELY,
        why=f"{who(scene.expired)} hang each by itself",
    )


def _split(workers: Sequence[Worker], key: Callable[[Worker], Hashable]) -> tuple[list[Worker], list[Worker]]:
    """Those that differ from more than half of all, and these; nobody if there is no such majority."""
    groups: dict[Hashable, list[Worker]] = {}
    for worker in workers:
        groups.setdefault(key(worker), []).append(worker)
    most = max(groups.values(), key=len)
    if len(most) <= len(workers) / 2 or len(groups) == 1:
        return [], most
    return [worker for worker in workers if worker not in most], most


def _verdict(culprits: Sequence[Worker], workers: Sequence[Worker], sure: Sure, why: str) -> Verdict:
    blamed = tuple(worker.pid for worker in culprits)
    return Verdict(
        culprits=blamed,
        victims=tuple(worker.pid for worker in workers if worker.pid not in blamed),
        sure=sure,
        why=why,
    )


def _class(worker: Worker) -> HangClass:
    return HangClass.UNKNOWN if worker.evidence is None else worker.evidence.hang


def _innermost(worker: Worker) -> Block | None:
    return max(worker.blocks, key=lambda block: block.started, default=None)


def _place(worker: Worker) -> str | None:
    block = _innermost(worker)
    return None if block is None else block.scope


def _where(worker: Worker) -> str:
    place = _place(worker)
    return "in no block" if place is None else f"in {quoted(place)}"


def _where_all(workers: Sequence[Worker]) -> str:
    return " and ".join(sorted({_where(worker) for worker in workers}))


def _undecided(workers: Sequence[Worker]) -> str:
    classes = " and ".join(sorted({str(_class(worker)) for worker in workers}))
    return f"{who(workers)} hang alike, {_where_all(workers)} ({classes}): nothing tells who kept the others"
