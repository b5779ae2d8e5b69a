"""Directories, made with a certain mode and opened without being led elsewhere.

The umask may be one with which a new directory could not even be entered, and a path may lead through those of others.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

PRIVATE = 0o700
_STEP = getattr(os, "O_PATH", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_MOST_LINKS = 40


def make_directory(path: str, mode: int = PRIVATE) -> None:
    """Make a directory with just this mode.

    Its parent must be one in which no other user can replace what this user has made.

    Raises:
        OSError: it cannot be made; FileExistsError: something is there.
    """
    os.mkdir(path, mode)
    os.chmod(path, mode)


def make_directories(path: str) -> None:
    """Make a directory, and those above it, each for this user alone; what is there already stays as it is.

    Raises:
        OSError: one cannot be made.
    """
    missing = []
    while path and not os.path.lexists(path):
        missing.append(path)
        path = os.path.dirname(path.rstrip("/"))
    for each in reversed(missing):
        with contextlib.suppress(FileExistsError):
            make_directory(each)


class UnsafePathError(PermissionError):
    """Another user could put something else at a path; ``strerror`` says how, with the part of the path."""


def open_safely(path: str, *, make: bool = False, follow: bool = False) -> int:
    """Open a directory, one part of its path after the other; what comes in between can no more change that.

    Each directory on the way belongs to this user or the system, and is not for everybody to write to, unless it is
    sticky. A link above the directory is followed if it belongs to one of them as well.

    Args:
        path: an absolute path.
        make: whether to make what is missing, for this user alone.
        follow: whether the directory itself may be a link.

    Raises:
        UnsafePathError: another user could change where the path leads.
        NotADirectoryError: it is a link or a file.
        OSError: it cannot be opened or made.
    """
    if not hasattr(os, "O_PATH"):
        if make:
            make_directories(path)
        return os.open(path, os.O_RDONLY)
    walk = _Walk(path)
    try:
        while walk.parts:
            walk.step(make=make, follow=follow)
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=walk.fd)
    finally:
        os.close(walk.fd)


class _Walk:
    """A walk from the root to a directory, with a descriptor of where it is."""

    def __init__(self, path: str) -> None:
        self.parts = _parts(path)
        self.fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        # In a user namespace, the system's user is an unmapped one, to which / belongs.
        self._owners = {os.geteuid(), 0, os.fstat(self.fd).st_uid}
        self._links = 0
        self._seen = ""

    def step(self, *, make: bool, follow: bool) -> None:
        """Go on to the next part of the path."""
        name = self.parts.pop(0)
        try:
            new = os.open(name, _STEP, dir_fd=self.fd)
        except FileNotFoundError:
            if not make:
                raise
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, PRIVATE, dir_fd=self.fd)
                os.chmod(name, PRIVATE, dir_fd=self.fd)
            new = os.open(name, _STEP, dir_fd=self.fd)
        self._seen += f"/{name}"
        try:
            status = os.fstat(new)
            is_link = stat.S_ISLNK(status.st_mode)
            if not (stat.S_ISDIR(status.st_mode) or is_link) or (is_link and not (self.parts or follow)):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), self._seen)
            if self.parts or is_link:  # the directory itself is the caller's to check
                self._check(status, is_link=is_link)
            if is_link:
                self._follow(os.readlink(name, dir_fd=self.fd))
            else:
                self.fd, new = new, self.fd
        finally:
            os.close(new)

    def _check(self, status: os.stat_result, *, is_link: bool) -> None:
        if status.st_uid not in self._owners:
            problem = f"{self._seen!r} belongs to another user (uid {status.st_uid})"
        elif not is_link and status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
            problem = f"anybody may write to {self._seen!r} (mode {stat.S_IMODE(status.st_mode):o})"
        else:
            return
        raise UnsafePathError(errno.EPERM, problem)

    def _follow(self, target: str) -> None:
        self._links += 1
        if self._links > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), self._seen)
        self.parts[:0] = _parts(target)
        if os.path.isabs(target):
            root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            os.close(self.fd)
            self.fd = root
            self._seen = ""
        else:
            self._seen = os.path.dirname(self._seen)


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]
