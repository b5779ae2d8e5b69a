"""The watch over workers that both servers of the timer contract keep."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from unhang._core.clock import Clock, SystemClock, WallTime
from unhang._core.credits import Credits
from unhang._core.deadlines import DeadlineTable
from unhang._core.requests import MalformedRequestError, checked, is_plain
from unhang._core.retries import pause_after
from unhang._core.tally import Tally
from unhang._core.texts import error_described
from unhang._platform.waiter import Waiter
from unhang._watchdog.kill import Outcome
from unhang._watchdog.presence import Presence
from unhang._watchdog.workers import DYING, Worker, Workers

logger = logging.getLogger(__name__)

# The watchdog looks at least once a second, so that it notices when it overslept.
BEAT = 1.0
# How often to look whether a debugger still holds a worker whose timer has expired.
HELD_PAUSE = 1.0
# How long to wait while a timer is due that nobody acts on.
_LET_BE = 0.05


class RequestLike(Protocol):
    """A request to arm or, with a negative expiration time, to disarm a timer."""

    worker_id: int
    scope_id: str
    expiration_time: float


Request = TypeVar("Request", bound=RequestLike)


def _received_deadline(request: RequestLike) -> float | None:
    """The monotonic deadline that a request was received with, if its expiration time is still the one it had."""
    expiration_time, deadline = getattr(request, "_received", (None, None))
    return deadline if expiration_time == getattr(request, "expiration_time", None) else None


class Watch(Generic[Request]):
    """Deadlines and workers, without a thread or a wait: a server's loop brings both.

    The loop asks `wait_time`, waits, registers what came, calls `look`, registers what has come since if anybody
    `is_due`, and reaps what `expired` returns.
    Not thread-safe: it belongs to the loop.
    """

    def __init__(
        self, waiter: Waiter | None, on_exit: Callable[[int], None] | None = None, clock: Clock | None = None
    ) -> None:
        """Set up a watch over nobody.

        Args:
            waiter: as for `Workers`.
            on_exit: as for `Workers`; None to `clear` a worker that has exited.
            clock: another clock, for tests.
        """
        self._on_exit = on_exit
        self._waiter = waiter
        self._clock = clock or SystemClock()
        self.wall = WallTime(self._clock)
        self.timers: DeadlineTable[Request] = DeadlineTable()
        self.workers = Workers(waiter, self.clear if on_exit is None else on_exit)
        self.dropped = Tally(functools.partial(logger.warning, "Dropping a request: %s: %s"))
        self._presence = Presence(self._clock)
        self._credits = Credits()
        self._gives_back = False  # as soon as there is anything to give back

    def __getstate__(self) -> dict[str, Any]:
        """What goes to another process: the timers. Who their workers are, it finds out by itself."""
        timers = [(request, deadline) for deadline, request in self.timers.items()]
        return {"waiter": self._waiter, "on_exit": self._on_exit, "clock": self._clock, "timers": timers}

    def __setstate__(self, state: dict[str, Any]) -> None:
        timers = state.pop("timers")
        Watch.__init__(self, **state)
        for request, deadline in timers:
            self.register(request, deadline)

    def register_all(self, requests: Sequence[Request]) -> None:
        """Arm and disarm what the requests ask for, as one after the other does: of one timer, the last counts.

        A request that was received with a deadline (`unhang.api.TimerRequest`) and still has the expiration time that
        it had then is given that one.
        """
        if not requests:
            return
        last: dict[tuple[int, str], Request] = {}
        admitted: dict[int, bool] = {}
        for request in requests:
            if not is_plain(request):
                self._apply(last)
                self.register(request)
                continue
            pid = request.worker_id
            if request.expiration_time < 0 or admitted.get(pid) or self._admits(pid, admitted):
                last[pid, request.scope_id] = request
        self._apply(last)

    def _admits(self, pid: int, admitted: dict[int, bool]) -> bool:
        """Whether timers of this process are armed, which is found out once for many requests, and counted for each."""
        try:
            admitted[pid] = self._admit(pid)
        except OSError as error:
            self.dropped.add("worker not identified", error_described(error))
            return False
        return admitted[pid]

    def _apply(self, last: dict[tuple[int, str], Request]) -> None:
        """Arm and disarm timers of admitted workers, and empty the dictionary."""
        now = self._clock.now() if last else 0.0
        for (pid, scope), request in last.items():
            if request.expiration_time < 0:
                self.disarm(pid, scope)
            else:
                deadline = _received_deadline(request)
                if deadline is None:
                    deadline = self.wall.monotonic(request.expiration_time)
                self.timers.arm(pid, scope, deadline, request, now)
        last.clear()

    def register(self, request: Request, deadline: float | None = None) -> None:
        """Arm or disarm a timer.

        Args:
            request: what the worker asks for.
            deadline: monotonic seconds, if the request was converted when it was received.
        """
        try:
            pid, scope, instant = checked(request.worker_id, request.scope_id, request.expiration_time)
            if instant < 0:
                self.disarm(pid, scope)
            elif self._admit(pid):
                received = _received_deadline(request) if deadline is None else deadline
                deadline = self.wall.monotonic(instant) if received is None else received
                self.timers.arm(pid, scope, deadline, request, self._clock.now())
        except MalformedRequestError as error:
            self.dropped.add(error.kind, error.detail)
        except AttributeError as error:
            self.dropped.add("incomplete", error_described(error))
        except OSError as error:
            self.dropped.add("worker not identified", error_described(error))
        except Exception as error:  # noqa: BLE001 - whatever one request does, it takes no other one with it
            self.dropped.add(f"not a request ({type(error).__name__})", error_described(error))

    def _admit(self, pid: int) -> bool:
        worker = known = self.workers.get(pid)
        if worker is None or worker.absent or self._is_another(worker):
            worker = self.workers.admit(pid)
            if not (known and known.absent and worker.absent):
                # Whatever was armed under this pid was armed by a process that is gone.
                self.timers.disarm_worker(pid)
        if worker.refusal is not None:
            self.dropped.add("refused", worker.refusal)
        return worker.refusal is None and worker.killed_at is None

    def _is_another(self, worker: Worker) -> bool:
        """Whether a new request under this worker's pid may come from another process."""
        if worker.handle is not None and worker.handle.is_stale():
            return True
        if worker.killed_at is not None:
            return worker.exited or self._clock.now() - worker.killed_at > DYING
        return worker.exited

    def disarm(self, pid: int, scope: str) -> None:
        """Stop one timer, if there is one."""
        self.timers.disarm(pid, scope)
        worker = self.workers.get(pid)
        if worker is not None and worker.is_nobody and not self.timers.has_worker(pid):
            self.workers.forget(pid)

    def clear(self, pid: int) -> None:
        """Stop all timers of a worker."""
        self.timers.disarm_worker(pid)
        worker = self.workers.get(pid)
        if worker is None:
            return
        worker.attempts = 0
        worker.held = worker.told_held = False
        if worker.exited or worker.absent:
            self.workers.forget(pid)

    def close(self) -> None:
        """Forget everybody, and give their descriptors back."""
        for pid in self.workers.known():
            self.workers.forget(pid)

    def wait_time(self, longest: float) -> float:
        """Seconds to wait for requests: until the next deadline or beat, but no longer than ``longest``."""
        next_deadline = self.timers.next_deadline()
        wait = min(longest, BEAT)
        if next_deadline is not None:
            # If it was due at the last look, the loop let it be: a subclass may.
            let_be = next_deadline <= self.wall.read_at
            wait = max(0.0, min(longest, _LET_BE) if let_be else min(wait, next_deadline - self._clock.now()))
        self._presence.waits(wait)
        return wait

    def stays(self) -> None:
        """The loop has waited for something of its own, and was there: no time is to be given back for that."""
        self._presence.waits(0.0)

    def look(self) -> float:
        """After each wait: give back the time in which nobody looked. Returns the instant to judge by (wall clock).

        What workers sent before that instant is to be read behind this, and before anyone is judged.
        """
        lost = self._presence.is_back()
        if lost:
            logger.warning("The watchdog overslept: all deadlines are given %.1f s back", lost)
            now = self._clock.now()
            self._credits.add(round(now * 1e9), round(lost * 1e9))
            self._gives_back = True
        if self._gives_back:
            self.timers.credit(self._clock.now(), self._credits.moved)
        return self.wall.read()

    def is_due(self, wall: float) -> bool:
        """Whether a timer has expired when the wall clock shows ``wall``."""
        next_deadline = self.timers.next_deadline()
        return next_deadline is not None and next_deadline <= self.wall.monotonic(wall)

    def expired(self, wall: float) -> dict[int, list[Request]]:
        """The requests that have expired when the wall clock shows ``wall``, by worker."""
        if not self.timers:
            return {}
        return self.timers.expired(self.wall.monotonic(wall))  # type: ignore[return-value]

    def kill(self, pid: int, number: int) -> bool:
        """Send a signal to the worker; True when it was sent, or when there is nobody to send it to."""
        outcome = self.workers.kill(pid, number, self._clock.now())
        if outcome is Outcome.GONE:
            logger.info("Process with pid=%s does not exist. Skipping", pid)
        return outcome in (Outcome.SIGNALLED, Outcome.GONE)

    def retry_later(self, pid: int) -> None:
        """The worker could not be reaped: look again after a pause that grows, or give up."""
        worker = self.workers.get(pid) or self.workers.admit(pid)
        pause: float | None
        if worker.held:
            pause = HELD_PAUSE
            if not worker.told_held:
                logger.warning("Worker pid=%s has expired, and is spared while a debugger holds it", pid)
            worker.told_held = True
        else:
            worker.attempts += 1
            pause = pause_after(worker.attempts)
        if pause is None:
            logger.error("Giving up on worker pid=%s, which could not be reaped in %s attempts", pid, worker.attempts)
            self.clear(pid)
            return
        if not worker.held:
            logger.error("Error reaping worker=[%s]. Will retry in %.1f s", pid, pause)
        self.timers.postpone(pid, self._clock.now() + pause)

    def is_retried(self, pid: int) -> bool:
        """Whether the worker has been tried, and not reaped, before."""
        worker = self.workers.get(pid)
        return worker is not None and (worker.attempts > 0 or worker.held)
