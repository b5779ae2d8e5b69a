"""Timers over a ``multiprocessing.Queue``: for workers that are children of the server's process.

Names, signatures and observable behaviour are those of ``torch.distributed.elastic.timer.local_timer`` in
torch 2.13.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import math
import os
import pickle
import signal
import sys
from collections import deque
from collections.abc import Callable, Mapping
from queue import Empty
from typing import TYPE_CHECKING, Any

from unhang._core import real_time as time
from unhang._core.clock import SystemClock, WallTime
from unhang._core.frames import FrameSplitter, embedded, frame, payload_of
from unhang._core.pickled_requests import KeptFrames, Parser, instant
from unhang._core.tally import Tally
from unhang._core.texts import error_described
from unhang._platform.naps import Naps
from unhang._platform.queue_pipe import PIPE_BUF, QueueReader, QueueWriter, UnsupportedQueueError, make_room
from unhang._platform.waiter import Waiter
from unhang.api import RequestQueue, TimerClient, TimerRequest, TimerServer

if TYPE_CHECKING:
    from unhang._core.deadlines import DeadlineTable
    from unhang._watchdog.bystander import ContractHooks
    from unhang.report.model import Report

__all__ = ["LocalTimerClient", "LocalTimerServer", "MultiprocessingRequestQueue"]

logger = logging.getLogger(__name__)

_getpid = os.getpid

# Seconds a client waits for a full pipe before it leaves the waiting to the queue's own thread.
_PATIENCE = 1.0
# Seconds between two looks at what waits for the lock to be let go.
_LET_WRITE = 0.001
# The rest of a request that does not come within a second will not come, nor will a lock be given back.
_STALL = 1.0
# How many looks at the lock fit into that.
_LOOKS = 20
# A writer holds the queue's lock for microseconds; see QueueReader.lock_is_stuck.
_LOCK_PATIENCE = 0.1
# What a stuck lock held back is on its way for so long; or for the longer time, if the queue has counted more of it.
_UNLOCKED = 0.05
_UNLOCKED_MOST = 2.0
# A killed process that still runs on some processor stops within this time.
_LAST_BREATH = 0.001

# Seconds to wait behind an error of a queue that is read with get().
_ERROR_PAUSE = 0.05

_UNLOCKED_IT = "The queue's lock was left locked by a worker; unlocked it for the others"

# What clients send. torch's is loaded as ours, so a server needs no torch.
_KNOWN_CLASSES = {
    ("unhang.api", "TimerRequest"): TimerRequest,
    ("torch.distributed.elastic.timer.api", "TimerRequest"): TimerRequest,
}


class LocalTimerClient(TimerClient):
    """The client of `LocalTimerServer`, for a worker on the same host; the worker is known by its pid.

    A request is in the queue's pipe when `acquire` or `release` returns: no thread has to run for it, so a
    worker that never gives up the GIL again is still reaped. Where that cannot be had (another kind of queue,
    a bounded one, a pipe that stays full for a second, a request over ``PIPE_BUF`` bytes), the client
    says so once and uses ``mp_queue.put()`` from then on, as torch's client does.

    Thread-safe, and good after a fork. Can be pickled where the queue can: as an argument of a new process.
    """

    def __init__(self, mp_queue: Any) -> None:
        super().__init__()
        self._mp_queue = mp_queue
        self._kept = KeptFrames(TimerRequest, _getpid(), PIPE_BUF)
        self._writer: QueueWriter | None = None
        try:
            self._writer = QueueWriter(mp_queue)
            # Used for what is kept, so never once it is no more.
            self._send_now = self._writer.send_now
        except UnsupportedQueueError as error:
            self._fall_back(str(error))

    def acquire(self, scope_id: str, expiration_time: float) -> None:
        """See `TimerClient.acquire`."""
        kept = self._kept
        frames = kept.get(scope_id) if kept.pid == _getpid() else None
        if frames is not None and type(expiration_time) is float:
            data = frames.armed + instant(expiration_time) + frames.armed_end
            if not self._send_now(data):
                self._write(data)
        else:
            self._keep(scope_id)
            self._send(TimerRequest(_getpid(), scope_id, expiration_time))

    def release(self, scope_id: str) -> None:
        """See `TimerClient.release`."""
        kept = self._kept
        frames = kept.get(scope_id) if kept.pid == _getpid() else None
        if frames is not None:
            if not self._send_now(frames.disarmed):
                self._write(frames.disarmed)
        else:
            self._send(TimerRequest(_getpid(), scope_id, -1))

    def _keep(self, scope_id: str) -> None:
        """Keep what the requests for a scope look like, for as long as they are written to the pipe."""
        if self._writer is not None:
            if self._kept.pid != _getpid():
                self._kept = KeptFrames(TimerRequest, _getpid(), PIPE_BUF)
            self._kept.keep(scope_id)

    def _send(self, request: TimerRequest) -> None:
        if self._writer is None:
            self._mp_queue.put(request)
        else:
            self._write(frame(pickle.dumps(request)))

    def _write(self, data: bytes) -> None:
        """Write a frame to the pipe; where that cannot be done, put the request into the queue."""
        writer = self._writer
        if writer is not None:
            try:
                if writer.send(data, _PATIENCE):
                    return
                self._fall_back("its pipe is full, or the request is too large")
            except OSError as error:
                self._fall_back(str(error))
            # A process that ends does not have to wait until its timers are reported.
            self._mp_queue.cancel_join_thread()
        self._mp_queue.put(pickle.loads(payload_of(data)))  # noqa: S301 - it was pickled here

    def _fall_back(self, reason: str) -> None:
        """From now on, for good: two ways at once could let a release overtake its acquire."""
        self._writer = None
        self._kept = KeptFrames(TimerRequest, _getpid(), PIPE_BUF)
        logger.warning(
            "Timers are sent with put() from now on, so this worker is protected only while its other threads "
            "can run: %s",
            reason,
        )

    def __getstate__(self) -> dict[str, Any]:
        return {"mp_queue": self._mp_queue}

    def __setstate__(self, state: dict[str, Any]) -> None:
        LocalTimerClient.__init__(self, **state)


class _RequestUnpickler(pickle.Unpickler):
    """Loads timer requests and plain values, nothing else: a pickle can name any function to call."""

    def find_class(self, module: str, name: str) -> Any:
        known = _KNOWN_CLASSES.get((module, name))
        if known is not None:
            return known
        found = getattr(sys.modules.get(module), name, None)
        if isinstance(found, type) and issubclass(found, TimerRequest):
            return found
        raise pickle.UnpicklingError(f"{module}.{name} is not a TimerRequest")


class MultiprocessingRequestQueue(RequestQueue):
    """A `RequestQueue` over a ``multiprocessing.Queue``, of which it must be the only reader.

    A message that is no `TimerRequest` is dropped alone, counted in `dropped`, and told once per kind. The first use
    in a process opens the queue's pipe, so it may be made before a fork, or be pickled where the queue can.

    Args:
        mp_queue: the queue.
        until_due: whether `get` returns what it has as soon as one of it has expired.
    """

    def __init__(self, mp_queue: Any, *, until_due: bool = False) -> None:
        super().__init__()
        self._mp_queue = mp_queue
        self._until_due = until_due
        self._dropped = Tally(functools.partial(logger.warning, "Dropping a message: %s: %s"))
        self._pending: deque[TimerRequest] = deque()
        self._earliest = math.inf
        self._phantoms = 0
        self._next_look = 0.0
        self._interrupted = False
        self._frames = FrameSplitter()
        self._naps = Naps()
        self._wall = WallTime(SystemClock())
        self._parse = Parser().parse
        self._unfinished_since = 0.0
        self.waiter = Waiter()
        self._pipe: QueueReader | None = None
        self._uses_pipe = True
        try:
            make_room(mp_queue)
        except UnsupportedQueueError as error:
            self._use_get(error)

    def __getstate__(self) -> dict[str, Any]:
        return {"mp_queue": self._mp_queue, "until_due": self._until_due, "waiter": self.waiter}

    def __setstate__(self, state: dict[str, Any]) -> None:
        waiter = state.pop("waiter")
        MultiprocessingRequestQueue.__init__(self, **state)
        self.waiter = waiter

    def _use_get(self, reason: UnsupportedQueueError) -> None:
        self._uses_pipe = False
        logger.warning("Requests are taken with get(): %s", reason)

    def _opened(self) -> QueueReader | None:
        """This process's end of the pipe; None where the queue is read with ``get``."""
        pipe = self._pipe
        if pipe is not None and pipe.fd >= 0:
            return pipe
        if self._uses_pipe:
            try:
                self._pipe = QueueReader(self._mp_queue, self.waiter)
                self._wall.start()
            except UnsupportedQueueError as error:
                self._use_get(error)
        return self._pipe if self._uses_pipe else None

    @property
    def dropped(self) -> Mapping[str, int]:
        """How many messages were dropped, by kind."""
        return self._dropped.counts

    def size(self) -> int:
        """How many requests are waiting, those included that are on their way into the queue's pipe."""
        pipe = self._opened()
        if pipe is None:
            return int(self._mp_queue.qsize())
        backlog = pipe.backlog()
        if self._phantoms:
            self._phantoms = min(self._phantoms, backlog)
        return len(self._pending) + backlog - self._phantoms

    def get(self, size: int, timeout: float) -> list[TimerRequest]:
        """Up to ``size`` requests; waits for them, ``timeout`` seconds at most, or until `interrupt`."""
        pipe = self._opened()
        if pipe is None:
            return self._get_from_queue(size, timeout)
        self._pump(pipe)
        if timeout > 0:
            self._wait_for(size, time.monotonic() + timeout, pipe)
        self._interrupted = False
        return self._take(size) if self._pending else []

    def _wait_for(self, size: int, until: float, pipe: QueueReader) -> None:
        """Pump until so many requests are there, or it is ``until``, or one of them is due, or `interrupt`."""
        while len(self._pending) < size and not self._interrupted:
            remaining = min(until, self._earliest) - time.monotonic()
            if remaining <= 0:
                break
            self._naps.take(remaining, self.waiter)
            self._naps.flowing = self._pump(pipe)
        if len(self._pending) < size and time.monotonic() >= until:
            # Counted in by writers that were killed before they wrote.
            self._phantoms = pipe.backlog()

    def interrupt(self) -> None:
        """Make a `get` that waits, or else the next one, return at once. May be called from any thread."""
        self._interrupted = True
        self.waiter.wake()

    def free_lock(self, now: float) -> None:
        """Unlock the queue's writers if one of them was found to hold the lock for a second. Never waits.

        To be called again and again, with monotonic seconds.
        """
        if now < self._next_look:
            return
        self._next_look = now + _STALL / _LOOKS
        pipe = self._opened()
        if pipe is not None and pipe.look_at_lock(now, _STALL):
            logger.warning(_UNLOCKED_IT)

    def settle(self) -> list[TimerRequest]:
        """All that was put before now, also what a stuck lock of the queue's writers held back."""
        pipe = self._opened()
        if pipe is None:
            return self._get_from_queue(self.size(), 0.0)
        if pipe.lock_is_stuck(_LOCK_PATIENCE):
            logger.warning(_UNLOCKED_IT)
            self._let_write(pipe)
        self._pump(pipe)
        if self._frames.unfinished:
            # Releases may hide after half a message.
            time.sleep(_UNLOCKED)
            self._pump(pipe, patience=0.0)
        return self._take(len(self._pending))

    def _let_write(self, pipe: QueueReader) -> None:
        """Take what those write who have waited for the lock; one who was killed meanwhile is counted for ever."""
        until = time.monotonic() + _UNLOCKED_MOST
        time.sleep(_UNLOCKED)
        while pipe.backlog() and time.monotonic() < until:
            time.sleep(_LET_WRITE)
            self._pump(pipe)

    def writers_held(self) -> contextlib.AbstractContextManager[None]:
        """Nobody who dies within this context leaves the queue locked."""
        pipe = self._opened()
        return contextlib.nullcontext() if pipe is None else pipe.writers_held(_LOCK_PATIENCE)

    def _take(self, size: int) -> list[TimerRequest]:
        taken = [self._pending.popleft() for _ in range(min(size, len(self._pending)))]
        if self._until_due:
            left = self._pending
            self._earliest = min((request._received[1] for request in left), default=math.inf) if left else math.inf
        return taken

    def _pump(self, pipe: QueueReader, patience: float = _STALL) -> bool:
        """Move what the pipe holds to the pending requests; half a message is given up after so many seconds.

        Returns whether the pipe held anything.
        """
        data = pipe.read()
        offset = self._wall.offset()
        if not data and not self._frames.unfinished:
            return False
        now = time.monotonic()
        out_of_step = self._frames.out_of_step
        payloads = self._frames.feed(data)
        if self._frames.out_of_step > out_of_step:
            self._dropped.add("out of step", "bytes that are no message", self._frames.out_of_step - out_of_step)
        if payloads or not self._frames.unfinished:
            self._unfinished_since = now
        elif now - self._unfinished_since > patience:
            # What came after it does not make it any younger.
            self._dropped.add("half a message", "its writer did not finish it")
            payloads = self._frames.resume()
        pipe.took(len(payloads))
        self._naps.saw(len(data), self._receive(payloads, offset) - now)
        return bool(data)

    def _receive(self, payloads: list[bytes], offset: float) -> float:
        """Append the requests to those that are pending; returns the earliest deadline among them.

        Args:
            payloads: their pickles.
            offset: from the wall clock to the monotonic one.
        """
        earliest = math.inf
        for payload in payloads:
            parsed = self._parse(payload)
            if parsed is None:
                earliest = min(earliest, self._decode(payload, offset))
                continue
            request = TimerRequest(*parsed)
            deadline = parsed[2] + offset if parsed[2] >= 0 else math.inf
            request._received = (parsed[2], deadline)
            self._pending.append(request)
            earliest = min(earliest, deadline)
        self._earliest = min(self._earliest, earliest) if self._until_due else math.inf
        return earliest

    def _decode(self, payload: bytes, offset: float, *, whole: bool = True) -> float:
        """As `_receive`, for one payload, by a real unpickler."""
        try:
            return self._accept(_RequestUnpickler(io.BytesIO(payload)).load(), offset)
        except Exception as error:  # noqa: BLE001 - a damaged pickle may raise anything
            self._dropped.add(f"not a request ({type(error).__name__})", error_described(error))
        inner = embedded(payload) if whole else []
        return min((self._decode(each, offset, whole=False) for each in inner), default=math.inf)

    def _accept(self, request: Any, offset: float) -> float:
        if not isinstance(request, TimerRequest):
            # torch's own requests, from a queue that is read with get(), or something that is none.
            request = TimerRequest(request.worker_id, request.scope_id, request.expiration_time)
        if not (hasattr(request, "worker_id") and hasattr(request, "scope_id")):
            raise TypeError("a field is missing")
        # NaN, which the watch drops, is never due.
        deadline = request.expiration_time + offset if request.expiration_time >= 0 else math.inf
        request._received = (request.expiration_time, deadline)
        if self._until_due:
            self._earliest = min(self._earliest, deadline)
        self._pending.append(request)
        return float(deadline)

    def _get_from_queue(self, size: int, timeout: float) -> list[TimerRequest]:
        """As `get`, where the queue's pipe cannot be used. It may wait for half a message."""
        until = time.monotonic() + timeout
        for _ in range(size):
            remaining = until - time.monotonic()
            if self._interrupted:
                break
            try:
                request = self._mp_queue.get(block=True, timeout=max(0.0, remaining))
                self._accept(request, time.monotonic() - time.time())
            except Empty:
                break
            except Exception as error:  # noqa: BLE001 - a damaged pickle may raise anything
                self._dropped.add(f"not a request ({type(error).__name__})", error_described(error))
                # If it is the queue that is broken, this keeps the loop from spinning.
                time.sleep(min(_ERROR_PAUSE, max(0.0, remaining)))
        self._interrupted = False
        self.waiter.wait(0.0)
        return self._take(size)


def _hooks_for(on_expired: Callable[[Report], None]) -> ContractHooks:
    from unhang._watchdog.bystander import ContractHooks  # loads what reports need

    return ContractHooks(on_expired)


class LocalTimerServer(TimerServer):
    """The server of `LocalTimerClient`: kills a worker, with SIGKILL, when one of its timers expires.

    Args:
        mp_queue: the ``multiprocessing.Queue`` that the workers' clients have.
        max_interval: seconds for which one turn of the loop waits at most; a worker is killed at its deadline
            whatever this is.
        daemon: whether the thread lets the process end without it.
        on_expired: called with a report (`unhang.report.model.Report`, frozen) of each worker that is about to be
            killed, in a thread of its own; what it raises is logged. The kill comes some hundredths of a second later
            then, a second at most, since the stacks are taken first.

    It never kills itself, its ancestors, its process group, or a process of another user, nor whoever has the
    pid of a worker that is gone, and spares a worker while a debugger holds it. What it cannot kill it
    tries again with growing pauses. It survives its kills.
    """

    def __init__(
        self,
        mp_queue: Any,
        max_interval: float = 60,
        daemon: bool = True,
        *,
        on_expired: Callable[[Report], None] | None = None,
    ) -> None:
        from unhang._watchdog.watch import Watch

        self._hooks = None if on_expired is None else _hooks_for(on_expired)
        queue = MultiprocessingRequestQueue(mp_queue, until_due=True)
        super().__init__(queue, max_interval, daemon)
        self._watch: Watch[TimerRequest] = Watch(queue.waiter)
        self._judged_by = time.time()

    @property
    def _timers(self) -> DeadlineTable[TimerRequest]:
        return self._watch.timers

    @property
    def dropped_requests(self) -> Mapping[str, int]:
        """How many messages and requests were dropped, by kind."""
        received = getattr(self._request_queue, "dropped", {})
        return {**received, **self._watch.dropped.counts}

    def register_timers(self, timer_requests: list[TimerRequest]) -> None:
        """See `TimerServer.register_timers`."""
        self._watch.register_all(timer_requests)

    def clear_timers(self, worker_ids: set[int]) -> None:
        """See `TimerServer.clear_timers`."""
        for pid in worker_ids:
            self._watch.clear(pid)

    def get_expired_timers(self, deadline: float) -> dict[Any, list[TimerRequest]]:
        """See `TimerServer.get_expired_timers`. ``deadline`` is in seconds of the wall clock."""
        return self._watch.expired(deadline)

    def _reap_worker(self, worker_id: int) -> bool:
        return self._watch.kill(worker_id, signal.SIGKILL)

    def _wait_time(self) -> float:
        return self._watch.wait_time(self._max_interval)

    def _now(self) -> float:
        return self._judged_by

    def _recheck(self) -> None:
        self._settle()
        if self._hooks is not None and self._hooks.look_into(self._watch, self._watch.expired(self._judged_by)):
            # That took its time, in which a worker may have disarmed its timer.
            self._watch.stays()
            self._settle()

    def _settle(self) -> None:
        self._judged_by = self._watch.look()
        queue = self._request_queue
        if not isinstance(queue, MultiprocessingRequestQueue):
            return
        queue.free_lock(self._watch.wall.read_at)
        if self._watch.is_due(self._judged_by):
            self.register_timers(queue.settle())

    def _reap_expired(self, expired: dict[Any, list[TimerRequest]]) -> set[Any]:
        queue = self._request_queue
        if not expired:
            return set()
        if not isinstance(queue, MultiprocessingRequestQueue):
            return super()._reap_expired(expired)
        with queue.writers_held():
            reaped = super()._reap_expired(expired)
            self._watch.workers.await_exits(reaped, _LAST_BREATH)
        return reaped

    def _retry_later(self, worker_id: Any) -> None:
        self._watch.retry_later(worker_id)
