"""Removes the sockets of watchdogs that were killed before they could do it themselves.

Only what is dead for sure goes: a socket of this user's in a directory of this user's alone, named by `new_address`,
that refuses connections, on a file system of this host, whose maker has ended, and that was there a minute ago. A
watchdog that starts listens within microseconds of having made its socket.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import stat
import time

from unhang._platform.socket_directory import directories_to_search, is_fresh

_OURS = re.compile(r"(?:watchdog|of)-(\d{1,10})-[0-9a-f]{8}\.sock")
# Seconds.
_OLD = 60.0
# Entries of a directory that are looked at in one start.
_MOST = 1000
# On others, such as NFS, the socket may be another host's, which nobody here can connect to.
_LOCAL = frozenset(
    {"bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "ramfs", "rootfs", "tmpfs", "xfs", "zfs"}
)


def sweep() -> None:
    """Remove what is dead from the directories of this user. Never raises, and never waits but for the file system."""
    with contextlib.suppress(OSError):
        local = _local_devices()
        for directory in [each for group in directories_to_search() for each in group]:
            with contextlib.suppress(OSError):
                _sweep(directory, local)


def _sweep(directory: str, local: frozenset[int]) -> None:
    status = os.stat(directory, follow_symlinks=False)
    if status.st_dev not in local:
        return
    now = time.time()
    with os.scandir(directory) as entries:
        names = [entry.name for _, entry in zip(range(_MOST), entries, strict=False)]
    for name in names:
        found = _OURS.fullmatch(name)
        if found is not None and not _exists(int(found[1])):
            with contextlib.suppress(OSError):
                _remove_if_dead(os.path.join(directory, name), now)
    if is_fresh(directory) and now - status.st_mtime > _OLD:
        os.rmdir(directory)  # which fails unless it is empty


def _remove_if_dead(path: str, now: float) -> None:
    before = os.stat(path, follow_symlinks=False)
    is_ours = stat.S_ISSOCK(before.st_mode) and before.st_uid == os.geteuid()
    if is_ours and now - before.st_mtime > _OLD and _refuses(path):
        after = os.stat(path, follow_symlinks=False)
        if (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns):
            os.unlink(path)


def _refuses(path: str) -> bool:
    """Whether nothing listens there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False  # busy, or gone by now
    return False


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _local_devices() -> frozenset[int]:
    """The devices of file systems that only this host has."""
    devices = set()
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as mounts:
        for line in mounts:
            about, _, kind = line.partition(" - ")
            if kind.split(" ", 1)[0] in _LOCAL:
                major, _, minor = about.split()[2].partition(":")
                devices.add(os.makedev(int(major), int(minor)))
    return frozenset(devices)
