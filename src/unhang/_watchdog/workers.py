"""The workers that have sent requests: who they are, whether they may be killed, and killing them."""

from __future__ import annotations

import functools
import logging
import select
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from unhang._core import real_time as time
from unhang._core.rules import refuse_group, refuse_number
from unhang._platform.group import GroupHandle
from unhang._platform.process import ProcessHandle, me
from unhang._platform.waiter import Waiter
from unhang._watchdog.kill import Outcome, refusal_of, send

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Worker:
    """One worker, from its first request on."""

    handle: ProcessHandle | GroupHandle | None  # None: there was no such process when its request came
    refusal: str | None = None
    attempts: int = 0
    held: bool = False  # a debugger held it when it was to be killed last
    told_held: bool = False
    killed_at: float | None = None
    exited: bool = False

    @property
    def absent(self) -> bool:
        """Whether there was no such process: whoever has the pid later is not meant."""
        return self.handle is None and self.refusal is None

    @property
    def is_nobody(self) -> bool:
        """Whether there was no such process or process group, so that nothing is lost when it is forgotten."""
        return self.absent or (isinstance(self.handle, GroupHandle) and self.handle.was_empty)


# The requests of a killed worker that were under way are ignored for so long, or until it is gone.
DYING = 5.0


class Workers:
    """Workers by pid, or by negative process group. It belongs to the server's loop."""

    def __init__(self, waiter: Waiter | None, on_exit: Callable[[int], None]) -> None:
        """Set up an empty register.

        Args:
            waiter: what the loop waits with; it is asked to wait for the workers' exits too.
            on_exit: called, within a wait of the loop, with the pid of a worker that has exited.
        """
        self._workers: dict[int, Worker] = {}
        self.absent: set[int] = set()  # pids of which there was no process when their requests came
        self._waiter = waiter
        self._on_exit = on_exit

    def get(self, pid: int) -> Worker | None:
        """The worker that is known by this pid."""
        return self._workers.get(pid)

    def admit(self, pid: int) -> Worker:
        """Take in a worker that is not known: find out who it is, and whether it may be killed at all."""
        self.forget(pid)
        worker = self._workers[pid] = self._identify(pid)
        if worker.absent:
            self.absent.add(pid)
        if self._waiter is not None and worker.handle is not None and worker.handle.fd >= 0:
            self._waiter.call_once(worker.handle.fd, functools.partial(self._exited, pid))
        return worker

    def _identify(self, pid: int) -> Worker:
        handle = ProcessHandle.open(pid) if pid > 1 else None
        if pid > 1 and handle is None:
            return Worker(None)
        if handle is not None:
            return Worker(handle, refusal_of(handle))
        ours = me()
        refusal = refuse_number(pid, ours)
        if refusal is not None:
            return Worker(None, refusal)
        group = GroupHandle(-pid)
        return Worker(group, refuse_group(-pid, group.first_members, ours))

    def _exited(self, pid: int) -> None:
        """The pidfd said so: from now on the pid may be somebody else's."""
        worker = self._workers[pid]
        worker.exited = True
        self._close(worker)
        self._on_exit(pid)

    def known(self) -> list[int]:
        """The pids that are known."""
        return list(self._workers)

    def forget(self, pid: int) -> None:
        """Drop what is known of a worker."""
        worker = self._workers.pop(pid, None)
        self.absent.discard(pid)
        if worker is not None:
            self._close(worker)

    def _close(self, worker: Worker) -> None:
        if worker.handle is None:
            return
        if self._waiter is not None and worker.handle.fd >= 0:
            self._waiter.forget(worker.handle.fd)
        worker.handle.close()

    def await_exits(self, pids: Iterable[int], patience: float) -> None:
        """Wait for these workers to exit, as far as they have pidfds, but no longer than so many seconds."""
        give_up = time.monotonic() + patience
        for pid in pids:
            worker = self._workers.get(pid)
            if worker is not None and worker.handle is not None and worker.handle.fd >= 0:
                poll = select.poll()
                poll.register(worker.handle.fd, select.POLLIN)
                poll.poll(max(0.0, give_up - time.monotonic()) * 1000)

    def kill(self, pid: int, number: int, now: float) -> Outcome:
        """Send a signal to the worker: to the process that sent the requests, or to nobody."""
        worker = self._workers.get(pid)
        if worker is None:
            worker = self.admit(pid)
        outcome = self._signal(worker, number)
        worker.held = outcome is Outcome.HELD
        if outcome is Outcome.SIGNALLED and number == signal.SIGKILL:
            worker.killed_at = now
        return outcome

    @staticmethod
    def _signal(worker: Worker, number: int) -> Outcome:
        handle = worker.handle
        if worker.absent or worker.exited:
            return Outcome.GONE
        if handle is None or worker.refusal is not None:
            logger.error("Not sending signal %s: %s", number, worker.refusal)
            return Outcome.REFUSED
        return send(handle, number)
