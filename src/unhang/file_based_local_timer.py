"""Timers over a named pipe: for workers of the same user on the same host, in any language.

Names, signatures and observable behaviour are those of
``torch.distributed.elastic.timer.file_based_local_timer`` in torch 2.13; so is what goes through the
pipe (wire format version 1, see `unhang._core.requests`), so either side may be torch's.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from unhang._core import real_time as time
from unhang._core.lines import LineSplitter
from unhang._core.requests import MalformedRequestError
from unhang._file_timer_client import PIPE_BUF, FileTimerClient, FileTimerRequest, _retry
from unhang._platform import exits
from unhang._platform.fifo import Fifo, FifoReader
from unhang._platform.loop_thread import LoopThread
from unhang._platform.naps import Naps
from unhang._platform.waiter import Waiter
from unhang.api import _fields
from unhang.debug_info_logging import log_debug_info_for_expired_timers

if TYPE_CHECKING:
    from unhang._core.deadlines import DeadlineTable
    from unhang._watchdog.bystander import ContractHooks
    from unhang._watchdog.request_lines import Line
    from unhang._watchdog.watch import Watch
    from unhang.report.model import Report

__all__ = ["FileTimerClient", "FileTimerRequest", "FileTimerServer", "_retry"]

logger = logging.getLogger(__name__)

# Seconds. A turn with requests ends early, unless its end is so near anyway.
_SOON = 0.02


class FileTimerServer(LoopThread):
    """The server of `FileTimerClient`: sends a worker the signal that it chose when one of its timers expires.

    Args:
        file_path: where to make the named pipe, mode 0600. A named pipe of this user's that stands there
            is replaced.
        run_id: names the run in the log.
        max_interval: seconds for which one turn of the loop waits at most; a worker is signalled at its
            deadline whatever this is.
        daemon: whether the thread lets the process end without it.
        log_event: called with ``"watchdog started"``, ``"timer expired"``, ``"kill worker process"`` or
            ``"watchdog stopped"``, and the request that it is about, or None; what it raises is logged.
        on_expired: called with a report (`unhang.report.model.Report`, frozen) of each worker that is about to be
            signalled, in a thread of its own; what it raises is logged. The signal is sent some hundredths of a second
            later then, a second at most, since the stacks are taken first.

    Raises:
        NotOurPipeError: (a FileExistsError) something else stands at ``file_path``. It is left alone.

    It never signals itself, its ancestors, its process group, or a process of another user, whatever a
    request says, nor whoever has the pid of a worker that is gone, and spares a worker while a debugger holds
    it. What it cannot signal it tries again with growing pauses. It survives its kills.
    """

    def __init__(
        self,
        file_path: str,
        run_id: str,
        max_interval: float = 10,
        daemon: bool = True,
        log_event: Callable[[str, FileTimerRequest | None], None] | None = None,
        *,
        on_expired: Callable[[Report], None] | None = None,
    ) -> None:
        super().__init__(max_interval, daemon)
        self._hooks: ContractHooks | None = None
        if on_expired is not None:
            from unhang._watchdog.bystander import ContractHooks  # loads what reports need

            self._hooks = ContractHooks(on_expired)
        self._file_path = file_path
        self._run_id = run_id
        self._log_event = log_event
        self._is_client_started = False
        self._request_count = 0
        self._run_once = False
        self._last_progress_time = int(time.time())
        self._waiter = Waiter()
        self._reader: FifoReader | None = None
        self._fifo: Fifo | None = None
        self._watch = self._new_watch()
        self._prepare()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_reader": None}

    def _prepare(self) -> None:
        """Make the pipe, and forget the timers of an earlier start: they were not released while it was gone."""
        self._fifo = Fifo(self._file_path)
        self._lines = LineSplitter(PIPE_BUF)
        self._naps = Naps()
        self._earliest = math.inf
        self._watch.close()
        self._watch = self._new_watch()

    def _new_watch(self) -> Watch[FileTimerRequest]:
        from unhang._watchdog.request_lines import read_line
        from unhang._watchdog.watch import Watch

        self._read_line: Callable[[bytes], Line] = read_line
        self._exited: set[int] = set()
        return Watch(self._waiter, self._exited.add)

    @property
    def _timers(self) -> DeadlineTable[FileTimerRequest]:
        return self._watch.timers

    @property
    def dropped_requests(self) -> Mapping[str, int]:
        """How many lines and requests were dropped, by kind."""
        return self._watch.dropped.counts

    def start(self) -> None:
        """Open the pipe and start the watchdog thread; does nothing if it runs. May follow `stop`."""
        if self._is_running():
            logger.info("%s is running already", type(self).__name__)
            return
        self._run_once = False
        self._open()
        self._start_thread(file_path=self._file_path)
        self._tell("watchdog started", None)

    def stop(self) -> None:
        """Stop the watchdog thread, wait for it, and remove the pipe. May be called twice."""
        self._stop_signaled = True
        self._waiter.wake()
        self._join_thread()
        self._put_away()
        self._tell("watchdog stopped", None)

    def run_once(self) -> None:
        """Let the thread handle what is in the pipe, and stop it. Then as `stop`."""
        self._run_once = True
        self._waiter.wake()
        self._join_thread(timeout=60.0)
        self._put_away()

    def _put_away(self) -> None:
        """Give back what `start` has opened, unless the thread has not noticed that it is to end."""
        self._close()
        if self._leaving_thread is None or not self._leaving_thread.is_alive():
            self._waiter.close()

    def _open(self) -> FifoReader:
        if self._fifo is None:
            self._prepare()
        if self._reader is None or self._reader.closed:
            assert self._fifo is not None  # noqa: S101 - for the type checker
            self._reader = self._fifo.open(self._waiter)
            self._watch.wall.start()
        return self._reader

    def _close(self) -> None:
        reader, self._reader = self._reader, None
        fifo, self._fifo = self._fifo, None
        if reader is not None:
            reader.close()
        if fifo is not None:
            fifo.remove()

    def _tell(self, event: str, request: FileTimerRequest | None) -> None:
        if self._log_event is None:
            return
        try:
            self._log_event(event, request)
        except Exception:
            logger.exception("Error in log_event(%r)", event)

    @staticmethod
    def is_process_running(pid: int) -> bool:
        """Whether there is a process (or, if negative, a process group) that we may signal; a zombie is none."""
        from unhang._platform.process import facts

        try:
            os.kill(pid, 0)
        except (OSError, OverflowError):
            return False
        try:
            seen = facts(pid)
        except OSError:
            return True  # it was there just now, and no more can be told
        return seen is None or not seen.exited

    def get_last_progress_time(self) -> int:
        """When the loop last turned, in whole seconds since the epoch; now, as long as it was not started."""
        return self._last_progress_time if self._is_client_started else int(time.time())

    def _watchdog_loop(self) -> None:
        self._open()
        self._is_client_started = True
        while not self._stop_signaled:
            run_once = self._run_once
            try:
                self._run_watchdog(self._open())
                self._last_progress_time = int(time.time())
            except Exception as error:  # noqa: BLE001 - what a subclass raises is logged, and the watch goes on
                self._turn_raised(error)
            if run_once:
                break

    def _run_watchdog(self, fd: FifoReader) -> None:  # type: ignore[override] # the signature is the contract's
        """One turn of the loop."""
        self.register_timers(self._get_requests(fd, self._watch.wait_time(self._max_interval)))
        judged_by = self._watch.look()
        if self._watch.is_due(judged_by):
            if self._pipe_is_lost():
                return
            self.register_timers(self._read_requests(fd))
        expired = self.get_expired_timers(judged_by)
        if self._look_into(expired):
            # That took its time, in which a worker may have disarmed its timer.
            self._watch.stays()
            self.register_timers(self._read_requests(fd))
            expired = self.get_expired_timers(judged_by)
        self.clear_timers({pid for pid, timers in expired.items() if self._reap_expired(pid, timers)})

    def _look_into(self, expired: dict[int, list[FileTimerRequest]]) -> bool:
        """Find out where workers are stuck, for those who want to know; returns whether somebody did."""
        log_debug_info_for_expired_timers(
            self._run_id, {pid: [timer.to_json() for timer in timers] for pid, timers in expired.items()}
        )
        if self._hooks is not None:
            self._hooks.look_into(self._watch, expired, self._run_id)
        return bool(expired)

    def _pipe_is_lost(self) -> bool:
        """Whether our pipe is not at its path any more. Then nobody can disarm a timer, so all are dropped."""
        if self._fifo is None or self._fifo.exists():
            return False
        logger.error(
            "The named pipe %s was removed or replaced: %s timers are dropped, since nobody could disarm them",
            self._file_path,
            len(self._watch.timers),
        )
        if os.path.lexists(self._file_path):
            self._watch.close()
            self._watch = self._new_watch()
        else:
            self._close()
            self._open()
        return True

    def _reap_expired(self, pid: int, timers: list[FileTimerRequest]) -> bool:
        """Signal a worker whose timers have expired; False when its timers are not to be cleared."""
        fields = _fields("expired", pid, timers)
        logger.info("Reaping worker_pid=[%s]. Expired timers: %s", pid, self._get_scopes(timers), extra=fields)
        timers.sort(key=lambda timer: timer.expiration_time)
        # The first that has a signal decides.
        fatal = next((index for index, timer in enumerate(timers) if timer.signal > 0), len(timers))
        for timer in [] if self._watch.is_retried(pid) else timers[: fatal + 1]:
            self._tell("timer expired", timer)
        if fatal == len(timers):
            logger.info("No signal specified with worker=[%s]. Do not reap it.", pid)
            for timer in timers:
                self._watch.disarm(pid, timer.scope_id)
            return False
        if not self._reap_worker_no_throw(pid, timers[fatal].signal):
            self._watch.retry_later(pid)
            return False
        fields = _fields("killed", pid, timers[fatal:], signal=exits.text(timers[fatal].signal))
        logger.info("Successfully reaped worker=[%s] with signal=%s", pid, timers[fatal].signal, extra=fields)
        self._tell("kill worker process", timers[fatal])
        return True

    def _reap_worker_no_throw(self, worker_pid: int, signal: int) -> bool:
        try:
            return self._reap_worker(worker_pid, signal)
        except Exception:
            logger.exception("Error in _reap_worker() of worker_pid=[%s]", worker_pid)
            return False

    def _reap_worker(self, worker_pid: int, signal: int) -> bool:
        return self._watch.kill(worker_pid, signal)

    def _get_scopes(self, timer_requests: list[FileTimerRequest]) -> list[str]:
        return [request.scope_id for request in timer_requests]

    def _get_requests(self, fd: FifoReader, max_interval: float) -> list[FileTimerRequest]:
        """The requests of one turn: waits for the first, for ``max_interval``, then naps while others come."""
        until = time.monotonic() + max_interval
        requests = self._read_requests(fd)
        until = min(until, self._earliest)
        while not (self._stop_signaled or (self._run_once and not requests)):
            remaining = until - time.monotonic()
            if remaining <= 0:
                break
            self._naps.flowing |= bool(requests)
            self._naps.take(remaining, fd)
            new = self._read_requests(fd)
            self._naps.flowing = bool(new)
            requests += new
            if requests and until - time.monotonic() > _SOON:
                break
        return requests

    def _read_requests(self, fd: FifoReader) -> list[FileTimerRequest]:
        """What the pipe holds now; a line that is no request is dropped alone. `_earliest` is the first deadline."""
        requests = []
        earliest = math.inf
        too_long = self._lines.too_long
        data = fd.read()
        offset = self._watch.wall.offset()
        for line in self._lines.feed(data):
            try:
                fields = self._read_line(line)
            except MalformedRequestError as error:
                self._watch.dropped.add(error.kind, error.detail)
                continue
            instant = fields.expiration_time
            deadline = math.inf if instant < 0 else instant + offset
            request = FileTimerRequest(fields.pid, fields.scope_id, instant, fields.signal)
            request._received = (instant, deadline)
            requests.append(request)
            earliest = min(earliest, deadline)
        self._earliest = earliest
        self._naps.saw(len(data), earliest - time.monotonic())
        if self._lines.too_long > too_long:
            self._watch.dropped.add("too long", f"over {PIPE_BUF} bytes", self._lines.too_long - too_long)
        return requests

    def register_timers(self, timer_requests: list[FileTimerRequest]) -> None:
        """Arm and disarm what the requests ask for, in their order."""
        self._request_count += len(timer_requests)
        self._watch.register_all(timer_requests)
        self._exited |= self._watch.workers.absent

    def clear_timers(self, worker_pids: set[int]) -> None:
        """Disarm all timers of these workers, and of those that do not run any more."""
        gone = {pid for pid in self._exited if not self.is_process_running(pid)}
        self._exited -= gone
        for pid in gone | worker_pids:
            self._watch.clear(pid)

    def get_expired_timers(self, deadline: float) -> dict[int, list[FileTimerRequest]]:
        """The timers with an ``expiration_time`` of ``deadline`` (wall clock) or earlier, by worker."""
        return self._watch.expired(deadline)
