"""What is around a worker: what it waits for, its connections, its children, the end of its standard error."""

from __future__ import annotations

import functools
from collections.abc import Callable

from unhang._core import real_time as time
from unhang._core.texts import escaped
from unhang._platform import surroundings, waits
from unhang._platform.look import ThreadLook
from unhang._platform.patience import within
from unhang._platform.waits import Target
from unhang._verdict.stacks import printable
from unhang.report import model

_MOST_SOCKETS = 32
_PATIENCE = 0.1


class Around:
    """The surroundings of one worker, read when they are asked for and once. Not thread-safe.

    Args:
        pid: the worker.
        give_up: the monotonic instant at which nothing more is read.
        foreign: whether it is another user's, whose files are not read for a report of ours.
    """

    def __init__(self, pid: int, give_up: float, *, foreign: bool) -> None:
        self._pid = pid
        self._give_up = give_up
        self._foreign = foreign
        self._descriptors: dict[int, str] | None = None
        self._connections: dict[int, surroundings.Connection] = {}
        self._targets: dict[int, tuple[Target, ...] | None] = {}
        self._children: list[surroundings.ChildSeen] | None = None
        self._read = False
        self.without: list[str] = []
        self.sockets: tuple[model.Socket, ...] = ()
        self.children: tuple[model.Child, ...] = ()
        self.stderr = ""

    def look(self, stderr: Callable[[], str] | None) -> None:
        """Fill in the sockets, the children, and the end of the standard error, told by ``stderr`` if it is given."""
        self._read_descriptors()
        known = sorted(self._connections.values(), key=lambda one: one.kind == "unix")
        self.sockets = tuple(_socket(one) for one in known if one.kind != "unix")[:_MOST_SOCKETS]
        children = self._seen_children()
        self.children = tuple(model.Child(pid=one.pid, name=printable(one.name), state=one.state) for one in children)
        if stderr is None and not self._foreign:
            stderr = functools.partial(surroundings.stderr_tail, self._pid)
        if stderr is not None:
            tail = within(self._patience(), stderr, "")[-surroundings.STDERR_TAIL :]
            self.stderr = "\n".join(_plain(line) for line in tail.splitlines())

    def targets(self, thread: ThreadLook | None) -> tuple[Target, ...] | None:
        """What a thread waits for in its system call; None if that cannot be told."""
        if thread is None:
            return None
        if thread.id not in self._targets:
            self._targets[thread.id] = self._targets_of(thread)
        return self._targets[thread.id]

    def names_of_children(self) -> tuple[str, ...]:
        """Its children, as a reader knows them."""
        zombies = {"Z": ", a zombie", "T": ", stopped"}
        return tuple(f"{one.name} (pid {one.pid}{zombies.get(one.state, '')})" for one in self._seen_children())

    def _targets_of(self, thread: ThreadLook) -> tuple[Target, ...] | None:
        find = functools.partial(waits.numbers, self._pid, thread)
        if waits.waits_on_memory(thread):
            numbers = within(self._patience(), find, None)
        else:
            try:
                numbers = find()
            except OSError:
                numbers = None
        if numbers is None:
            return None
        self._read_descriptors()
        if self._descriptors is None:
            return None
        names = [self._descriptors[number] for number in numbers if number in self._descriptors]
        return tuple(waits.target(name, self._connections) for name in names)

    def _read_descriptors(self) -> None:
        if self._read:
            return
        self._read = True
        try:
            self._descriptors = surroundings.descriptors(self._pid)
        except OSError:
            self.without.append("its descriptors may not be read: no sockets")
            return
        inodes = {inode for name in self._descriptors.values() if (inode := surroundings.socket_inode(name))}
        if inodes:
            self._connections = surroundings.connections(self._pid, inodes, time.monotonic() + self._patience())

    def _seen_children(self) -> list[surroundings.ChildSeen]:
        if self._children is None:
            self._children = surroundings.children(self._pid)
        return self._children

    def _patience(self) -> float:
        return max(0.0, min(_PATIENCE, self._give_up - time.monotonic()))


def _plain(line: str) -> str:
    return escaped(line, "\t")


def _socket(one: surroundings.Connection) -> model.Socket:
    return model.Socket(kind=one.kind, local=one.local, remote=one.remote, status=one.status)
