"""Who is to blame: the rules, by example and for any job."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unhang._verdict.culprit import judge
from unhang.report.model import Block, Departed, Evidence, Frame, HangClass, Sure, Thread, Worker


def block(scope, count=10, started=-5.0):
    return Block(scope=scope, after=5.0, started=started, count=count, expired=True)


def left(scope, count=10, started=-9.0):
    return Block(scope=scope, after=5.0, started=started, count=count, finished=True)


def rank(number, *blocks, hang=HangClass.NETWORK, finished=(), frames=(), idle=5.0, expired=True, peer=None):
    threads = (Thread(frames=tuple(frames)),) if frames else ()
    peer = "torch.distributed" if peer is None and hang is HangClass.NETWORK else peer
    return Worker(
        pid=1000 + number,
        rank=number,
        expired=expired,
        blocks=blocks,
        finished=finished,
        idle=idle,
        evidence=Evidence(hang=hang, threads=threads, waits_for=(peer,) if peer else ()),
    )


def blamed(verdict):
    return [pid - 1000 for pid in verdict.culprits], [pid - 1000 for pid in verdict.victims]


def test_nobody_is_nobody():
    """No workers, or only an idle parent."""
    assert judge([]).culprits == judge([Worker(pid=1)]).culprits == ()


def test_a_lone_worker_is_its_own_culprit():
    """Nobody else hangs; one that waits may wait for a rank on another host."""
    verdict = judge([rank(0, block("step"), hang=HangClass.PYTHON_LOOP)])
    assert (blamed(verdict), verdict.sure) == (([0], []), Sure.CERTAIN)
    assert judge([rank(0, block("step"), hang=HangClass.LOCK)]).sure is Sure.LIKELY
    assert judge([rank(0, block("reduce"))]).sure is Sure.CANNOT_TELL


def test_a_rank_that_is_behind_is_to_blame():
    """It is still in its data loader, and the others wait in the collective that it never came to."""
    waiting = [rank(number, block("reduce"), finished=(left("load"),)) for number in (0, 1, 3)]
    slow = rank(2, block("load", 10), finished=(left("reduce", 9),), expired=False)
    verdict = judge([*waiting, slow])
    assert (blamed(verdict), verdict.sure) == (([2], [0, 1, 3]), Sure.CERTAIN)


def test_of_two_ranks_the_one_behind_is_to_blame():
    """No majority is needed where one has done all that the other has, and more."""
    verdict = judge(
        [
            rank(0, block("reduce", 42), finished=(left("load", 42), left("save", 3))),
            rank(1, block("load", 42), finished=(left("reduce", 41),)),
        ]
    )
    assert blamed(verdict) == ([1], [0])


def test_blocks_that_one_rank_alone_has_do_not_make_the_others_look_behind():
    """Rank 0 saves checkpoints: that it has armed more timers says nothing about the others."""
    jobs = [rank(0, block("reduce", 7), finished=(left("save", 3),)), *(rank(n, block("reduce", 7)) for n in (1, 2, 3))]
    assert judge(jobs).sure is Sure.CANNOT_TELL


def test_a_rank_that_was_never_seen_in_the_block_is_to_blame():
    """It is outside all blocks, and the majority is inside one that all know."""
    jobs = [rank(n, block("reduce", 5)) for n in (0, 1, 2)] + [rank(3, finished=(left("reduce", 4),), expired=False)]
    assert blamed(judge(jobs)) == ([3], [0, 1, 2])


def test_a_rank_that_skipped_a_collective_is_to_blame():
    """It waits in the next one, which nobody else has come to."""
    jobs = [rank(n, block("reduce", 5), finished=(left("evaluate", 4),)) for n in (0, 1, 3)]
    jobs.append(rank(2, block("evaluate", 5), finished=(left("reduce", 4),)))
    assert blamed(judge(jobs)) == ([2], [0, 1, 3])


@pytest.mark.parametrize("hang", [HangClass.STOPPED, HangClass.DISK, HangClass.STARVED, HangClass.DEBUGGER])
def test_a_rank_that_cannot_go_on_is_to_blame(hang):
    """It is in the collective like the others, and stands still."""
    verdict = judge([*(rank(n, block("reduce")) for n in (0, 2, 3)), rank(1, block("reduce"), hang=hang)])
    assert (blamed(verdict), verdict.sure) == (([1], [0, 2, 3]), Sure.CERTAIN)


def test_a_rank_that_is_busy_while_the_others_wait_is_to_blame():
    """It loops in the same block in which the others wait for the network."""
    jobs = [*(rank(n, block("step")) for n in (0, 1, 2)), rank(3, block("step"), hang=HangClass.PYTHON_LOOP)]
    verdict = judge(jobs)
    assert (blamed(verdict), verdict.sure) == (([3], [0, 1, 2]), Sure.LIKELY)


def test_a_rank_that_is_gone_is_to_blame():
    """The others wait for it; how it ended says how sure that is."""
    waiting = [rank(n, block("reduce")) for n in (0, 1)]
    gone = Departed(pid=1002, rank=2, at=-3.0, exit="SIGKILL (out of memory)")
    verdict = judge(waiting, [gone])
    assert (blamed(verdict), verdict.sure) == (([2], [0, 1]), Sure.CERTAIN)
    assert "out of memory" in verdict.why
    finished = msgspec.structs.replace(gone, exit="exit code 0")
    assert judge(waiting, [finished]).sure is Sure.LIKELY


def test_a_rank_that_was_started_again_is_not_missed():
    """An earlier attempt's workers are all gone, and that is no news."""
    waiting = [rank(n, block("reduce")) for n in (0, 1)]
    assert judge(waiting, [Departed(pid=990, rank=1, at=-30.0, exit="SIGTERM")]).sure is Sure.CANNOT_TELL
    assert judge(waiting, [Departed(pid=990, rank=2, attempt=4, at=-3.0, exit="SIGTERM")]).sure is Sure.CANNOT_TELL
    assert judge(waiting, [Departed(pid=990, rank=2, at=-3000.0, exit="exit code 1")]).sure is Sure.CANNOT_TELL


def test_nobody_is_blamed_when_all_wait_alike():
    """Whoever they wait for is not among them."""
    verdict = judge([rank(n, block("fetch"), peer="10.0.0.9:80") for n in range(4)])
    assert (blamed(verdict), verdict.sure) == (([], []), Sure.CANNOT_TELL)
    assert "all wait for 10.0.0.9:80: nothing tells" in verdict.why


def test_half_against_half_is_not_decided():
    """Two ranks here and two there: either may be wrong."""
    jobs = [rank(n, block("a", 5), finished=(left("b", 4),)) for n in (0, 1)]
    jobs += [rank(n, block("b", 5), finished=(left("a", 4),)) for n in (2, 3)]
    assert judge(jobs).sure is Sure.CANNOT_TELL


def test_programs_that_have_nothing_in_common_are_not_compared():
    """A producer and two consumers run different programs."""
    jobs = [rank(0, block("produce", 3)), rank(1, block("consume", 9)), rank(2, block("consume", 9))]
    assert judge(jobs).sure is Sure.CANNOT_TELL


def test_ranks_that_have_gone_into_different_branches_are_named_and_not_blamed():
    """One has called barrier() where the others have called all_reduce(): a mistake, or its part in the program."""

    def frames(line, function):
        return [
            Frame(function="recv", file="/c.py", line=3),
            Frame(function=function, file="/c.py", line=20),
            Frame(function="train", file="/train.py", line=line),
            Frame(function="<module>", file="/train.py", line=90),
        ]

    jobs = [rank(n, block("step"), frames=frames(40, "all_reduce")) for n in (0, 1, 3)]
    jobs.append(rank(2, block("step"), frames=frames(44, "barrier")))
    verdict = judge(jobs)
    assert verdict.sure is Sure.CANNOT_TELL
    assert "barrier" in verdict.why


def test_the_root_of_a_collective_is_not_blamed_for_its_other_line():
    """Within one collective, its ranks wait in different lines of it."""

    def frames(line):
        return [
            Frame(function="recv_exactly", file="/c.py", line=3),
            Frame(function="all_reduce", file="/c.py", line=line),
            Frame(function="train", file="/train.py", line=40),
        ]

    jobs = [rank(0, block("step"), frames=frames(20))] + [rank(n, block("step"), frames=frames(30)) for n in (1, 2, 3)]
    assert judge(jobs).sure is Sure.CANNOT_TELL


def test_workers_without_ranks_hang_each_by_itself():
    """A pool's workers do not wait for each other; an idle parent is none of them."""

    def worker(pid, *blocks):
        return Worker(pid=pid, expired=bool(blocks), blocks=blocks, evidence=Evidence(hang=HangClass.LOCK))

    assert judge([worker(5, block("task")), worker(6, block("task"))]).culprits == (5, 6)
    assert judge([worker(5, block("task")), worker(4)]).sure is Sure.CERTAIN


def test_a_rank_that_left_in_good_order_is_not_blamed_on_a_guess():
    """The others wait for a server, or loop by themselves: it was done."""
    gone = [Departed(pid=1000, rank=0, at=-3.0, exit="exit code 0")]
    assert judge([rank(1, block("fetch"), peer="10.0.0.9:80")], gone).culprits in ((), (1001,))
    assert 1000 not in judge([rank(1, block("step"), hang=HangClass.PYTHON_LOOP)], gone).culprits
    assert 1000 not in judge([rank(1, block("step"), hang=HangClass.UNKNOWN)], gone).culprits


def test_a_rank_that_failed_is_not_blamed_when_it_did_not_start_the_hang():
    """Long before, with the others going on; or because of it, by a timeout of its own."""
    outside = [rank(n, block("fetch"), peer="10.0.0.9:80", idle=5.0) for n in (0, 1, 2)]
    assert judge(outside, [Departed(pid=1003, rank=3, at=-6.0, exit="exit code 1")]).sure is Sure.CANNOT_TELL
    jobs = [rank(n, block("reduce", 5), finished=(left("load", 5),)) for n in (0, 2)]
    jobs.append(rank(1, block("load", 5), finished=(left("reduce", 4),), peer="10.0.0.9:80", idle=12.0))
    assert blamed(judge(jobs, [Departed(pid=1003, rank=3, at=-4.0, exit="exit code 1")]))[0] == [1]


def test_ranks_that_spin_for_another_one_are_not_blamed():
    """Three poll a flag that the first one sets when its server has answered."""
    jobs = [rank(0, block("step"), peer="10.0.0.9:80")]
    jobs += [rank(n, block("step"), hang=HangClass.PYTHON_LOOP) for n in (1, 2, 3)]
    assert judge(jobs).sure is Sure.CANNOT_TELL


@pytest.mark.parametrize("place", ["step", "poll"])
def test_ranks_that_poll_for_another_one_are_not_blamed(place):
    """Three sleep and look for a file that the first one is still fetching from a server that is dead."""
    jobs = [rank(0, block("step"), peer="10.0.0.9:80")]
    jobs += [rank(n, block(place), finished=(left("step", 10),), hang=HangClass.SLEEP) for n in (1, 2, 3)]
    assert not set(blamed(judge(jobs))[0]) & {1, 2, 3}


def test_a_rank_that_waits_for_its_own_threads_is_not_blamed_for_a_server_that_is_dead():
    """Whom the other one waits for is known, and it is none of them."""
    jobs = [rank(0, block("step"), peer="10.0.0.9:80"), rank(1, block("step"), hang=HangClass.LOCK)]
    assert judge(jobs).sure is Sure.CANNOT_TELL


def test_a_rank_alone_among_ranks_that_make_progress_is_not_blamed_for_waiting():
    """One of them may go round in circles; one that loops by itself is to blame all the same."""
    assert judge([rank(1, block("barrier"))], progressing=1).sure is Sure.CANNOT_TELL
    assert judge([rank(1, block("step"), hang=HangClass.PYTHON_LOOP)], progressing=1).sure is Sure.CERTAIN


def test_what_was_done_before_does_not_matter_to_ranks_that_are_even_now():
    """Retries in the loader leave uneven counts behind them."""
    jobs = [rank(n, block("reduce", 5), finished=(left("load", count),)) for n, count in enumerate((3, 5, 5))]
    assert judge(jobs).sure is Sure.CANNOT_TELL


def test_workers_that_are_no_ranks_are_not_compared():
    """Pool workers in a network outage: the one with fewer tasks, or with another task, is not to blame."""

    def worker(pid, *blocks, finished=()):
        return Worker(
            pid=pid, expired=True, blocks=blocks, finished=finished, evidence=Evidence(hang=HangClass.NETWORK)
        )

    assert judge([worker(5, block("fetch", 3)), worker(6, block("fetch", 9))]).sure is Sure.CANNOT_TELL
    assert judge([worker(n, block("fetch")) for n in (5, 6, 7)] + [worker(8, block("upload"))]).sure is Sure.CANNOT_TELL


def test_a_rank_that_is_ahead_is_named_and_not_blamed():
    """All wait for each other, three in one round and one in the next: as in a pipeline, or as after a mistake."""
    jobs = [rank(n, block("step", 4)) for n in (0, 1, 3)] + [rank(2, block("step", 5))]
    verdict = judge(jobs)
    assert verdict.sure is Sure.CANNOT_TELL
    assert "rank 2 has entered 'step' 5 times, the others 4 times" in verdict.why
    jobs = [rank(n, block("step", 4), peer="10.0.0.9:80") for n in (0, 1, 3)]
    assert judge([*jobs, rank(2, block("step", 5), peer="10.0.0.9:80")]).sure is Sure.CANNOT_TELL


SCOPES = st.sampled_from(["load", "reduce", "save"])
BLOCKS = st.lists(st.builds(block, SCOPES, st.integers(0, 5), st.floats(-20, -1)), max_size=2)
WORKERS = st.lists(
    st.builds(
        lambda blocks, finished, hang, expired: (blocks, finished, hang, expired),
        BLOCKS,
        st.lists(st.builds(left, SCOPES, st.integers(0, 5)), max_size=3, unique_by=lambda b: b.scope),
        st.sampled_from(HangClass),
        st.booleans(),
    ),
    min_size=1,
    max_size=8,
)


@given(WORKERS, st.randoms())
def test_any_job_has_a_verdict_that_names_everybody_once(job, random):
    """Culprits and victims are different workers of the job, and their order in the report does not matter."""
    workers = [
        rank(n, *blocks, finished=tuple(finished), hang=hang, expired=expired)
        for n, (blocks, finished, hang, expired) in enumerate(job)
    ]
    verdict = judge(workers)
    pids = {worker.pid for worker in workers}
    assert set(verdict.culprits) <= pids
    assert set(verdict.victims) <= pids - set(verdict.culprits)
    assert bool(verdict.culprits) == (verdict.sure is not Sure.CANNOT_TELL)
    assert verdict.why
    shuffled = list(workers)
    random.shuffle(shuffled)
    again = judge(shuffled)
    assert (set(again.culprits), again.sure) == (set(verdict.culprits), verdict.sure)


@given(st.integers(2, 8), st.sampled_from(HangClass), SCOPES, st.integers(0, 5))
def test_ranks_that_are_all_alike_are_never_told_apart(count, hang, scope, times):
    """Whatever they do, a few of them are not blamed for it."""
    verdict = judge([rank(n, block(scope, times), hang=hang) for n in range(count)])
    assert len(verdict.culprits) in (0, count)
