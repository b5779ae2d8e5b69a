"""One cheap look at a process and its threads, from procfs alone: it disturbs nobody.

Some facts about procfs: as another user, or of a process that is not dumpable, ``syscall`` cannot be read and ``wchan``
shows 0. ``schedstat`` counts nanoseconds on a processor, nanoseconds of waiting for one, and turns; a wait is counted
when it is over, so a thread that is not run at all shows no wait. None of the files read here takes the lock of the
process's memory map, which a process that is stuck in the kernel may hold for ever.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass

from unhang._core import real_time as time
from unhang._platform import syscalls
from unhang._platform.process import _read

MOST_THREADS = 256
_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_PAGE = 4096 if not hasattr(os, "sysconf") else os.sysconf("SC_PAGE_SIZE")
# A call that a debugger or a stop interrupted goes on under another number, but in the same function of the kernel.
_RESTARTED = {"hrtimer_nanosleep": "clock_nanosleep", "futex": "futex", "do_sys_poll": "poll", "poll_": "poll"}


@dataclass(frozen=True, slots=True)
class ThreadLook:
    """One thread at one moment.

    Attributes:
        id: the kernel's number of it.
        name: what the kernel calls it.
        state: the kernel's letter.
        wchan: the function of the kernel that it waits in; empty if it runs or that may not be read.
        syscall: the name of its system call, ``running``, or empty if that may not be read.
        arguments: the six arguments of that call.
        cpu: seconds on a processor.
        delayed: seconds of waiting for one, as far as they are over.
        turns: how often it was given one; -1 if that is not counted here.
        sleeps: how often it has given a processor up by itself; -1 if it did so just now, or if that is not known.
        started: when, only to be compared.
    """

    id: int
    name: str = ""
    state: str = ""
    wchan: str = ""
    syscall: str = ""
    arguments: tuple[int, ...] = ()
    cpu: float = 0.0
    delayed: float = 0.0
    turns: int = -1
    sleeps: int = -1
    started: int = 0


@dataclass(frozen=True, slots=True)
class Look:
    """A process at one moment.

    Attributes:
        pid: its number.
        instant: on the monotonic clock.
        state: the kernel's letter, of its main thread.
        tracer: the pid of the debugger that holds it, or 0.
        group: its group id, for who must run as it.
        threads: by id, at most `MOST_THREADS`, the main thread first.
        count: how many threads it has.
        cpu: seconds of processor time since it was started, all threads together.
        major_faults: pages that it has read from disk since then.
        memory: bytes of resident memory.
        swapped: bytes of swapped memory.
        inner: the thread ids of its own pid namespace, and what they are here; empty if it is in ours.
    """

    pid: int
    instant: float
    state: str = ""
    tracer: int = 0
    group: int = 0
    threads: tuple[ThreadLook, ...] = ()
    count: int = 0
    cpu: float = 0.0
    major_faults: int = 0
    memory: int = 0
    swapped: int = 0
    inner: tuple[tuple[int, int], ...] = ()

    def thread(self, number: int) -> ThreadLook | None:
        """The thread with this id."""
        return next((thread for thread in self.threads if thread.id == number), None)


def look(pid: int, thread: int = 0) -> Look | None:
    """What procfs says about a process now; None when it has exited, or may not be seen. Never raises.

    Args:
        pid: the process.
        thread: the id of a thread that is looked at however many there are; 0: of none.
    """
    try:
        instant = time.monotonic()
        fields = _stat(f"/proc/{pid}")[1]
        status = _status(pid)
        threads, inner = _threads(pid, thread, namespaces=len(status.get(b"NSpid", b"").split()) > 1)
    except (OSError, ValueError, IndexError):
        return None
    return Look(
        pid=pid,
        instant=instant,
        state=fields[0].decode(),
        tracer=_first(status, b"TracerPid"),
        group=_first(status, b"Gid"),
        threads=threads,
        count=int(fields[17]),
        cpu=(int(fields[11]) + int(fields[12])) / _TICKS,
        major_faults=int(fields[9]),
        memory=int(fields[21]) * _PAGE,
        swapped=_first(status, b"VmSwap") * 1024,
        inner=inner,
    )


def command(pid: int) -> str:
    """Its command line, cut; of a kernel thread or a zombie, nothing.

    May not come back for a process that is stuck in the kernel: see `unhang._platform.patience`.

    Raises:
        OSError: it has exited, or may not be seen.
    """
    with open(f"/proc/{pid}/cmdline", "rb", buffering=0) as file:
        return file.read(500).rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")


def name_of(pid: int) -> str:
    """What the kernel calls a process; empty if it has exited. Never raises."""
    try:
        return _stat(f"/proc/{pid}")[0]
    except (OSError, ValueError):
        return ""


def _stat(directory: str) -> tuple[str, list[bytes]]:
    """The name and the fields from the third on of a ``stat`` file."""
    stat = _read(f"{directory}/stat")
    start, end = stat.index(b"(") + 1, stat.rindex(b")")
    return stat[start:end].decode(errors="replace"), stat[end + 2 :].split()


def _status(pid: int) -> dict[bytes, bytes]:
    lines = _read(f"/proc/{pid}/status").split(b"\n")
    return {name: value for name, _, value in (line.partition(b":") for line in lines)}


def _first(status: dict[bytes, bytes], name: bytes) -> int:
    words = status.get(name, b"").split()
    return int(words[0]) if words else 0


def _threads(pid: int, wanted: int, *, namespaces: bool) -> tuple[tuple[ThreadLook, ...], tuple[tuple[int, int], ...]]:
    with os.scandir(f"/proc/{pid}/task") as entries:
        numbers = [int(entry.name) for entry in itertools.islice(entries, MOST_THREADS)]
    if wanted and wanted not in numbers:
        numbers[MOST_THREADS - 1 :] = [wanted]
    threads, inner = [], []
    for number in sorted(numbers, key=lambda number: (number != pid, number)):
        directory = f"/proc/{pid}/task/{number}"
        try:
            threads.append(_thread(number, directory))
            if namespaces:
                inner.append((_inner_id(directory), number))
        except (OSError, ValueError, IndexError):
            continue  # it has ended just now
    return tuple(threads), tuple(inner)


def _thread(number: int, directory: str) -> ThreadLook:
    name, fields = _stat(directory)
    wchan = _wchan(directory)
    syscall, arguments = _syscall(directory)
    if syscall == "restart_syscall":
        syscall = next((call for start, call in _RESTARTED.items() if wchan.startswith(start)), syscall)
    cpu, delayed, turns = _schedule(directory, fields)
    return ThreadLook(
        id=number,
        name=name,
        state=fields[0].decode(),
        wchan=wchan,
        syscall=syscall,
        arguments=arguments,
        cpu=cpu,
        delayed=delayed,
        turns=turns,
        sleeps=_sleeps(directory) if fields[0] == b"R" else -1,
        started=int(fields[19]),
    )


def _inner_id(directory: str) -> int:
    status = _read(f"{directory}/status")
    start = status.index(b"\nNSpid:") + len(b"\nNSpid:")
    return int(status[start : status.index(b"\n", start)].split()[-1])


def _sleeps(directory: str) -> int:
    status = _read(f"{directory}/status")
    name = b"\nvoluntary_ctxt_switches:"
    start = status.find(name)
    return -1 if start < 0 else int(status[start + len(name) :].split(maxsplit=1)[0])


def _wchan(directory: str) -> str:
    try:
        wchan = _read(f"{directory}/wchan").decode(errors="replace")
    except OSError:
        return ""
    return "" if wchan == "0" else wchan[:64]


def _syscall(directory: str) -> tuple[str, tuple[int, ...]]:
    try:
        words = _read(f"{directory}/syscall").split()
    except OSError:
        return "", ()
    if not words or words[0] == b"running":
        return "running" if words else "", ()
    number = int(words[0])
    # -1: it is blocked, but not in a system call; for example in a page fault.
    return ("" if number < 0 else syscalls.name(number)), tuple(int(word, 16) for word in words[1:7])


def _schedule(directory: str, fields: list[bytes]) -> tuple[float, float, int]:
    try:
        cpu, delayed, turns = (int(word) for word in _read(f"{directory}/schedstat").split())
    except (OSError, ValueError):
        return (int(fields[11]) + int(fields[12])) / _TICKS, 0.0, -1
    return cpu / 1e9, delayed / 1e9, turns
