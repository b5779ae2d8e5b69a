"""Stacks of another process by ``py-spy dump``: started, bounded in time and size, and always gone in the end.

While py-spy looks it is the tracer of the process, for which a watchdog would take it for a debugger: see `is_ours`.
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
import shutil
import subprocess
import sys
import sysconfig
import threading
from typing import IO

from unhang._core import real_time as time
from unhang._platform.process import _read

_LARGEST_OUTPUT = 4 << 20
_LARGEST_ERROR = 2000
# Nothing of ours is handed on: no setting of a user makes its output another one.
_ENVIRONMENT = {"LC_ALL": "C", "PATH": "/usr/local/bin:/usr/bin:/bin", "RUST_BACKTRACE": "0", "RUST_LOG": "error"}
_lock = threading.Lock()
_running: set[int] = set()
_starting = 0


class PySpyError(Exception):
    """There are no stacks; the message says why.

    Attributes:
        refused: whether the kernel does not let us look into that process.
        foreign: whether there is no Python in it that py-spy knows.
        killed: whether py-spy had to be killed, so that it may have left the process stopped.
    """

    def __init__(self, reason: str, *, refused: bool = False, foreign: bool = False, killed: bool = False) -> None:
        super().__init__(reason)
        self.refused = refused
        self.foreign = foreign
        self.killed = killed

    @property
    def hopeless(self) -> bool:
        """Whether it would fail again."""
        return self.refused or self.foreign or self.killed or executable() is None


@functools.lru_cache(maxsize=1)
def executable() -> str | None:
    """Where py-spy is: beside this Python, or in ``PATH``; None if it is missing."""
    folders = (os.path.dirname(sys.executable or ""), sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath))
    for folder in filter(None, folders):
        found = shutil.which("py-spy", path=folder)
        if found is not None:
            return os.path.abspath(found)
    return None


def is_ours(tracer: int) -> bool:
    """Whether this ``TracerPid`` is a py-spy that `dump` has started. Thread-safe, and never waits."""
    if tracer <= 0:
        return False
    with _lock:
        if tracer in _running:
            return True
        if not _starting:
            return False
    # It has been started, but its pid has not come back to the thread that started it.
    try:
        stat = _read(f"/proc/{tracer}/stat")
    except OSError:
        return False
    parent = int(stat[stat.rindex(b")") + 2 :].split()[1])
    return parent == os.getpid() and b"(py-spy)" in stat


def dump(
    pid: int,
    *,
    nonblocking: bool,
    budget: float,
    native: bool = False,
    user: int | None = None,
    group: int | None = None,
) -> bytes:
    """What ``py-spy dump --json`` prints about a process. When it returns or raises, py-spy is gone.

    Args:
        pid: the process.
        nonblocking: do not stop it meanwhile; its stacks may be torn then.
        budget: seconds; py-spy is killed when they are over.
        native: the frames of C code too.
        user: run py-spy as this user; the caller is root.
        group: and as this group.

    Raises:
        PySpyError: there are no stacks.
    """
    program = executable()
    if program is None:
        raise PySpyError("py-spy is not installed")
    flags = ["--nonblocking"] * nonblocking + ["--native"] * native
    give_up = time.monotonic() + budget
    spy = _start([program, "dump", "--json", "--full-filenames", *flags, "--pid", str(pid)], user, group)
    try:
        output, error = _listen(spy, give_up)
        status = _ended(spy, give_up)
    finally:
        killed = _end(spy)
    if killed:
        raise PySpyError(f"py-spy did not finish within {budget:.1f} s", killed=not nonblocking)
    # A program that waits for any child takes the status away.
    if status != 0 or not output:
        raise _reason(error.decode(errors="replace"), status)
    return output


def _start(command: list[str], user: int | None, group: int | None) -> subprocess.Popen[bytes]:
    global _starting  # noqa: PLW0603 - a count under the lock
    as_another = {} if user is None else {"user": user, "group": group, "extra_groups": ()}
    with _lock:
        _starting += 1
    try:
        # Our descriptors are all closed on exec: looking for others would take longer than py-spy itself.
        spy = subprocess.Popen(  # type: ignore[call-overload]
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            close_fds=False,
            cwd="/",
            env=_ENVIRONMENT,
            **as_another,
        )
        with _lock:
            _running.add(spy.pid)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise PySpyError(f"py-spy cannot be started: {error}") from None
    finally:
        with _lock:
            _starting -= 1
    return spy  # type: ignore[no-any-return]


def _listen(spy: subprocess.Popen[bytes], give_up: float) -> tuple[bytes, bytes]:
    """What it prints, and what it complains about, until it closes both, prints too much, or time is over."""
    assert spy.stdout is not None  # noqa: S101 - for the type checker
    assert spy.stderr is not None  # noqa: S101
    texts: dict[int, bytearray] = {}
    limits: dict[int, int] = {}
    poll = select.poll()
    for stream, limit in ((spy.stdout, _LARGEST_OUTPUT), (spy.stderr, _LARGEST_ERROR)):
        texts[stream.fileno()], limits[stream.fileno()] = bytearray(), limit
        poll.register(stream, select.POLLIN)
    output, error = texts.values()
    while limits and (left := give_up - time.monotonic()) > 0:
        for fd, _ in poll.poll(left * 1000):
            data = os.read(fd, 65536)
            texts[fd] += data[: limits[fd] - len(texts[fd])]
            if not data:
                poll.unregister(fd)
                del limits[fd]
        if len(output) >= _LARGEST_OUTPUT:
            raise PySpyError(f"py-spy printed more than {_LARGEST_OUTPUT >> 20} MiB")
    return bytes(output), bytes(error)


def _ended(spy: subprocess.Popen[bytes], give_up: float) -> int | None:
    try:
        return spy.wait(max(0.0, give_up - time.monotonic()))
    except subprocess.TimeoutExpired:
        return None


def _end(spy: subprocess.Popen[bytes]) -> bool:
    """Make sure that it is gone; True if it had to be killed."""
    killed = spy.poll() is None
    if killed:
        spy.kill()
        try:
            spy.wait(0.2)
        except subprocess.TimeoutExpired:  # stuck in the kernel itself
            threading.Thread(target=_reap, args=(spy,), name="unhang-reap", daemon=True).start()
            _close(spy.stdout, spy.stderr)
            return killed
    with _lock:
        _running.discard(spy.pid)
    _close(spy.stdout, spy.stderr)
    return killed


def _reap(spy: subprocess.Popen[bytes]) -> None:
    spy.wait()
    with _lock:
        _running.discard(spy.pid)


def _close(*streams: IO[bytes] | None) -> None:
    for stream in streams:
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()


def _reason(error: str, status: int | None) -> PySpyError:
    if "ermission" in error or "not permitted" in error:
        return PySpyError(
            "py-spy may not look into it: no permission for ptrace, or for the file of its Python", refused=True
        )
    if "Failed to find python version" in error:
        return PySpyError("it runs no Python that py-spy knows", foreign=True)
    line = next((line.strip() for line in error.splitlines() if line.strip()), f"exit status {status}")
    return PySpyError(f"py-spy failed: {line[:200]}")
