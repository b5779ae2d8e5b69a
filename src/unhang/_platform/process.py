"""Processes: who they are, and signals that reach the one that is meant.

A pid is a number that the kernel gives to another process once its owner is gone. A process is therefore
``(pid, start time)``, held by a pidfd where the kernel has them (Linux 5.3): a signal through a pidfd reaches
that process or nobody. Facts come from procfs on Linux and from psutil elsewhere.
"""

from __future__ import annotations

import errno
import functools
import os
import resource
import select
import signal
import socket
import sys

from unhang._core.rules import Facts, Me
from unhang._platform.credentials import peer_credentials
from unhang._platform.descriptor import past_streams
from unhang._platform.finalizer import finalizer

LINUX = sys.platform == "linux"
_NOBODY = {errno.ENOENT, errno.ESRCH, errno.EACCES, errno.EPERM, errno.ENOTDIR}
# A watchdog shares its process with an agent, for which the last quarter of the descriptors is left.
_OUR_SHARE = 0.75
# Not in Python's socket module yet; the number that Linux gives it on all but three old architectures.
_SO_PEERPIDFD = 77


def facts(pid: int) -> Facts | None:
    """What the kernel says about a process; None when there is none, or when it may not be seen.

    Raises:
        OSError: it cannot be told; for example, this process is short of descriptors.
    """
    return _facts_procfs(pid) if LINUX else _facts_psutil(pid)


def _read(path: str) -> bytes:
    # A kill waits for these files: pathlib takes several times as long.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 65536)
    finally:
        os.close(fd)


def _number(status: bytes, name: bytes) -> int:
    """The first number of a line of ``/proc/PID/status``."""
    start = status.index(name) + len(name)
    return int(status[start : status.index(b"\n", start)].split()[0])


def _stat(pid: int) -> list[bytes]:
    """The fields of ``/proc/PID/stat`` from the third on, which is the state.

    Raises:
        OSError: there is no such process, or it may not be seen.
    """
    stat = _read(f"/proc/{pid}/stat")
    # The name in parentheses may hold anything, parentheses included: the fields start behind the last one.
    return stat[stat.rindex(b")") + 2 :].split()


def _facts_procfs(pid: int) -> Facts | None:
    try:
        start_time = float(_stat(pid)[19])
    except OSError as error:
        if error.errno in _NOBODY:
            return None
        raise
    return _facts_of_status(pid, start_time)


def _facts_of_status(pid: int, start_time: float) -> Facts | None:
    try:
        status = _read(f"/proc/{pid}/status")
    except OSError as error:
        if error.errno in _NOBODY:
            return None
        raise
    start = status.index(b"\nState:\t") + len(b"\nState:\t")
    state = status[start : start + 1]
    return Facts(
        pid=pid,
        group=_number(status, b"\nNSpgid:"),
        user=_number(status, b"\nUid:"),
        start_time=start_time,
        tracer=_number(status, b"\nTracerPid:"),
        exited=state in (b"Z", b"X"),
        stopped=state == b"T",
    )


def _facts_psutil(pid: int) -> Facts | None:
    import psutil

    try:
        process = psutil.Process(pid)
        with process.oneshot():
            return Facts(
                pid=pid,
                group=os.getpgid(pid),
                user=process.uids().real,
                start_time=process.create_time(),
                exited=process.status() == psutil.STATUS_ZOMBIE,
            )
    except (psutil.Error, OSError):
        return None


def me(*, fresh: bool = False) -> Me:
    """This process, as the rules see it.

    Args:
        fresh: read the ancestors again. One that exits hands its children to an ancestor of its own, so the set only
            shrinks, and an old one protects more: also whoever got the pid of an ancestor that is gone.

    Raises:
        OSError: its ancestors cannot be told, as for `facts`.
    """
    if fresh:
        _ancestors.cache_clear()
    users = frozenset({os.getuid(), os.geteuid()})
    return Me(os.getpid(), os.getpgid(0), users, _ancestors(os.getpid(), os.getppid()))


@functools.lru_cache(maxsize=1)
def _ancestors(pid: int, parent: int) -> frozenset[int]:  # noqa: ARG001 - they are what may change
    return _ancestors_procfs() if LINUX else _ancestors_psutil()


def _ancestors_procfs() -> frozenset[int]:
    # psutil.Process.parents() takes seven times as long, and a kill waits for this.
    ancestors = set()
    pid = os.getppid()
    try:
        while pid > 0 and pid not in ancestors:
            ancestors.add(pid)
            pid = int(_stat(pid)[1])
    except OSError as error:
        # Those beyond one that may not be seen may not be seen either; any other error must not pass for that.
        if error.errno not in _NOBODY:
            raise
    return frozenset(ancestors)


def _ancestors_psutil() -> frozenset[int]:
    import psutil

    try:
        return frozenset(parent.pid for parent in psutil.Process().parents())
    except psutil.Error:
        return frozenset({os.getppid()})


def group_members(group: int) -> list[Facts]:
    """The processes of a process group, zombies left out."""
    import psutil

    found: list[Facts] = []
    try:
        # Most groups that do not exist are found out without a look at every process.
        os.killpg(group, 0)
    except ProcessLookupError:
        return found
    except OSError:
        pass
    for pid in psutil.pids():
        try:
            if os.getpgid(pid) != group:
                continue
        except OSError:
            continue
        member = facts(pid)
        if member is not None and member.group == group and not member.exited:
            found.append(member)
    return found


class ProcessHandle:
    """One process: not whoever has its pid later. Close it when done; not thread-safe."""

    def __init__(self, pid: int, start_time: float, fd: int) -> None:
        self.pid = pid
        self.start_time = start_time
        self.fd = fd  # the pidfd; -1 where there is none

    @classmethod
    def open(cls, pid: int) -> ProcessHandle | None:
        """The process that has this pid now; None when there is none, when it has exited, or may not be seen.

        Raises:
            OSError: it cannot be told, as for `facts`.
        """
        try:
            fd = _open_pidfd(pid)
        except OSError:
            return None
        return cls._of(pid, fd)

    @classmethod
    def of_peer(cls, peer: socket.socket) -> ProcessHandle | None:
        """The process that connected this unix socket; None when it has exited, or may not be seen.

        Raises:
            OSError: it cannot be told, as for `facts`.
        """
        pid = peer_credentials(peer)[0]
        if pid <= 0:
            return None  # of a pid namespace that we do not see into
        try:
            # Linux 6.5: the pidfd of the very process that connected.
            fd = past_streams(peer.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD))
        except OSError:
            handle = cls.open(pid)
            if handle is not None and _has_hung_up(peer):
                handle.close()  # so that its pid may have been another one's by then
                return None
            return handle
        return cls._of(pid, _within_our_share(fd))

    @classmethod
    def _of(cls, pid: int, fd: int) -> ProcessHandle | None:
        handle = cls(pid, 0.0, fd)
        try:
            # Read behind the pidfd: if that is still alive afterwards, these facts are its own.
            seen = facts(pid)
        except OSError:
            handle.close()
            raise
        handle.start_time = seen.start_time if seen else 0.0
        if seen is None or not handle.alive():
            handle.close()
            return None
        return handle

    def copy(self) -> ProcessHandle:
        """The same process, with a descriptor of its own, or without one where they run short."""
        try:
            fd = past_streams(os.dup(self.fd)) if self.fd >= 0 else -1
        except OSError:
            fd = -1
        return ProcessHandle(self.pid, self.start_time, fd)

    def alive(self) -> bool:
        """Whether the process still runs, as far as anybody can tell; a zombie does not."""
        if self.fd >= 0:
            poll = select.poll()
            poll.register(self.fd, select.POLLIN)
            return not poll.poll(0)
        try:
            seen = facts(self.pid)
        except OSError:
            return True  # this process is short of descriptors: it will be asked again
        return seen is not None and not seen.exited and seen.start_time == self.start_time

    def is_stale(self) -> bool:
        """Whether another process may have the pid without a pidfd having told."""
        return self.fd < 0 and not self.alive()

    def facts(self) -> Facts | None:
        """What the kernel says about the process now; None when it has exited."""
        if self.fd >= 0 and LINUX:
            # The pidfd tells whether it is still this process, so one file says the rest: a kill waits for it.
            seen = _facts_of_status(self.pid, self.start_time)
            return seen if self.alive() else None
        seen = facts(self.pid)
        return seen if seen is not None and seen.start_time == self.start_time and self.alive() else None

    def send(self, number: int) -> None:
        """Send a signal.

        Raises:
            ProcessLookupError: the process has exited.
            OSError: the kernel does not allow it.
        """
        if self.fd >= 0:
            signal.pidfd_send_signal(self.fd, number)
        elif self.alive():
            os.kill(self.pid, number)
        else:
            raise ProcessLookupError(self.pid)

    def close(self) -> None:
        """Give the descriptor back. May be called twice."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    __del__ = finalizer(close)


def _open_pidfd(pid: int) -> int:
    """A pidfd, or -1 where pidfds are missing or this process is short of descriptors.

    Raises:
        OSError: there is no such process.
    """
    if not hasattr(os, "pidfd_open"):
        return -1
    try:
        fd = past_streams(os.pidfd_open(pid))
    except (ProcessLookupError, ValueError):
        raise
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EMFILE, errno.ENFILE, errno.EPERM):
            return -1
        raise
    return _within_our_share(fd)


def _within_our_share(fd: int) -> int:
    """The pidfd, or -1 where the descriptors of this process run short."""
    if fd >= resource.getrlimit(resource.RLIMIT_NOFILE)[0] * _OUR_SHARE:
        os.close(fd)
        return -1
    os.set_inheritable(fd, False)
    return fd


def has_another_clock(pid: int) -> bool:
    """Whether the process is in another time namespace, where the monotonic clock shows another time."""
    try:
        return os.readlink(f"/proc/{pid}/ns/time") != os.readlink("/proc/self/ns/time")
    except OSError:
        return False


def _has_hung_up(peer: socket.socket) -> bool:
    poll = select.poll()
    poll.register(peer, 0)
    return bool(poll.poll(0))
