"""The planted hangs of verdict.py, and what a report must say about each."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from unhang.report.model import HangClass as Hang

# What only the kernel sees of a program that waits for something of its own making: no fact tells it from others.
_EVENT_LOOP = (Hang.LOCK, Hang.UNKNOWN)


@dataclass(frozen=True)
class Case:
    """One program that hangs, and what is right to say about it.

    Attributes:
        what: a few words for the table.
        program: the name of a file in ``hangs``, without its suffix. The report must point at a line of it that is
            marked ``HANGS HERE``; for the workers that only wait, at one that is marked ``WAITS HERE``.
        hang: the classes that are right for the worker that hangs.
        ranks: how many processes the job has; 0 for one process without a rank.
        blame: the sets of ranks that may be blamed, each right by itself; none: nobody is to blame.
        waits: the classes that are right for the ranks that wait for others.
        scope: the block that expires, if that is not clear.
        alone: it uses all of a processor, so nothing else must run beside it.
        torchrun: it is started by torchrun.
        sealed: no process may look into its memory, and it runs as an ordinary user.
        contained: the same, but it runs as root without the right to trace, as root of a container does.
    """

    what: str
    program: str
    hang: tuple[Hang, ...]
    ranks: int = 0
    blame: tuple[frozenset[int], ...] = ()
    waits: tuple[Hang, ...] = (Hang.NETWORK,)
    scope: str = ""
    alone: bool = False
    torchrun: bool = False
    sealed: bool = False
    contained: bool = False

    @property
    def name(self) -> str:
        """Names the case on the command line."""
        if self.contained:
            return f"{self.program}-contained"
        return f"{self.program}-sealed" if self.sealed else self.program


def _job(what: str, program: str, hang: Hang, *blame: int, alone: bool = False) -> Case:
    """A job of four ranks, one of which is to blame."""
    return Case(what, program, (hang,), 4, (frozenset(blame),), alone=alone)


SINGLE = [
    Case("time.sleep", "sleep_call", (Hang.SLEEP,)),
    Case("a lock whose holder sleeps", "sleep_in_lock", (Hang.LOCK,)),
    Case("two threads, two locks", "two_locks", (Hang.LOCK,)),
    Case("a lock held over fork()", "fork_with_lock", (Hang.LOCK,)),
    Case("a lock between processes, its holder dead", "process_lock", (Hang.LOCK,)),
    Case("the lock of a file", "file_lock", (Hang.LOCK,)),
    Case("queue.get", "queue_get", (Hang.LOCK,)),
    Case("a future's result", "future_result", (Hang.LOCK,)),
    Case("multiprocessing.Queue.get", "process_queue", (Hang.PIPE,)),
    Case("read of an empty pipe", "empty_pipe", (Hang.PIPE,)),
    Case("write to a full pipe", "full_pipe", (Hang.PIPE,)),
    Case("a request that is not answered", "http_request", (Hang.NETWORK,)),
    Case("accept", "socket_accept", (Hang.NETWORK,)),
    Case("connect", "socket_connect", (Hang.NETWORK,)),
    Case("a child that does not end", "child_process", (Hang.CHILD,)),
    Case("the output of such a child", "child_output", (Hang.CHILD, Hang.PIPE)),
    Case("C code with the GIL", "native_gil", (Hang.NATIVE_GIL,)),
    Case("the same, in another thread", "native_gil_elsewhere", (Hang.NATIVE_GIL,)),
    Case("C code without it, waiting", "native_wait", (Hang.NATIVE,)),
    Case("C code without it, computing", "native_busy", (Hang.NATIVE,), alone=True),
    Case("a regular expression", "regex", (Hang.NATIVE_GIL,), alone=True),
    Case("a loop of Python", "python_loop", (Hang.PYTHON_LOOP,), alone=True),
    Case("starved by another process", "starved", (Hang.STARVED,), alone=True),
    Case("SIGSTOP", "stopped", (Hang.STOPPED,)),
    Case("asyncio: a blocked loop", "asyncio_blocks", (Hang.SLEEP,)),
    Case("asyncio: a future", "asyncio_future", _EVENT_LOOP),
    Case("asyncio: a server's answer", "asyncio_stream", (Hang.NETWORK,)),
    Case("the outer one of two blocks", "nested_blocks", (Hang.SLEEP,), scope="epoch"),
]

JOBS = [
    _job("one rank has fewer batches", "spmd_fewer_batches", Hang.NETWORK, 2),
    _job("one skips a collective", "spmd_skips_collective", Hang.NETWORK, 2),
    _job("one loads data, in a long block", "spmd_data_loader", Hang.SLEEP, 1),
    _job("one loads data, in no block", "spmd_bare_data_loader", Hang.SLEEP, 1),
    _job("one has left", "spmd_exited", Hang.NETWORK, 3),
    _job("one was killed", "spmd_killed", Hang.NETWORK, 3),
    _job("one in another branch", "spmd_one_branch", Hang.NETWORK, 0),
    Case(
        "two in each of two branches",
        "spmd_two_branches",
        (Hang.NETWORK,),
        4,
        blame=(frozenset({0, 1, 2, 3}),),
    ),
    Case("all wait for one server", "spmd_network", (Hang.NETWORK,), 4),
    _job("one is stopped, in a ring", "spmd_stopped", Hang.STOPPED, 2),
    _job("one in a loop of Python, in a ring", "spmd_spins", Hang.PYTHON_LOOP, 1, alone=True),
    Case(
        "torchrun, gloo: one not in the all_reduce",
        "spmd_torch",
        (Hang.SLEEP,),
        4,
        blame=(frozenset({1}),),
        waits=(Hang.NETWORK, Hang.NATIVE),
        alone=True,
        torchrun=True,
    ),
]

SEALED = [dataclasses.replace(case, what=f"{case.what}, sealed", sealed=True) for case in SINGLE]
# What differs there is who may read what of procfs, whatever the program does.
CONTAINED = [
    dataclasses.replace(case, what=f"{case.what.removesuffix(', sealed')}, in a container", contained=True)
    for case in SEALED
    if case.program in {"sleep_in_lock", "native_gil", "python_loop", "http_request"}
]
