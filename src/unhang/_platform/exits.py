"""How a process ended that need not be our child."""

from __future__ import annotations

import contextlib
import os
import signal
import struct

from unhang._platform.process import LINUX, ProcessHandle, _stat

# struct pidfd_info of Linux 6.15: mask, control group, fourteen numbers of 32 bits of which the last is the exit code.
_INFO = struct.Struct("=QQ11Ii")
_INFO_SIZE = 64
_GET_INFO = (3 << 30) | (_INFO_SIZE << 16) | (0xFF << 8) | 11  # _IOWR(0xFF, 11, struct pidfd_info)
_INFO_EXIT = 1 << 3


def exit_of(handle: ProcessHandle) -> str:
    """How it ended: ``exit code 1``, ``SIGKILL``; empty if it runs or that cannot be told. Never raises.

    A zombie tells everybody who may see it; one that has been waited for only tells on Linux 6.15 and newer.
    """
    if not LINUX or handle.alive():
        return ""
    status = _of_zombie(handle)
    if status is None and handle.fd >= 0:
        status = _of_pidfd(handle.fd)
    return "" if status is None else text(status)


def text(status: int) -> str:
    """What a status as ``waitpid`` gives it says."""
    if status & 0x7F == 0:
        return f"exit code {status >> 8 & 0xFF}"
    number = status & 0x7F
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    first = getattr(signal, "SIGRTMIN", number + 1)
    return f"SIGRTMIN+{number - first}" if number > first else f"signal {number}"


def _of_zombie(handle: ProcessHandle) -> int | None:
    try:
        fields = _stat(handle.pid)
        is_it = float(fields[19]) == handle.start_time and fields[0] in (b"Z", b"X")
        # As another user the kernel says 0, which would be a wrong "exit code 0".
        readable = fields[49] != b"0" or _may_look_into(handle.pid)
    except (OSError, ValueError, IndexError):
        return None
    return int(fields[49]) if is_it and readable else None


def _may_look_into(pid: int) -> bool:
    return os.geteuid() in (0, os.stat(f"/proc/{pid}").st_uid)


def _of_pidfd(fd: int) -> int | None:
    import fcntl

    buffer = bytearray(_INFO_SIZE)
    struct.pack_into("=Q", buffer, 0, _INFO_EXIT)
    try:
        fcntl.ioctl(fd, _GET_INFO, buffer)
    except OSError:
        return None
    fields = _INFO.unpack_from(buffer)
    return int(fields[-1]) if fields[0] & _INFO_EXIT else None
