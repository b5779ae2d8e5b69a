"""A watchdog of this process's own: another process, which ends behind this one.

It is started as its own session, by a child that ends at once, so that it is no child of the worker that it may
have to kill, no terminal reaches it, and nobody has to wait for it.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys

from unhang._platform.descriptor import Descriptor, pipe_past_streams, socket_past_streams
from unhang._platform.own_process import command
from unhang._platform.socket_directory import make_fresh_directory, new_address, remove_fresh_directory
from unhang._platform.uncaptured import open_stderr
from unhang._worker.client import ADDRESS, SharedTimerClient
from unhang.errors import AddressError, NotSupportedError, WatchdogLostError

_DETACH = "import os\nif os.fork(): os._exit(0)\n"
_CODE = "from unhang.cli.embedded import main\nmain({address!r}, {listener}, {owner}, {pid})\n"
_PATIENCE = 30.0
_WHAT = "a watchdog process of its own"

_owned: _Owned | None = None


class _Owned:
    """The watchdog that this process has started. Closing ``lifeline`` ends it, once nobody else is connected."""

    def __init__(self, address: str, lifeline: int) -> None:
        self.address = address
        self._lifeline = Descriptor(lifeline)

    def close(self) -> None:
        self._lifeline.close()


def start(*, observe: bool, on_lost: str) -> SharedTimerClient:
    """Start a watchdog for this process and its children, whose address is in the environment from now on.

    Raises:
        NotSupportedError: this process cannot have one.
    """
    _check()
    try:
        address = new_address("of")
    except AddressError as error:
        raise NotSupportedError(_WHAT, str(error)) from error
    _launch(address)
    client = SharedTimerClient(address, on_lost=on_lost, observe=observe, _revive=_revive)
    try:
        reason = client.connect()
    except WatchdogLostError as error:
        reason = error.reason
    if reason is not None:
        release()
        raise NotSupportedError(_WHAT, reason)
    os.environ[ADDRESS] = address
    return client


def _launch(address: str) -> None:
    """Start a watchdog process at an address, and hold its lifeline."""
    import socket

    global _owned  # noqa: PLW0603 - one for a process
    try:
        ours, theirs = pipe_past_streams()  # the watchdog holds the reading end: it ends when the writing end is closed
    except OSError as error:
        raise NotSupportedError(_WHAT, f"it cannot be started: {error}") from error
    try:
        make_fresh_directory(address)
        with socket_past_streams(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)) as listener:
            listener.bind(address)
            os.chmod(address, 0o600)  # noqa: PTH101 - pathlib is not loaded otherwise
            listener.listen(socket.SOMAXCONN)
            _spawn(address, listener.fileno(), ours)
    except BaseException as error:
        os.close(theirs)
        _remove(address)
        if isinstance(error, (OSError, AddressError, subprocess.SubprocessError)):
            raise NotSupportedError(_WHAT, f"it cannot be started: {error}") from error
        raise
    finally:
        os.close(ours)
    _owned = _Owned(address, theirs)


def _revive(address: str) -> None:
    """Start the watchdog again, for the process that has started it, or a child that was forked and has outlived it.

    Nobody listens there any more. If two children find that out at the same moment, each gets one of its own.

    Raises:
        NotSupportedError: as for `start`.
    """
    if _owned is not None:
        _owned.close()
    _remove(address)
    _launch(address)


def _check() -> None:
    if not hasattr(os, "memfd_create") or not hasattr(os, "fork"):
        raise NotSupportedError(
            _WHAT, "this system lacks memfd_create() or fork(); use FileTimerClient or LocalTimerClient"
        )
    if os.getpid() == 1:
        raise NotSupportedError(
            _WHAT,
            "this is process 1, which nothing inside the container can kill; start it with `unhang run -- COMMAND`",
        )
    if getattr(sys, "frozen", False):
        raise NotSupportedError(_WHAT, "sys.executable is this program itself; start `unhang serve` beside it")
    if not sys.executable:
        raise NotSupportedError(
            _WHAT, "sys.executable does not name a Python; start `unhang serve` beside this process"
        )


def _spawn(address: str, listener: int, lifeline: int) -> None:
    code = _CODE.format(address=address, listener=listener, owner=lifeline, pid=os.getpid())
    stderr = open_stderr()
    try:
        done = subprocess.run(
            command(code, first=_DETACH),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            pass_fds=(listener, lifeline),
            start_new_session=True,
            timeout=_PATIENCE,
            check=False,
        )
    finally:
        if stderr is not None:
            os.close(stderr)
    if done.returncode != 0:
        raise NotSupportedError(
            _WHAT,
            f"{sys.executable} ended with status {done.returncode}; see its error above",
        )


def _remove(address: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(address)  # noqa: PTH108 - pathlib is not loaded otherwise
    remove_fresh_directory(address)


def release() -> None:
    """Give up the watchdog that this process has started, if it has: it ends when nobody is connected any more."""
    global _owned  # noqa: PLW0603 - see start()
    if _owned is None:
        return
    _owned.close()
    if os.environ.get(ADDRESS) == _owned.address:
        del os.environ[ADDRESS]
    _owned = None


def _after_fork() -> None:
    """The watchdog is the parent's: the child uses it, and does not keep it."""
    global _owned  # noqa: PLW0603 - see start()
    if _owned is not None:
        _owned.close()
        _owned = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
