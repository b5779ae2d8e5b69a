"""Whom this process lets look at its stacks, where the kernel lets parents alone do that (Yama, ``ptrace_scope`` 1)."""

from __future__ import annotations

_SCOPE = "/proc/sys/kernel/yama/ptrace_scope"
_PR_SET_PTRACER = 0x59616D61


def allow(pid: int) -> bool:
    """Let a process and its children trace this one; False if the kernel does not ask, or cannot be told."""
    try:
        with open(_SCOPE, "rb") as file:
            restricted = file.read().strip() == b"1"
    except OSError:
        return False
    if not restricted or pid <= 0:
        return False
    try:
        import ctypes

        return bool(ctypes.CDLL(None).prctl(_PR_SET_PTRACER, ctypes.c_ulong(pid), 0, 0, 0) == 0)
    except (OSError, AttributeError, ImportError):  # some are built without ctypes
        return False
