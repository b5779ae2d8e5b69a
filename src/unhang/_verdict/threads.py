"""The threads of a worker in the order in which they matter, with what procfs says about each."""

from __future__ import annotations

import msgspec

from unhang._platform.look import Look
from unhang._verdict.stacks import printable
from unhang.report.model import Thread


def number(threads: tuple[Thread, ...], seen: Look) -> tuple[Thread, ...]:
    """Threads of py-spy, with the ids that they have here: it tells those of the worker's own pid namespace."""
    inner = dict(seen.inner)
    known = {thread.id for thread in seen.threads}
    return tuple(_numbered(thread, inner, known, seen.pid) for thread in threads)


def _numbered(thread: Thread, inner: dict[int, int], known: set[int], pid: int) -> Thread:
    own = inner.get(thread.id, 0) if inner else thread.id
    if own not in known:
        own = pid if thread.name == "MainThread" else own
    return msgspec.structs.replace(thread, id=own)


def guess_numbers(threads: tuple[Thread, ...], seen: Look, hint: int, *, last_is_main: bool) -> tuple[Thread, ...]:
    """Threads of ``faulthandler``, with an id where only one is possible.

    From Python 3.14 on the text has the kernel's names of threads: that of the main thread is the program's.

    Args:
        threads: in the order of the text.
        seen: the look at the process.
        hint: the id of a thread that runs Python code, 0 for none.
        last_is_main: whether the main thread is the last, or the only one.
    """
    if not last_is_main:
        return threads
    main = msgspec.structs.replace(threads[-1], id=seen.pid, name="MainThread")
    others = threads[:-1]
    if len(others) == 1 and hint not in (0, seen.pid) and seen.thread(hint) is not None:
        others = (msgspec.structs.replace(others[0], id=hint),)
    return (*others, main)


def order(threads: tuple[Thread, ...], hint: int, pid: int, scope: str) -> tuple[Thread, ...]:
    """The thread of the expired block first, then the main thread, then the others as they came."""
    if not threads:
        return threads
    first = _relevant(threads, hint, scope)
    return tuple(sorted(threads, key=lambda thread: (thread is not first, thread.id != pid)))


def _relevant(threads: tuple[Thread, ...], hint: int, scope: str) -> Thread | None:
    hinted = next((thread for thread in threads if hint and thread.id == hint), None)
    if hinted is not None:
        return hinted
    file, _, line = scope.rpartition(":")
    if not file or not line.isdecimal():
        return None
    # A block without a name is named by where it begins: who is in it is at a line of that file behind it.
    begins = int(line)
    distances = [
        (min(frame.line - begins for frame in thread.frames if frame.file == file and frame.line >= begins), thread)
        for thread in threads
        if any(frame.file == file and frame.line >= begins for frame in thread.frames)
    ]
    return min(distances, key=lambda pair: pair[0])[1] if distances else None


def fill(threads: tuple[Thread, ...], seen: Look) -> tuple[Thread, ...]:
    """The threads with state, wchan and system call; without any stack, those that procfs shows."""
    looks = {thread.id: thread for thread in seen.threads}
    known = threads or tuple(Thread(id=number) for number in looks)
    return tuple(
        thread
        if (its := looks.get(thread.id)) is None
        else msgspec.structs.replace(
            thread, name=thread.name or printable(its.name), state=its.state, wchan=its.wchan, syscall=its.syscall
        )
        for thread in known
    )
