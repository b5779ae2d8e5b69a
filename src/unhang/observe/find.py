"""Which watchdog is meant: the one that is named, or the only one that runs."""

from __future__ import annotations

import functools
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from unhang._platform import look
from unhang._platform.credentials import peer_credentials
from unhang._platform.patience import within
from unhang._platform.socket_directory import directories_to_search
from unhang.errors import ViewError
from unhang.report.words import clean

ADDRESS = "UNHANG_ADDRESS"
_MOST_NAMED = 8
# Characters of a command that are shown.
_LONGEST = 160
# Seconds for one that is stuck in the kernel.
_PATIENCE = 0.5


def find_watchdog(address: str | None = None) -> str:
    """The address of the watchdog to look at.

    It is the one that is given; else the one in ``UNHANG_ADDRESS``; else the only one that listens where
    ``unhang run``, ``unhang serve`` and `unhang.configure` put theirs by default: in a well-known directory, else in a
    fresh one.

    Raises:
        ViewError: there is none, or there are several; the message lists them, and whose each is.
    """
    address = address or os.environ.get(ADDRESS)
    if address:
        return address
    groups = directories_to_search()
    owners: dict[str, int] = {}
    for directories in groups:
        owners = owners or {path: owner for directory in directories for path, owner in _owners(directory)}
    found = list(owners)
    if len(found) == 1:
        return found[0]
    if not found:
        where = " or ".join(groups[0]) or "any directory of this user's"
        raise ViewError("", f"no watchdog listens in {where}; name the socket of one with --address or {ADDRESS}")
    listed = "".join(f"\n  {path}{_in_words(owners[path])}" for path in found[:_MOST_NAMED])
    more = f"\n  and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
    raise ViewError("", f"{len(found)} watchdogs are there; name one with --address or {ADDRESS}:{listed}{more}")


def _owners(directory: str) -> Iterator[tuple[str, int]]:
    """The sockets in a directory that something listens at, and who made each."""
    for path in sorted(Path(directory).glob("*.sock")):
        if (owner := _owner(path)) is not None:
            yield str(path), owner


def _owner(path: Path) -> int | None:
    """Who made the socket that listens at a path: a watchdog, or the program that started one for itself.

    0 if that is not known; None if nothing listens there.
    """
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return None
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
            probe.setblocking(False)
            probe.connect(str(path))
            return peer_credentials(probe)[0]
    except BlockingIOError:
        return 0  # its queue is full
    except OSError:
        return None


def _in_words(owner: int) -> str:
    """A process and its command, after an address: ``  (pid 4711: unhang run -- python train.py)``."""
    if not owner:
        return ""
    command = within(_PATIENCE, functools.partial(_command, owner), "")
    return f"  (pid {owner}{': ' * bool(command)}{command})"


def _command(pid: int) -> str:
    try:
        words = clean(look.command(pid), _LONGEST).split(" ")
    except OSError:
        return ""
    # Of an interpreter that runs it, nothing needs to be said.
    names = [word.rpartition("/")[2] for word in words[:3]]
    return " ".join(["unhang", *words[names.index("unhang") + 1 :]] if "unhang" in names else words)
