"""The watchdog's side of the worker's ``faulthandler``: a signal, and the stacks that its handler writes.

The handler is C code that the kernel runs in the worker: it works while another C call keeps the GIL. It writes into a
memfd whose open file description the worker and the watchdog share, so that the watchdog rewinds it for both.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable

from unhang._core import real_time as time
from unhang._platform.process import _read

SIZE = 1 << 16
_BEAT = 0.001


class StackSignalError(Exception):
    """There are no stacks; the message says why."""


def stacks(
    pid: int, number: int, memory: int, send: Callable[[int], bool], budget: float, starved: float = 0.0
) -> bytes:
    """What the handler of a worker writes when it gets a signal.

    The signal interrupts what the worker waits in: only for one that is about to be killed. A stopped one is continued.

    Args:
        pid: the worker.
        number: the signal.
        memory: our descriptor of the memory that its handler writes into.
        send: sends it a signal, unless that is not allowed any more; says whether it did.
        budget: seconds.
        starved: seconds, if more, for one that waits for a processor: it runs its handler when it gets some.

    Raises:
        StackSignalError: it was not sent, since it would kill the worker or be lost; or nothing came.
    """
    began = time.monotonic()
    try:
        blocked = _check(pid, number, memory)
        _blank(memory)
        if not send(number):
            raise StackSignalError("it could not be signalled for its stacks")
        if _live_status(pid)[b"State"][:1] == b"T":
            send(signal.SIGCONT)
        while (waited := time.monotonic() - began) < budget or (waited < starved and _is_ready(pid)):
            # First the text, then whether the handler still runs: a text that is there before is whole.
            written = os.pread(memory, 1, 0) not in (b"", b"\0")
            if not _runs(pid, number, blocked) and written:
                return _text(memory)
            time.sleep(_BEAT)
        text = _text(memory)
    except (OSError, KeyError, ValueError, IndexError) as error:
        raise StackSignalError(f"its stack signal cannot be used: {error}") from None
    if text:
        return text
    raise StackSignalError(f"its handler for stacks did not run within {waited:.1f} s")


def _check(pid: int, number: int, memory: int) -> set[str]:
    """The threads that block the signal for good, if it may be sent."""
    if not _in_mask(_live_status(pid), b"SigCgt", number):
        raise StackSignalError("it has no handler for stacks any more")
    threads = {name: _status(f"/proc/{pid}/task/{name}") for name in os.listdir(f"/proc/{pid}/task")}
    blocked = {name for name, status in threads.items() if _in_mask(status, b"SigBlk", number)}
    if len(blocked) == len(threads):
        raise StackSignalError("it blocks the signal for stacks")
    if _has(pid, memory) is False:
        raise StackSignalError("it has closed the file for its stacks")
    return blocked


def _status(directory: str) -> dict[bytes, bytes]:
    lines = _read(f"{directory}/status").split(b"\n")
    return {name: value for name, _, value in (line.partition(b":\t") for line in lines)}


def _live_status(pid: int) -> dict[bytes, bytes]:
    status = _status(f"/proc/{pid}")
    if status[b"State"][:1] in (b"Z", b"X"):
        raise StackSignalError("it has ended")
    return status


def _is_ready(pid: int) -> bool:
    """Whether it runs, or would if it got a processor: with a signal that is not handled yet, it gets none."""
    return _live_status(pid)[b"State"][:1] == b"R"


def _in_mask(status: dict[bytes, bytes], name: bytes, number: int) -> bool:
    return bool(int(status[name], 16) >> (number - 1) & 1)


def _runs(pid: int, number: int, blocked: set[str]) -> bool:
    """Whether the signal is pending, or a handler of it runs: that blocks it in its thread."""
    if _in_mask(_live_status(pid), b"ShdPnd", number):
        return True
    for name in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if name not in blocked and _in_mask(_status(f"/proc/{pid}/task/{name}"), b"SigBlk", number):
                return True
    return False


def _has(pid: int, memory: int) -> bool | None:
    """Whether a descriptor of it is that memory; None if that cannot be told.

    A worker that has closed all its descriptors may have another file under the number that its handler writes to.
    """
    ours = _identity(os.getpid(), memory)
    unknown = False
    try:
        with os.scandir(f"/proc/{pid}/fd") as entries:
            for entry in entries:
                try:
                    # Only memory is looked at closer, and through fdinfo: any other file may take for ever.
                    if os.readlink(entry.path).startswith("/memfd:"):
                        theirs = _identity(pid, int(entry.name))
                        if theirs is not None and theirs == ours:
                            return True
                        unknown = unknown or theirs is None
                except PermissionError:
                    unknown = True  # root without its capabilities sees the numbers alone
                except OSError:
                    continue
    except OSError:
        return None
    return None if unknown or ours is None else False


def _identity(pid: int, fd: int) -> tuple[bytes, bytes] | None:
    """The mount and the inode of a descriptor; None where the kernel does not tell (before Linux 5.14)."""
    lines = _read(f"/proc/{pid}/fdinfo/{fd}").split(b"\n")
    fields = {name: value for name, _, value in (line.partition(b":\t") for line in lines)}
    if b"ino" not in fields or b"mnt_id" not in fields:
        return None
    return fields[b"mnt_id"], fields[b"ino"]


def _blank(memory: int) -> None:
    os.pwrite(memory, bytes(min(SIZE, os.fstat(memory).st_size)), 0)
    os.lseek(memory, 0, os.SEEK_SET)


def _text(memory: int) -> bytes:
    return os.pread(memory, SIZE, 0).partition(b"\0")[0]
