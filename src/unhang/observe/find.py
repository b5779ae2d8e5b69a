"""Which watchdog is meant: the one that is named, or the only one that runs."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

from unhang._platform.address import private_directory
from unhang.errors import AddressError, ViewError

ADDRESS = "UNHANG_ADDRESS"
_MOST_NAMED = 8


def find_watchdog(address: str | None = None) -> str:
    """The address of the watchdog to look at.

    It is the one that is given; else the one in ``UNHANG_ADDRESS``; else the only one that listens in this user's
    private directory, where ``unhang run``, ``unhang serve`` and `unhang.configure` put theirs by default.

    Raises:
        ViewError: there is none, or there are several; the message lists them.
    """
    address = address or os.environ.get(ADDRESS)
    if address:
        return address
    try:
        directory = Path(private_directory())
    except AddressError as error:
        raise ViewError("", str(error)) from error
    found = [str(path) for path in sorted(directory.glob("*.sock")) if _listens(path)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise ViewError("", f"no watchdog listens in {directory}; name the socket of one with --address or {ADDRESS}")
    listed = "".join(f"\n  {path}" for path in found[:_MOST_NAMED])
    more = f"\n  and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
    raise ViewError("", f"{len(found)} watchdogs are there; name one with --address or {ADDRESS}:{listed}{more}")


def _listens(path: Path) -> bool:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
            probe.setblocking(False)
            probe.connect(str(path))
    except BlockingIOError:
        return True  # its queue is full
    except OSError:
        return False
    return True
