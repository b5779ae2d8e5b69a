"""Reports made by hand, as tests show and keep them."""

from dataclasses import dataclass, field

import msgspec

from unhang.report.model import (
    Block,
    Child,
    Departed,
    Evidence,
    Frame,
    HangClass,
    Process,
    Report,
    Socket,
    Step,
    Sure,
    Thread,
    Verdict,
    Worker,
)

STDLIB = "/usr/lib/python3.11"
TORCH = "/opt/venv/lib/python3.11/site-packages/torch"
MAIN = Frame(function="main", file="/home/ada/train.py", line=88, source="step(batch)")
MODULE = Frame(function="<module>", file="/home/ada/train.py", line=101, source="main()")


@dataclass(frozen=True)
class Place:
    """A stack, how it hangs, and what that rests on."""

    frames: tuple[Frame, ...]
    hang: HangClass
    facts: tuple[str, ...] = ()
    thread: dict[str, object] = field(default_factory=dict)


LOCK = Place(
    (
        Frame(function="__futex_abstimed_wait_common", file="/lib/x86_64-linux-gnu/libc.so.6", native=True),
        Frame(function="wait", file=f"{STDLIB}/threading.py", line=327, source="waiter.acquire()"),
        Frame(function="load_batch", file="/home/ada/train.py", line=41, source="with self.lock:"),
        MAIN,
        MODULE,
    ),
    HangClass.LOCK,
    ("it waits in futex for a lock", "0 % of a processor in 0.1 s", "nobody holds the GIL"),
    {"holds_gil": False, "state": "S", "wchan": "futex_wait_queue", "syscall": "futex"},
)
NETWORK = Place(
    (
        Frame(function="poll", file="/lib/x86_64-linux-gnu/libc.so.6", native=True),
        Frame(function="all_reduce", file=f"{TORCH}/distributed/distributed_c10d.py", line=2501, source="work.wait()"),
        Frame(function="step", file="/home/ada/train.py", line=57, source="dist.all_reduce(loss)"),
        MAIN,
        MODULE,
    ),
    HangClass.NETWORK,
    ("it waits in poll for 7 sockets",),
    {"holds_gil": False, "state": "S", "syscall": "poll"},
)
LOADER = Place(
    (
        Frame(function="decode", file="/home/ada/data/loader.py", line=12, source="while not header.complete:"),
        Frame(function="next_batch", file="/home/ada/data/loader.py", line=77, source="image = decode(raw)"),
        MAIN,
        MODULE,
    ),
    HangClass.PYTHON_LOOP,
    ("100 % of a processor in 0.1 s", "it holds the GIL", "the same line twice"),
    {"holds_gil": True, "state": "R"},
)
KILLED = (
    Step(at=0.01, what="evidence"),
    Step(at=0.05, what="SIGTERM"),
    Step(at=5.05, what="SIGKILL"),
    Step(at=5.06, what="dead"),
)


def evidence(place, pid, at=0.02):
    return Evidence(
        at=at,
        took=0.04,
        threads=(
            Thread(id=pid, name="MainThread", frames=place.frames, **place.thread),
            Thread(
                id=pid + 1,
                name="pin_memory",
                frames=(Frame(function="get", file=f"{STDLIB}/queue.py", line=171, source="self.not_empty.wait()"),),
                state="S",
            ),
        ),
        stacks_from="py-spy",
        hang=place.hang,
        facts=place.facts,
        process=Process(
            command="python train.py --lr 0.1", state="S", window=0.1, cpu_time=812.5, memory=3 << 30, threads=9
        ),
        sockets=(Socket(kind="tcp", local="10.0.0.1:40312", remote="10.0.0.2:29500", status="ESTABLISHED"),),
        children=(Child(pid=pid + 5, name="pt_data_worker", state="S"),),
        stderr="step 411\nwaiting for data\n",
    )


def worker(rank, place, *blocks, **more):
    pid = 17780 + 2 * (rank or 0)
    return Worker(
        pid=pid,
        rank=rank,
        local_rank=rank,
        host="node-1",
        sequence=412,
        idle=60.0,
        blocks=blocks,
        evidence=evidence(place, pid),
        **{"expired": any(block.expired for block in blocks), **more},
    )


def expired(scope, after=60.0, started=None):
    began = -after if started is None else started
    return Block(scope=scope, after=after, started=began, expired=True, deadline=began + after)


def history(rank, steps=6, length=4.0, until=-60.0):
    """Blocks that were left, the latest first."""
    starts = (until - length * (back + 1) - 0.11 * (rank % 5) for back in range(steps))
    return tuple(
        Block(scope="load" if i % 2 else "step", after=60.0, started=at, finished=True) for i, at in enumerate(starts)
    )


def report(**fields):
    whole = {
        "id": "4f2a91c0",
        "time": "2026-03-01T12:03:41.250000Z",
        "host": "node-1",
        "job": "train-17",
        "complete": True,
        "watchdog": 4242,
        "version": "0.1.0",
    }
    return Report(**{**whole, **fields})


def lone():
    """One worker without a rank waits for a lock."""
    one = worker(None, LOCK, expired("step"), outcome="killed", exit="SIGKILL", steps=KILLED)
    return report(
        job="",
        workers=(msgspec.structs.replace(one, pid=123, finished=history(0)),),
        verdict=Verdict(culprits=(123,), sure=Sure.CERTAIN, why="it hangs by itself"),
    )


def slow_loader(size=8, culprit=2):
    """All ranks wait in a collective for one that is in its data loader."""
    ranks = [culprit, *(rank for rank in range(size) if rank != culprit)]
    workers = tuple(
        worker(
            rank,
            LOADER if rank == culprit else NETWORK,
            expired("load", started=-61.0) if rank == culprit else expired("all_reduce", started=-60.0 + 0.01 * rank),
            finished=history(rank, until=-61.0),
            outcome="killed",
            exit="SIGKILL",
            steps=KILLED,
        )
        for rank in ranks
    )
    workers = (msgspec.structs.replace(workers[0], sequence=411), *workers[1:])
    return report(
        workers=workers,
        verdict=Verdict(
            culprits=(workers[0].pid,),
            victims=tuple(each.pid for each in workers[1:]),
            sure=Sure.LIKELY,
            why=f"rank {culprit} is at its block 411, all others are at 412 and wait for the network",
        ),
    )


def sixty_four():
    """As `slow_loader`, with 64 ranks."""
    return slow_loader(64, 37)


def cannot_tell():
    """Eight ranks are at the same place."""
    workers = tuple(worker(rank, NETWORK, expired("all_reduce"), outcome="pending") for rank in range(8))
    return report(
        complete=False, workers=workers, verdict=Verdict(why="all eight wait for the network in the same block")
    )


def out_of_memory():
    """Three ranks wait for one that the kernel has ended."""
    workers = tuple(
        worker(rank, NETWORK, expired("all_reduce"), outcome="killed", exit="SIGKILL") for rank in (0, 1, 3)
    )
    gone = Departed(
        pid=99,
        rank=2,
        at=-58.0,
        exit="SIGKILL (out of memory)",
        blocks=(Block(scope="load", after=60.0, started=-59.5),),
        sequence=411,
    )
    return report(
        workers=workers,
        departed=(gone,),
        verdict=Verdict(
            culprits=(99,),
            victims=tuple(each.pid for each in workers),
            sure=Sure.CERTAIN,
            why="rank 2 was ended by the kernel for want of memory; the others wait for it",
        ),
    )


def pretimeout():
    """One rank will expire in five seconds; the others are beside it."""
    late = worker(1, LOCK, Block(scope="load", after=60.0, started=-55.0))
    late = msgspec.structs.replace(late, evidence=evidence(LOCK, late.pid, at=0.0))
    others = tuple(
        Worker(pid=200 + rank, rank=rank, blocks=(Block(scope="all_reduce", after=60.0, started=-3.0),))
        for rank in (0, 2)
    )
    return report(
        kind="pretimeout",
        complete=False,
        workers=(late, *others),
        verdict=Verdict(culprits=(late.pid,), sure=Sure.LIKELY, why="it is the only one that is late"),
    )


HOSTILE = "<script>document.title='owned'</script>\x1b[31m\x00\u202e\"'>{{ 7*7 }}</title>\r\nfake: line"


def hostile():
    """Every text that a worker has a say in is an attack."""
    frames = tuple(
        Frame(function=HOSTILE, file=HOSTILE + "/x" * 300, line=2**63 - 1, source=HOSTILE * 50) for _ in range(300)
    )
    bad = Worker(
        pid=2**63 - 1,
        rank=-(2**63),
        host=HOSTILE,
        expired=True,
        idle=1e308,
        blocks=(
            Block(scope=HOSTILE * 100, after=1e308, started=-1e308, expired=True),
            Block(scope="", after=0.0, started=1e308),
            *(Block(scope="y", after=1.0, started=-1.0 * i) for i in range(500)),
        ),
        evidence=Evidence(
            at=-1e308,
            threads=(Thread(name=HOSTILE, frames=frames, state=HOSTILE, wchan=HOSTILE, syscall=HOSTILE),),
            stacks_from=HOSTILE,
            without=(HOSTILE,) * 20,
            facts=(HOSTILE,) * 20,
            process=Process(command=HOSTILE, state=HOSTILE, memory=-1),
            sockets=(Socket(kind=HOSTILE, local=HOSTILE, remote=HOSTILE, status=HOSTILE),),
            children=(Child(pid=-1, name=HOSTILE),),
            stderr=HOSTILE * 1000,
        ),
        steps=tuple(Step(at=float(i), what=HOSTILE) for i in range(100)),
        outcome=HOSTILE,
        exit=HOSTILE,
    )
    return report(
        id="../../etc/" + HOSTILE,
        time=HOSTILE,
        host=HOSTILE,
        job=HOSTILE,
        kind=HOSTILE,
        headline=HOSTILE,
        workers=(bad, bad, Worker(pid=5, host=HOSTILE, blocks=(Block(scope=HOSTILE, after=1.0, started=0.0),))),
        departed=(Departed(pid=-7, at=-1e308, exit=HOSTILE, blocks=(Block(scope=HOSTILE, after=1.0, started=0.0),)),)
        * 50,
        verdict=Verdict(culprits=(bad.pid,), victims=(5,), why=HOSTILE),
        omitted=(HOSTILE,) * 50,
        version=HOSTILE,
    )


SAMPLES = {
    each.__name__: each for each in (lone, slow_loader, sixty_four, cannot_tell, out_of_memory, pretimeout, hostile)
}
