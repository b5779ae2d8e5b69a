"""Who is to blame for a hang: the worker that the others wait for.

The workers of a job run the same program, so what they have armed compares. A worker in a collective waits for all of
them: most of those that hang are victims. The culprit is whoever is gone, or stopped, or busy by itself, or has not
come as far as the others, or has gone elsewhere. Where the facts do not decide, nobody is blamed: a wrong culprit is
worse than none.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from unhang._verdict import reasons
from unhang._verdict.branches import branch
from unhang._verdict.scene import Kind, Scene, common, counts, is_behind, place, scopes
from unhang.report.model import Departed, Sure, Verdict, Worker

_CLEAN = "exit code 0"


def judge(workers: Sequence[Worker], departed: Sequence[Departed] = (), progressing: int = 0) -> Verdict:
    """The verdict about the workers of one job that hang; those that make progress are left out by the caller.

    Args:
        workers: those that have expired, and those that are as quiet.
        departed: those of the job that had left before.
        progressing: how many make progress.
    """
    # A process without a rank and a block is no worker of an SPMD job: a parent, say.
    workers = [worker for worker in workers if worker.expired or worker.blocks or worker.rank is not None]
    if not workers:
        return Verdict(why="nobody hangs")
    expired = [worker for worker in workers if worker.expired] or workers
    scene = Scene(workers, expired, _missing(workers, departed), progressing)
    for rule in (*_RULES_FOR_RANKS, _each_by_itself) if scene.are_ranks() else (_each_by_itself,):
        verdict = rule(scene)
        if verdict is not None:
            return verdict
    return Verdict(why=reasons.undecided(scene))


def _missing(workers: Sequence[Worker], departed: Sequence[Departed]) -> list[Departed]:
    """Those that have left by themselves and were not started again, in this attempt of the job."""
    ranks = {worker.rank for worker in workers}
    attempts = {worker.attempt for worker in workers}
    return [
        left
        for left in departed
        if left.attempt in attempts and left.rank is not None and left.rank not in ranks
        if not left.by_unhang and _is_news(left, workers)
    ]


def _is_news(left: Departed, workers: Sequence[Worker]) -> bool:
    """Whether it left when the hang began, or shortly before: not if the others have gone on for long since."""
    if left.blocks:
        return True
    return left.at >= -_quiet_for(workers) - 5


def _quiet_for(workers: Sequence[Worker]) -> float:
    """Seconds since the first of them went quiet."""
    return max((worker.idle for worker in workers), default=0.0)


def _by_departure(scene: Scene) -> Verdict | None:
    """A rank is gone, and the others wait."""
    waiting = scene.kinds(Kind.FOR_RANKS, Kind.NETWORK, Kind.FOR_OTHERS)
    if not scene.gone or len(waiting) < len(scene.workers):
        return None
    bad = [left for left in scene.gone if left.exit not in ("", _CLEAN)]
    elsewhere = scene.kinds(Kind.FOR_OTHERS)
    if len(elsewhere) == len(scene.workers) or (not bad and not scene.kinds(Kind.FOR_RANKS)):
        return None  # it may have been done, and the others wait for somebody else
    if elsewhere and all(left.at > 1 - _quiet_for(scene.workers) for left in scene.gone):
        return None  # it may have given up because of the hang
    blamed = bad or scene.gone
    return Verdict(
        culprits=tuple(left.pid for left in blamed),
        victims=tuple(worker.pid for worker in scene.expired),
        sure=Sure.CERTAIN if bad else Sure.LIKELY,
        why=reasons.departed(blamed),
    )


def _alone(scene: Scene) -> Verdict | None:
    """Nobody else hangs."""
    if len(scene.workers) != 1:
        return None
    worker = scene.workers[0]
    kind = scene.kind(worker)
    is_firm = kind in (Kind.HALTED, Kind.BUSY)
    if kind in (Kind.FOR_RANKS, Kind.FOR_OTHERS, Kind.NETWORK) or (scene.progressing and not is_firm):
        # It may wait for a rank on another host, or for one that goes round in circles.
        return None
    sure = Sure.CERTAIN if is_firm and not scene.gone else Sure.LIKELY
    return Verdict(culprits=(worker.pid,), sure=sure, why=reasons.only_one(worker))


def _by_class(scene: Scene) -> Verdict | None:
    """Some wait for the others, and some could not answer."""
    halted, busy, idle = (scene.kinds(kind) for kind in (Kind.HALTED, Kind.BUSY, Kind.IDLE))
    waiting = scene.kinds(Kind.FOR_RANKS, Kind.NETWORK)
    half = len(scene.workers) / 2
    if halted and waiting:
        return _by_itself(scene, halted, Sure.CERTAIN)
    if scene.kinds(Kind.FOR_OTHERS):
        return None  # that may be what all others wait for, each in a way of its own
    if busy and waiting and len(busy) <= half:
        return _by_itself(scene, busy, Sure.CERTAIN if _are_apart(busy, waiting) else Sure.LIKELY)
    # Whoever sleeps or waits for a lock may do that because of another one: only if it is known who waits for whom.
    if idle and scene.kinds(Kind.FOR_RANKS) and len(idle) <= half:
        return _by_itself(scene, idle, Sure.LIKELY)
    return None


def _by_itself(scene: Scene, culprits: list[Worker], sure: Sure) -> Verdict:
    return _verdict(culprits, scene.workers, sure, reasons.by_itself(scene, culprits))


def _are_apart(some: Sequence[Worker], others: Sequence[Worker]) -> bool:
    """Whether these workers are in other blocks than those."""
    return not {place(worker) for worker in some} & {place(worker) for worker in others}


def _by_progress(scene: Scene) -> Verdict | None:
    """Some have not come as far as the others: counted by the scopes that all of them know."""
    workers = scene.workers
    if any(counts(worker) is None for worker in workers):
        return None
    for among in (common(workers), _current(workers)):
        behind = [worker for worker in workers if any(is_behind(worker, other, among) for other in workers)]
        ahead = [worker for worker in workers if worker not in behind]
        if not behind or len(behind) > len(ahead) or _are_even(behind, ahead):
            continue
        if len(behind) == len(ahead) and not {place(worker) for worker in behind} <= _known(ahead):
            continue  # they have gone where the others never were: either may be wrong
        if any(scene.kind(worker) is Kind.FOR_OTHERS for worker in ahead):
            continue  # the others do not wait for them
        if all(is_behind(one, other, among) for one in behind for other in ahead):
            sure = Sure.CERTAIN if _are_apart(behind, ahead) else Sure.LIKELY
            return _verdict(behind, workers, sure, reasons.behind(behind, ahead, among))
    return None


def _are_even(some: Sequence[Worker], others: Sequence[Worker]) -> bool:
    """Whether all are in one block, for the same time round: what they did before does not matter any more."""
    places = {place(worker) for worker in (*some, *others)}
    if len(places) != 1 or None in places:
        return False
    return len({(counts(worker) or {}).get(next(iter(places)) or "") for worker in (*some, *others)}) == 1


def _current(workers: Sequence[Worker]) -> set[str]:
    """The scopes that they are in, if they have others in common: so they run the same program."""
    if not common(workers):
        return set()
    return {block.scope for worker in workers for block in worker.blocks}


def _known(workers: Sequence[Worker]) -> set[str | None]:
    """The scopes that all of them have armed; and being in none."""
    return {None, *common(workers)}


def _by_lead(scene: Scene) -> Verdict | None:
    """One has got ahead of all the others, which are even, though all wait for each other.

    It may have skipped what they wait in; the first stage of a pipeline is always ahead. So it is named, not blamed.
    """
    workers = scene.workers
    if any(counts(worker) is None or scene.kind(worker) is not Kind.FOR_RANKS for worker in workers):
        return None
    among = common(workers)
    ahead = [worker for worker in workers if all(worker is one or is_behind(one, worker, among) for one in workers)]
    others = [worker for worker in workers if worker not in ahead]
    if len(ahead) != 1 or len(others) < 2 or any(is_behind(a, b, among) for a in others for b in others):
        return None
    return Verdict(why=reasons.leads(ahead[0], others, among))


def _by_place(scene: Scene) -> Verdict | None:
    """Most are in one block, and the others are not."""
    few, most = _split(scene.workers, place)
    if not few or not _are_alike(scene.workers):
        return None
    return _verdict(few, scene.workers, Sure.LIKELY, reasons.elsewhere(few, most))


def _are_alike(workers: Sequence[Worker]) -> bool:
    """Whether they run the same program, as far as their blocks tell: each knows a scope that most others know."""
    known = [scope for worker in workers for scope in scopes(worker)]
    shared = {scope for scope in known if known.count(scope) > len(workers) / 2}
    return all(scopes(worker) & shared for worker in workers)


def _by_branch(scene: Scene) -> Verdict | None:
    """In one block, most have called one thing, and the others another.

    The program may have taken a wrong turn, or have its ranks do different things: so they are named, not blamed.
    """
    calls = {worker.pid: branch(worker, scene.workers) for worker in scene.workers}
    few, most = _split(scene.workers, lambda worker: calls[worker.pid])
    here, there = (calls[group[0].pid] if group else None for group in (few, most))
    if here is None or there is None:
        return None
    return Verdict(why=reasons.branched(few, most, here, there))


def _each_by_itself(scene: Scene) -> Verdict | None:
    """Nobody waits for anybody."""
    if not scene.workers:
        return None
    # Ranks that poll for each other look busy, each by itself; workers that are no ranks have nobody to wait for.
    kinds = {Kind.HALTED} if scene.are_ranks() else {Kind.HALTED, Kind.BUSY, Kind.IDLE}
    alone = len(scene.workers) == 1 and not scene.are_ranks()
    if not alone and not all(scene.kind(worker) in kinds for worker in scene.workers):
        return None
    return Verdict(
        culprits=tuple(worker.pid for worker in scene.expired),
        sure=Sure.CERTAIN if alone else Sure.LIKELY,
        why=reasons.only_one(scene.workers[0]) if alone else reasons.each_by_itself(scene.expired),
    )


_RULES_FOR_RANKS: tuple[Callable[[Scene], Verdict | None], ...] = (
    _by_departure,
    _alone,
    _by_class,
    _by_progress,
    _by_place,
    _by_branch,
    _by_lead,
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
    victims = tuple(worker.pid for worker in workers if worker.pid not in blamed)
    return Verdict(culprits=blamed, victims=victims, sure=sure, why=why)
