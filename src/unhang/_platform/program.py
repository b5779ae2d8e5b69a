"""Which program a process runs: what ``exec`` changes, and nothing else does.

Pid, start time, pidfd and sockets are the same behind ``exec``. The auxiliary vector is not: the kernel makes it for
each program, with addresses that it draws (of 16 random bytes, of the vdso, of the program itself), unless
randomization of the address space is switched off. It may be read where ptrace is allowed.
"""

from __future__ import annotations

from unhang._platform.process import _read


def program_of(pid: int) -> bytes | None:
    """What tells the program of a process from the one before it; None if that cannot be read."""
    try:
        return _read(f"/proc/{pid}/auxv") or None
    except OSError:
        return None


def is_another(before: bytes | None, pid: int) -> bool:
    """Whether the process runs another program than the one that `program_of` saw; no, if nobody can tell."""
    now = None if before is None else program_of(pid)
    return now is not None and now != before
