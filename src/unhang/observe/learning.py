"""Writes down how long blocks took, for later runs to learn their budgets from."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from unhang._core.histogram import Durations
from unhang._core.learned import MARK, FormatError, Learned, NewerFormatError, encode, is_scope
from unhang._core.memory import Memory
from unhang._platform.directories import UnsafePathError, open_safely
from unhang._platform.whole_file import remove_stale, write_whole
from unhang._worker.learned_file import read, reason
from unhang.errors import UnhangError

logger = logging.getLogger("unhang.observe")

# A lock that keeps others out needs a file that may be written to, where it goes over the network.
_LOCK = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
# Seconds between two looks at a lock that somebody else has.
_RETRY = 0.02


class LearnedFileError(UnhangError, OSError):
    """Durations cannot be kept in this file.

    Attributes:
        path: the file.
        reason: why not, and what to do.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(errno.EIO, reason, path)
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (self.path, self.reason)

    def __str__(self) -> str:
        return f"no durations can be kept in {self.path!r}: {self.reason}"


class LearnedFile:
    """A file of durations, to which several processes, and several hosts with a common file system, may add.

    What is added is kept until it could be saved. The file is replaced as a whole, and on the disk when `save` returns.
    It and its directory, which has to exist, belong to this user, and nobody else may write to them. Beside it lie
    ``NAME.lock``, ``NAME.corrupt`` if there was something else in its place, and for a moment ``.NAME-….tmp``.

    One writes at a time, by ``flock``. Linux passes that lock on to an NFS server, unless the file system is mounted
    with ``nolock`` or ``local_lock``: then what two hosts save at the same moment is kept of one of them alone, and the
    file is sound all the same.

    Not thread-safe.

    Args:
        path: the file; it need not be there.
        patience: how many seconds `save` waits for others.
        clock: the wall clock, in seconds.
    """

    def __init__(self, path: str, *, patience: float = 10.0, clock: Callable[[], float] = time.time) -> None:
        self.path = str(Path(path).absolute())
        self._directory = str(Path(self.path).parent)
        self._name = Path(self.path).name
        self._patience = patience
        self._clock = clock
        self._unsaved: dict[str, Durations] = {}

    def add(self, durations: Mapping[str, Durations]) -> None:
        """Add what was seen since the last time, by scope."""
        now = int(self._clock())
        for scope, more in durations.items():
            if not is_scope(scope):
                continue  # of a worker that is broken, or makes them up
            before = self._unsaved.get(scope)
            seen = _stamped(more, now)
            self._unsaved[scope] = before.merge(seen) if before else seen

    @property
    def unsaved(self) -> int:
        """How many scopes have something that is not saved yet."""
        return len(self._unsaved)

    def check(self) -> None:
        """Find out now whether `save` will be possible, as far as can be told; puts something else aside.

        Raises:
            LearnedFileError: it will not.
        """
        try:
            with self._opened() as directory:
                self._learned(directory)  # before a lock is put beside something else
                with self._locked(directory):
                    pass
        except LearnedFileError:
            raise
        except OSError as error:
            raise LearnedFileError(self.path, reason(error)) from error

    def save(self) -> None:
        """Bring what was added into the file; all of it is kept for the next time if that fails.

        Raises:
            LearnedFileError: it cannot be written, or must not be.
        """
        if not self._unsaved:
            return
        try:
            with self._opened() as directory, self._locked(directory):
                learned = self._learned(directory)
                self._bring_in(learned)
                unfinished = f".{self._name}"
                write_whole(directory, self._name, encode(learned), unfinished=unfinished, durable=True)
                remove_stale(directory, unfinished, self._clock)
        except LearnedFileError:
            raise
        except OSError as error:
            raise LearnedFileError(self.path, reason(error)) from error
        self._unsaved = {}

    def _bring_in(self, learned: Learned) -> None:
        now = int(self._clock())
        for scope, more in self._unsaved.items():
            learned.scopes.setdefault(scope, Memory()).add(more, now)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        """A descriptor of the directory, which only this user may write to."""
        if not self._name:
            raise LearnedFileError(self.path, "it is a directory; name a file")
        try:
            descriptor = open_safely(self._directory, follow=True)
        except UnsafePathError as error:
            raise LearnedFileError(self.path, f"{error.strerror}; name another file") from error
        except FileNotFoundError as error:
            problem = f"there is no directory {self._directory!r}; make it, or name another file"
            raise LearnedFileError(self.path, problem) from error
        try:
            status = os.fstat(descriptor)
            if status.st_uid != os.geteuid():
                raise LearnedFileError(self.path, f"its directory belongs to another user (uid {status.st_uid})")
            if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                mode = stat.S_IMODE(status.st_mode)
                raise LearnedFileError(self.path, f"others may write to its directory (mode {mode:o}); chmod go-w it")
            yield descriptor
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def _locked(self, directory: int) -> Iterator[None]:
        descriptor = os.open(f"{self._name}.lock", _LOCK, 0o600, dir_fd=directory)
        try:
            give_up = time.monotonic() + self._patience
            while not _try_lock(descriptor):
                if time.monotonic() > give_up:
                    raise LearnedFileError(self.path, f"somebody else has locked it for {self._patience:g} s")
                time.sleep(_RETRY)
            yield
        finally:
            # Which unlocks it.
            os.close(descriptor)

    def _learned(self, directory: int) -> Learned:
        """What is in the file; one of ours that is broken is put aside."""
        try:
            return read(self._name, directory)
        except FileNotFoundError:
            return Learned()
        except NewerFormatError as error:
            raise LearnedFileError(self.path, f"{error}; name another file") from error
        except FormatError as error:
            if not _was_ours(self._name, directory):
                raise LearnedFileError(
                    self.path, f"something else stands there ({error}); name another file"
                ) from error
            aside = _free_name(f"{self._name}.corrupt", directory)
            os.replace(self._name, aside, src_dir_fd=directory, dst_dir_fd=directory)
            logger.warning("%s is kept as %s, and learning begins anew: %s", self.path, aside, error)
            return Learned()


def _was_ours(name: str, directory: int) -> bool:
    """Whether a plain file begins as those do that are written here, or is empty."""
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=directory)
    try:
        is_plain = stat.S_ISREG(os.fstat(descriptor).st_mode)
        beginning = os.read(descriptor, 64) if is_plain else b"-"
    finally:
        os.close(descriptor)
    return not beginning.strip() or MARK.encode() in beginning


def _free_name(name: str, directory: int) -> str:
    """The same, or with a number behind it: what was put aside before stays."""
    taken = set(os.listdir(directory))
    names = (name if not number else f"{name}.{number}" for number in range(len(taken) + 1))
    return next(each for each in names if each not in taken)


def _stamped(durations: Durations, now: int) -> Durations:
    """The same, with the moment at which its budget was seen."""
    return durations if durations.seen else durations.merge(Durations(budget=durations.budget, seen=now))


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
