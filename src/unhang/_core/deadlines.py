"""The table of deadlines: what a server keeps of its live timers."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, NamedTuple, TypeVar

Request = TypeVar("Request")
Key = tuple[Hashable, Hashable]
_Entry = tuple[float, int, Key]


class _Timer(NamedTuple):
    deadline: float
    sequence: int
    request: object
    armed_at: float
    asked: float  # the deadline that it was armed with


class DeadlineTable(Generic[Request]):
    """Live timers by ``(worker, scope)``, and which of them is due first.

    A binary heap with lazy deletion, after the one in trio: arming pushes, disarming forgets, and heap
    entries that no longer stand for a live timer are dropped when they surface, or all at once when they
    outnumber the live ones. Arming and finding the next deadline cost O(log n), `expired` costs
    O(k log n) for k expired timers; nothing costs O(n) but the rare rebuild, which is O(1) a timer.

    It never reads a clock: every instant is the caller's, seconds on one clock. A deadline may be
    infinite, but not NaN. Not thread-safe, but for ``len`` and ``in``.
    """

    # Below this many dead heap entries a rebuild is not worth its while.
    _TOLERATED = 1000

    def __init__(self) -> None:
        self._workers: dict[Hashable, dict[Hashable, _Timer]] = {}
        self._heap: list[_Entry] = []
        self._live = 0
        self._sequence = 0

    def __len__(self) -> int:
        return self._live

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, tuple) or len(key) != 2:
            return False
        return key[1] in self._workers.get(key[0], ())

    def __iter__(self) -> Iterator[Key]:
        return ((worker, scope) for worker, scopes in self._workers.items() for scope in scopes)

    def items(self) -> Iterator[tuple[float, Request]]:
        """Each live timer's deadline and request."""
        for scopes in self._workers.values():
            for timer in scopes.values():
                yield timer.deadline, timer.request  # type: ignore[misc]

    def has_worker(self, worker: Hashable) -> bool:
        """Whether the worker has a live timer."""
        return worker in self._workers

    def arm(
        self, worker: Hashable, scope: Hashable, deadline: float, request: Request, armed_at: float = math.inf
    ) -> None:
        """Start the timer, or start it again if it is live: the new deadline and request replace the old.

        Args:
            worker: whose timer.
            scope: its name.
            deadline: when it expires.
            request: what `expired` returns then.
            armed_at: when its time began, for `credit`.
        """
        self._set(worker, scope, deadline, request, armed_at, deadline)

    def _set(
        self, worker: Hashable, scope: Hashable, deadline: float, request: object, armed_at: float, asked: float
    ) -> None:
        self._sequence += 1
        scopes = self._workers.setdefault(worker, {})
        self._live += scope not in scopes
        scopes[scope] = _Timer(deadline, self._sequence, request, armed_at, asked)
        heapq.heappush(self._heap, (deadline, self._sequence, (worker, scope)))
        if len(self._heap) > 2 * self._live + self._TOLERATED:
            self._rebuild()

    def disarm(self, worker: Hashable, scope: Hashable) -> bool:
        """Stop one timer; False if there was none."""
        scopes = self._workers.get(worker)
        if scopes is None or scopes.pop(scope, None) is None:
            return False
        self._live -= 1
        if not scopes:
            del self._workers[worker]
        return True

    def disarm_worker(self, worker: Hashable) -> int:
        """Stop all timers of a worker; returns how many there were."""
        count = len(self._workers.pop(worker, ()))
        self._live -= count
        return count

    def next_deadline(self) -> float | None:
        """The earliest deadline of a live timer; None when there is none."""
        heap = self._heap
        while heap and not self._is_live(heap[0]):
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def next_request(self, by: float) -> Request | None:
        """The request whose deadline `next_deadline` tells; None when there is none, or it is later than ``by``."""
        deadline = self.next_deadline()
        if deadline is None or deadline > by:
            return None
        worker, scope = self._heap[0][2]
        request: Request = self._workers[worker][scope].request  # type: ignore[assignment]
        return request

    def expired(self, now: float) -> dict[Hashable, list[Request]]:
        """The requests whose deadline is ``now`` or earlier, by worker, the earliest first.

        The timers stay live: whoever acts on them disarms, re-arms or postpones them.
        """
        found: dict[Hashable, list[Request]] = {}
        for entry in self._due(now):
            heapq.heappush(self._heap, entry)
            worker, scope = entry[2]
            request: Request = self._workers[worker][scope].request  # type: ignore[assignment]
            found.setdefault(worker, []).append(request)
        return found

    def _due(self, now: float) -> list[_Entry]:
        """Take the entries of timers whose deadline is ``now`` or earlier out of the heap, the earliest first."""
        due = []
        while self._heap and self._heap[0][0] <= now:
            entry = heapq.heappop(self._heap)
            if self._is_live(entry):
                due.append(entry)
        return due

    def credit(self, now: float, moved: Callable[[float, float], float]) -> None:
        """Move the deadlines that are ``now`` or earlier to where they are with what they get back.

        Args:
            now: this instant.
            moved: that deadline, of the instant at which a timer was armed, and the deadline that it was armed with.
        """
        for entry in self._due(now):
            worker, scope = entry[2]
            timer = self._workers[worker][scope]
            later = moved(timer.armed_at, timer.asked)
            if later > timer.deadline:
                self._set(worker, scope, later, timer.request, timer.armed_at, timer.asked)
            else:
                heapq.heappush(self._heap, entry)

    def postpone(self, worker: Hashable, until: float) -> None:
        """Move every deadline of the worker that lies before ``until`` to ``until``."""
        for scope, timer in list(self._workers.get(worker, {}).items()):
            if timer.deadline < until:
                request: Request = timer.request  # type: ignore[assignment]
                self.arm(worker, scope, until, request)

    def _is_live(self, entry: _Entry) -> bool:
        _, sequence, (worker, scope) = entry
        timer = self._workers.get(worker, {}).get(scope)
        return timer is not None and timer.sequence == sequence

    def _rebuild(self) -> None:
        self._heap = [entry for entry in self._heap if self._is_live(entry)]
        heapq.heapify(self._heap)
