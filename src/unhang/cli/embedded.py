"""The process of a watchdog that a worker has started for itself; see `unhang._worker.embedded`."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
from typing import Any

import click

from unhang._platform.descriptor import hold_streams
from unhang._platform.limits import raise_file_limit
from unhang._platform.logs import log_to_stderr
from unhang._platform.process import ProcessHandle
from unhang._worker.client import LEARN
from unhang._worker.flags import says_no
from unhang.cli import options
from unhang.errors import UnhangError
from unhang.observe.observer import Observing, start_observer
from unhang.report.store import default_directory
from unhang.shared_timer import SharedTimerServer

# Milliseconds between two looks whether the last worker has left, once the owner is gone.
_LEAVING = 1000
# A job's signals are meant for the job, and the watchdog ends behind it.
_IGNORED = (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def main(address: str, listener: int, lifeline: int, owner: int) -> None:
    """Watch until the owner is gone or has let go, and everybody else is gone too.

    Args:
        address: where ``listener`` listens.
        listener: a descriptor.
        lifeline: a descriptor that ends when the owner exits or lets go.
        owner: its pid.
    """
    hold_streams()
    log_to_stderr()
    raise_file_limit()
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    observing = Observing(learn=_learns())
    server = SharedTimerServer(
        address, listener=listener, spare_stopped=True, _awaits_viewer=observing.is_needed, **_arguments()
    )
    server.start()
    observer = start_observer(server.address, observing)
    _wait_for_the_end_of(lifeline, owner)
    poll = select.poll()
    while server.workers:
        poll.poll(_LEAVING)
    if observer is not None:
        observer.close()
    server.stop()


def _arguments() -> dict[str, Any]:
    try:
        return options.from_environment()
    except (click.ClickException, UnhangError, ValueError) as error:
        message = error.format_message() if isinstance(error, click.ClickException) else error
        logging.getLogger("unhang").warning("the watchdog works as it does by default: %s", message)
    with contextlib.suppress(UnhangError):
        return {"report_dir": default_directory()}
    return {}


def _learns() -> str | None:
    """The file that learned durations are kept in."""
    path = os.environ.get(LEARN, "")
    return None if says_no(path) else path


def _wait_for_the_end_of(lifeline: int, owner: int) -> None:
    handle = ProcessHandle.open(owner)
    if handle is None:
        return
    poll = select.poll()
    poll.register(lifeline, select.POLLIN)
    if handle.fd >= 0:
        # A child that was forked behind Python's back may hold the lifeline.
        poll.register(handle.fd, select.POLLIN)
    poll.poll()
    handle.close()
