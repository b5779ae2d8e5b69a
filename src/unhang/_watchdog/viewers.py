"""What viewers are told: who is watched, what has happened, and the pages, to read for themselves.

A viewer asks, and gets one bounded answer; nothing is sent to it unasked, and nothing waits for it. It reads pages with
its own processor time. It belongs to the server's loop.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from unhang._core import real_time as time
from unhang._core.messages import MOST_DESCRIPTORS, MessageError
from unhang._core.texts import error_described
from unhang._platform.descriptor import OwnFd
from unhang._watchdog.journal import Journal
from unhang._watchdog.watched import Watched
from unhang.report.jsons import encoded
from unhang.report.live import VERSION, Ask, News, Watchdog, WorkerInfo
from unhang.report.model import Report

# In one answer, which is one packet.
_MOST_WORKERS = 32
_MOST_EVENTS = 64
# Seconds for which a worker that has left can still be asked for, so that no short life is missed; and how many can.
_LINGER = 3.0
_MOST_DEPARTED = 128

Gather = Callable[[Watched, Callable[[Report | None], None]], bool]


@dataclass(eq=False, slots=True)
class Shown:
    """A connection of a worker as viewers are told of it, with its pages as descriptors that can only be read."""

    watched: Watched
    number: int
    pages: list[OwnFd] = field(default_factory=list)
    returned: bool = False
    observed: bool = False
    revision: int = 0
    left: float | None = None

    def info(self) -> WorkerInfo:
        worker, identity = self.watched, self.watched.origin.identity
        return WorkerInfo(
            number=worker.number,
            connection=self.number,
            revision=self.revision,
            pid=worker.pid,
            user=worker.origin.user,
            joined=worker.joined_at / 1e9,
            changed_at=worker.changed_at / 1e9,
            left=self.left,
            returned=self.returned,
            observed=self.observed,
            pages=len(self.pages),
            rank=identity.rank,
            local_rank=identity.local_rank,
            host=identity.host,
            job=identity.job,
            attempt=identity.attempt,
        )


class Viewer:
    """One viewer: what it has asked for and not been told yet."""

    def __init__(self) -> None:
        self.asked_at = 0.0  # monotonic seconds
        self.gathering = False
        self.stacks: Report | None = None
        self.no_stacks = ""

    def found(self, stacks: Report | None) -> None:
        """What was gathered, if anything was."""
        self.gathering = False
        self.stacks = stacks
        self.no_stacks = "" if stacks is not None else "it is gone"


class Viewers:
    """Answers what viewers ask.

    Args:
        watchdog: the watchdog as it is at the moment.
        journal: what has happened.
        gather: begins to gather the stacks of a worker, and passes them on later; False if it cannot now.
        awaited: whether a viewer is about to come, which is to hear of all that was before, too.
    """

    def __init__(
        self, watchdog: Callable[[], Watchdog], journal: Journal, gather: Gather, *, awaited: bool = False
    ) -> None:
        self._watchdog = watchdog
        self._journal = journal
        self._gather = gather
        # By number, in the order of their revisions.
        self._entries: dict[int, Shown] = {}
        self._departed: list[Shown] = []
        self._numbers = itertools.count(1)
        self._revision = 0
        self._awaited = awaited
        self.count = 0

    def came(self) -> None:
        """A viewer has come."""
        self.count += 1
        if self._awaited:
            self._awaited = False
            for entry in self._departed:
                entry.left = time.monotonic()

    def joined(self, worker: Watched, pages: list[OwnFd], *, returned: bool = False, observed: bool = False) -> Shown:
        """A worker has opened a connection; whether it had another watchdog before, or another connection."""
        entry = Shown(worker, next(self._numbers), list(pages), returned, observed)
        self._put(entry)
        return entry

    def has_more(self, entry: Shown, pages: list[OwnFd]) -> None:
        """A worker has handed over more pages by this connection."""
        entry.pages += pages
        self._put(entry)

    def left(self, entry: Shown) -> None:
        """This connection is closed."""
        if entry.left is not None:
            return
        if not (self.count or self._awaited) or len(self._departed) >= _MOST_DEPARTED:
            self._entries.pop(entry.number, None)
            return
        entry.left = time.monotonic()
        self._departed.append(entry)
        self._put(entry)

    def _put(self, entry: Shown) -> None:
        self._revision += 1
        entry.revision = self._revision
        self._entries.pop(entry.number, None)
        self._entries[entry.number] = entry

    def tidy(self) -> None:
        """Once a beat: forget those that have left."""
        if self._awaited:
            return
        old = time.monotonic() - _LINGER
        while self._departed and (self._departed[0].left or 0.0) < old:
            self._entries.pop(self._departed.pop(0).number, None)

    def close(self) -> None:
        """Give all descriptors back."""
        self._entries.clear()
        self._departed.clear()

    def answer(self, viewer: Viewer, message: bytes) -> tuple[bytes, list[OwnFd]]:
        """The answer to a message of a viewer, and the descriptors that go with it.

        Raises:
            MessageError: it does not ask as a viewer of this version does.
        """
        try:
            ask = msgspec.json.decode(message, type=Ask)
        except (ValueError, RecursionError) as error:
            raise MessageError(f"a viewer asks for nonsense: {error_described(error)}") from None
        if ask.version != VERSION:
            raise MessageError(f"the viewer speaks version {ask.version}, this watchdog {VERSION}: use one of both")
        if ask.stacks:
            self._look_into(viewer, ask.stacks)
        stacks, viewer.stacks = viewer.stacks, None
        if stacks is not None:  # they are long, and have an answer of their own
            return encoded(News(watchdog=self._watchdog(), stacks=stacks, serial=ask.serial, more=True)), []
        no_stacks, viewer.no_stacks = viewer.no_stacks, ""
        news, pages = self._news(ask, no_stacks)
        return encoded(news), pages

    def _look_into(self, viewer: Viewer, number: int) -> None:
        if viewer.gathering:
            return
        entries = self._entries.values()
        worker = next((each.watched for each in entries if each.watched.number == number and each.left is None), None)
        if worker is None:
            viewer.found(None)
        elif self._gather(worker, viewer.found):
            viewer.gathering = True
        else:
            viewer.no_stacks = "others are being looked into: ask again in a moment"

    def _news(self, ask: Ask, no_stacks: str) -> tuple[News, list[OwnFd]]:
        changed = []
        for entry in reversed(self._entries.values()):
            if entry.revision <= ask.revision:
                break
            changed.append(entry)
        workers: list[WorkerInfo] = []
        pages: list[OwnFd] = []
        while changed and len(workers) < _MOST_WORKERS and len(pages) + len(changed[-1].pages) <= MOST_DESCRIPTORS:
            entry = changed.pop()
            workers.append(entry.info())
            pages += entry.pages
        events, serial, missed = self._journal.since(ask.serial, _MOST_EVENTS)
        news = News(
            watchdog=self._watchdog(),
            workers=tuple(workers),
            events=events,
            serial=serial,
            missed=missed,
            more=bool(changed) or serial < self._journal.next,
            no_stacks=no_stacks,
        )
        return news, pages
