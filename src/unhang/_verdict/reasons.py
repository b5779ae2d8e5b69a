"""Why somebody is to blame, or nobody: one sentence each, for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from unhang._verdict.scene import COLLECTIVE, Kind, Scene, counts, hang_of, place
from unhang.report.model import Departed, HangClass, Worker
from unhang.report.words import often, quoted, who

# So many places are named; of more, how many they are.
_MOST_PLACES = 4


def departed(gone: Sequence[Departed]) -> str:
    """Some had ended before."""
    ends = _and(left.exit or "how is not known" for left in gone)
    return f"{who(gone)} had ended before ({ends}), and the others wait"


def only_one(worker: Worker) -> str:
    """Nobody else hangs."""
    return f"it is the only one that {'hangs' if worker.expired else 'is late'}"


def by_itself(scene: Scene, culprits: Sequence[Worker]) -> str:
    """Some cannot answer, and others wait for them."""
    if all(worker.expired for worker in culprits):
        does = _verb(culprits, "hangs by itself", "hang by themselves")
    elif all(scene.kind(worker) is Kind.HALTED for worker in culprits):
        does = _verb(culprits, "stands still", "stand still")
    else:
        does = _verb(culprits, "is busy by itself", "are busy by themselves")
    rest = [worker for worker in scene.workers if worker not in culprits]
    waiting = scene.kinds(Kind.FOR_RANKS, Kind.NETWORK)
    wait = f"{_others(waiting) if waiting == rest else who(waiting)} {_verb(waiting, 'waits', 'wait')}"
    how = _and(str(hang_of(worker)) for worker in culprits)
    return f"{who(culprits)} {does} ({how}), and {wait} for {_verb(culprits, 'it', 'them')}, over the network"


def each_by_itself(workers: Sequence[Worker]) -> str:
    """Nobody waits for anybody."""
    return f"{who(workers)} {_verb(workers, 'hangs by itself', 'hang, each by itself')}"


def behind(few: Sequence[Worker], ahead: Sequence[Worker], among: Iterable[str]) -> str:
    """Some have entered a block less often."""
    scope = _deciding(few, ahead, among)
    times = _times(few, scope)
    entered = f"entered {quoted(scope)} {times}" if times else f"not entered {quoted(scope)}"
    waits = all(hang_of(worker) is HangClass.NETWORK for worker in ahead)
    return (
        f"{who(few)} {_verb(few, 'has', 'have')} {entered} and {_verb(few, 'is', 'are')} {_in(few, scope)}; "
        f"{_others(ahead)} {_verb(ahead, 'has', 'have')} entered it {_times(ahead, scope)} and "
        f"{_verb(ahead, 'waits', 'wait') if waits else _verb(ahead, 'is', 'are')} {_in(ahead, scope)}"
    )


def leads(ahead: Worker, others: Sequence[Worker], among: Iterable[str]) -> str:
    """One has entered a block more often."""
    scope = _deciding(others, [ahead], among)
    more = _count(ahead, scope) - max(_count(worker, scope) for worker in others)
    times = f" {_often(more)}" if more > 0 else ""
    return (
        f"{who([ahead])} has entered {quoted(scope)} {_times([ahead], scope)}, "
        f"the others {_times(others, scope) or 'never'}: it went on without them{times}"
    )


def elsewhere(few: Sequence[Worker], most: Sequence[Worker]) -> str:
    """Some are in another block than most."""
    return f"{who(few)} {_are(few)}, and {_others(most)} {_are(most)}"


def branched(few: Sequence[Worker], most: Sequence[Worker], here: str, there: str) -> str:
    """Some have called another function than most."""
    return f"{who(few)} {_verb(few, 'has', 'have')} gone to {here}, and {_others(most)} to {there}"


def undecided(scene: Scene) -> str:
    """Nothing tells who is to blame."""
    workers = scene.workers
    places: dict[str, list[Worker]] = {}
    for worker in workers:
        places.setdefault(_in([worker]), []).append(worker)
    classes = {hang_of(worker) for worker in workers}
    how = _and(map(str, classes))
    awaited = _awaited(workers)
    if len(workers) == 1:
        others = f"{scene.progressing} other{'s make' if scene.progressing > 1 else ' makes'} progress"
        others = f": {others}, and it may wait for one of them" if scene.progressing else ""
        return f"it {'hangs' if workers[0].expired else 'is'} {''.join(places)} ({how}){others}"
    if len(places) > 1:
        return f"{_spread(places)}{awaited}: nothing tells which is wrong"
    alike = len(classes) == 1 and HangClass.UNKNOWN not in classes and any(worker.expired for worker in workers)
    where = f"{'hang alike' if alike else 'are'} {''.join(places)} ({how})"
    return f"all {where}{awaited}: nothing tells who keeps the others"


def _spread(places: dict[str, list[Worker]]) -> str:
    """Who is where."""
    if len(places) > _MOST_PLACES:
        everybody = [worker for group in places.values() for worker in group]
        return f"{who(everybody)} are in {len(places)} places"
    (first, group), *rest = sorted(places.items(), key=lambda pair: who(pair[1]))
    told = [f"{who(group)} {_verb(group, 'is', 'are')} {first}", *(f"{who(group)} {where}" for where, group in rest)]
    return f"{', '.join(told[:-1])} and {told[-1]}"


def _awaited(workers: Sequence[Worker]) -> str:
    """What all wait for, if that is one address, and belongs to none of them; else nothing."""
    named = [set(worker.evidence.waits_for) if worker.evidence else set() for worker in workers]
    shared = set.intersection(*named) - {COLLECTIVE} if named else set()
    sockets = [socket for worker in workers if worker.evidence for socket in worker.evidence.sockets]
    own = {socket.local for socket in sockets}
    # One that listens at every address of its host.
    ports = {socket.local.rpartition(":")[2] for socket in sockets if not socket.remote}
    found = [address for address in shared - own if address.rpartition(":")[2] not in ports]
    return f", and all wait for {found[0]}" if len(found) == 1 else ""


def _deciding(few: Sequence[Worker], ahead: Sequence[Worker], among: Iterable[str]) -> str:
    """Of the scopes that some have entered less often than others, the one that says most."""
    most = {scope: max(_count(worker, scope) for worker in few) for scope in among}
    telling = [scope for scope in most if all(_count(worker, scope) > most[scope] for worker in ahead)]
    telling = telling or [
        scope for scope in most if any(_count(one, scope) < _count(other, scope) for one in few for other in ahead)
    ]
    here, there = {place(worker) for worker in ahead}, {place(worker) for worker in few}
    return min(telling, key=lambda scope: (scope not in here, scope not in there, scope))


def _times(workers: Sequence[Worker], scope: str) -> str:
    """How often they have entered it; empty for never."""
    found = [_count(worker, scope) for worker in workers]
    least, most = min(found), max(found)
    return _often(least) if least == most else f"{least}-{most} times"


def _count(worker: Worker, scope: str) -> int:
    return (counts(worker) or {}).get(scope, 0)


def _often(times: int) -> str:
    return often(times) if times else ""


def _are(workers: Sequence[Worker]) -> str:
    return f"{_verb(workers, 'is', 'are')} {_in(workers)}"


def _in(workers: Sequence[Worker], known: str | None = None) -> str:
    """Where they are; ``known`` was named before."""
    places = {place(worker) for worker in workers}
    if len(places) > _MOST_PLACES:
        return f"in {len(places)} places"
    if known is not None and places == {known}:
        return "in it"
    return _and("in no block" if scope is None else f"in {quoted(scope)}" for scope in places)


def _and(words: Iterable[str]) -> str:
    return " and ".join(sorted(set(words)))


def _others(workers: Sequence[Worker]) -> str:
    return "the others" if len(workers) > 1 else who(workers)


def _verb(workers: Sequence[Worker], one: str, several: str) -> str:
    return one if len(workers) == 1 else several
