"""What a verdict says about who is to blame."""

import pytest

from unhang._verdict.culprit import judge
from unhang.report.model import Block, Departed, Evidence, HangClass, Socket, Sure, Worker


def block(scope, count=4, started=-5.0):
    return Block(scope=scope, after=5.0, started=started, count=count, expired=True)


def left(scope, count):
    return Block(scope=scope, after=5.0, started=-9.0, count=count, finished=True)


def rank(number, *blocks, hang=HangClass.NETWORK, waits_for=("torch.distributed",), sockets=(), **more):
    fields = {"expired": bool(blocks), "idle": 5.0, **more}
    evidence = Evidence(hang=hang, waits_for=waits_for, sockets=sockets)
    return Worker(pid=1000 + number, rank=number, blocks=blocks, evidence=evidence, **fields)


def why(*workers, departed=(), **more):
    return judge(workers, departed, **more).why


def test_both_counts_of_a_block_are_told():
    """Also of one that has left a loop too early, and is beyond the block in which the others wait."""
    early = rank(2, block("finish", 1), finished=(left("step", 3),))
    others = [rank(n, block("step", 4)) for n in (0, 1, 3)]
    assert why(early, *others) == (
        "rank 2 has entered 'step' 3 times and is in 'finish'; the others have entered it 4 times and wait in it"
    )


def test_one_that_is_in_no_block():
    """It has entered the block of the others less often, and is in none."""
    idle = rank(1, finished=(left("step", 1),), hang=HangClass.UNKNOWN, waits_for=())
    assert why(idle, rank(0, block("step", 2))) == (
        "rank 1 has entered 'step' once and is in no block; rank 0 has entered it 2 times and waits in it"
    )


def test_a_lead_is_told_in_numbers():
    """How often it has entered the block, the others, and the difference."""
    ahead = rank(2, block("step", 5))
    assert why(ahead, *(rank(n, block("step", 4)) for n in (0, 1, 3))) == (
        "rank 2 has entered 'step' 5 times, the others 4 times: it went on without them once"
    )


def test_who_is_where_is_told_when_nothing_is_decided():
    """Two here and two there."""
    jobs = [rank(n, block("evaluate"), finished=(left("step", 4),)) for n in (0, 1)]
    jobs += [rank(n, block("step"), finished=(left("evaluate", 4),)) for n in (2, 3)]
    assert why(*jobs) == "ranks 0-1 are in 'evaluate' and ranks 2-3 in 'step': nothing tells which is wrong"


def test_many_places_are_counted():
    """Nobody reads a list of them."""
    jobs = [rank(n, block(f"block {n}"), hang=HangClass.UNKNOWN) for n in range(9)]
    assert why(*jobs) == "ranks 0-8 are in 9 places: nothing tells which is wrong"


def test_the_same_place_of_all():
    """They hang alike if their classes are the same, and known."""
    jobs = [rank(n, block("fetch")) for n in range(4)]
    assert why(*jobs) == "all hang alike in 'fetch' (network): nothing tells who keeps the others"
    mixed = [*jobs[:3], rank(3, block("fetch"), hang=HangClass.UNKNOWN)]
    assert why(*mixed) == "all are in 'fetch' (network and unknown): nothing tells who keeps the others"


@pytest.mark.parametrize(
    ("sockets", "named"),
    [
        ((), True),
        ((Socket(kind="tcp", local="127.0.0.1:46001", remote="127.0.0.1:9"),), False),
        ((Socket(kind="tcp", local="0.0.0.0:46001", status="listening"),), False),
    ],
)
def test_an_address_that_all_wait_for_is_named(sockets, named):
    """Unless it is one of their own."""
    jobs = [rank(n, block("fetch"), waits_for=("127.0.0.1:46001",)) for n in range(3)]
    jobs.append(rank(3, block("fetch"), waits_for=("127.0.0.1:46001",), sockets=sockets))
    assert ("all wait for 127.0.0.1:46001" in why(*jobs)) == named


@pytest.mark.parametrize(
    ("hang", "expired", "said"),
    [
        (HangClass.SLEEP, True, "rank 1 hangs by itself (sleep)"),
        (HangClass.SLEEP, False, "rank 1 is busy by itself (sleep)"),
        (HangClass.STOPPED, False, "rank 1 stands still (stopped)"),
    ],
)
def test_only_who_has_expired_hangs(hang, expired, said):
    """Others are busy, or stand still."""
    waiting = [rank(n, block("step")) for n in (0, 2)]
    one = rank(1, block("load"), hang=hang, waits_for=(), expired=expired)
    assert why(one, *waiting) == f"{said}, and the others wait for it, over the network"
    assert why(one, waiting[0]) == f"{said}, and rank 0 waits for it, over the network"


def test_a_lone_worker():
    """It hangs if it has expired."""
    worker = Worker(pid=7, blocks=(block("task"),), expired=True)
    assert why(worker) == "it is the only one that hangs"
    late = Worker(pid=7, blocks=(block("task"),))
    assert why(late) == "it is the only one that is late"


def test_workers_that_hang_each_by_itself():
    """One, or several."""
    evidence = Evidence(hang=HangClass.SLEEP)
    one = Worker(pid=5, blocks=(block("task"),), expired=True, evidence=evidence)
    other = Worker(pid=9, blocks=(block("task"),), evidence=evidence)
    assert why(one, other) == "worker 5 hangs by itself"
    both = Worker(pid=9, blocks=(block("task"),), expired=True, evidence=evidence)
    assert why(one, both) == "workers 5,9 hang, each by itself"


def test_how_one_that_is_gone_ended():
    """As far as it is known."""
    waiting = [rank(n, block("step")) for n in (0, 1)]
    gone = Departed(pid=9, rank=2, at=-1.0, exit="SIGKILL")
    assert why(*waiting, departed=[gone]) == "rank 2 had ended before (SIGKILL), and the others wait"


def test_one_beside_others_that_make_progress():
    """It may wait for them."""
    verdict = judge([rank(0, block("step"))], progressing=2)
    assert verdict.sure is Sure.CANNOT_TELL
    assert verdict.why == "it hangs in 'step' (network): 2 others make progress, and it may wait for one of them"
