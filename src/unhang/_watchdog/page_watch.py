"""The watch over pages: when to look at which, who has expired, and who is spared. No waiting, no sockets.

A server's loop waits for `wait_time`, or until a worker kicks, and calls `turn`; it tells who joins, kicks and
leaves. Every page is looked at once a beat, and at its earliest deadline, so a turn costs what is due, not what is
armed. Not thread-safe: it belongs to the loop.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

from unhang._core.clock import Clock, SystemClock
from unhang._core.credits import Credits
from unhang._core.deadlines import DeadlineTable
from unhang._core.page import NEVER
from unhang._core.page_reader import Snapshot
from unhang._core.retries import pause_after
from unhang._core.timer_reader import Arming
from unhang._watchdog.kill import Outcome
from unhang._watchdog.presence import Presence
from unhang._watchdog.watched import Expired, Hands, Watched

# Every page is looked at so often (nanoseconds), so that a kick that was lost delays a kill by no more.
BEAT = 1_000_000_000
# Seconds after which a worker that a debugger holds is looked at again.
HELD_PAUSE = 1.0
# A deadline is near when it lies within so many nanoseconds: then a look at the worker tells later what it did in its
# last second. Not for blocks that were not there a beat ago: most of those end in time.
_NEAR = 1_200_000_000
# A worker is judged by so many timers at once: one would do, and a look must not take long.
_AT_ONCE = 1000
# Seconds before a deadline at which it is rehearsed, at most.
_SOON = 0.005
_SECOND = 1e9


_Over = tuple[Snapshot, int]  # a timer that has expired, and its deadline with what it got back


class PageWatch:
    """Workers and their pages.

    Args:
        hands: what is done with workers, and told.
        clock: another clock, for tests.
        pretimeout: seconds before a deadline at which it is told, for timers that do not say so themselves; 0: not.
    """

    def __init__(self, hands: Hands, clock: Clock | None = None, pretimeout: float = 0.0) -> None:
        self._hands = hands
        self._pretimeout = int(pretimeout * _SECOND)
        self._clock = clock or SystemClock()
        self._looks: DeadlineTable[Watched] = DeadlineTable()
        self._workers: dict[int, Watched] = {}
        self._numbers = itertools.count(1)
        self._credits = Credits()
        self._kicked: dict[int, Watched] = {}
        self._next_beat = 0
        self._presence = Presence(self._clock)
        self.was_armed = False  # whether any worker has ever armed a timer, as far as was looked

    @property
    def workers(self) -> list[Watched]:
        """Who is watched."""
        return list(self._workers.values())

    def join(self, worker: Watched) -> None:
        """Watch a worker from now on."""
        worker.number = next(self._numbers)
        worker.joined_at = worker.changed_at = self.now()
        worker.credits = Credits(self._credits)
        self._workers[worker.number] = worker
        self.kicked(worker)

    def kicked(self, worker: Watched) -> None:
        """The worker asks for a look: it gets one at the next `turn`, behind the giving back of time."""
        self._kicked[worker.number] = worker

    def leave(self, worker: Watched) -> None:
        """The worker has exited, or hung up: its timers go with it."""
        if self._workers.pop(worker.number, None) is not None:
            self._notice(worker)
            self._looks.disarm_worker(worker.number)
            self._kicked.pop(worker.number, None)
            worker.timers.close()

    def _notice(self, worker: Watched) -> None:
        self.was_armed = self.was_armed or worker.timers.was_armed

    @property
    def credits(self) -> Credits:
        """What everybody gets back."""
        return self._credits

    def now(self) -> int:
        """The monotonic clock, in nanoseconds."""
        return round(self._clock.now() * _SECOND)

    def wait_time(self) -> float:
        """Seconds to wait, at most, before the next `turn`."""
        next_look = self._looks.next_deadline()
        until = min(self._next_beat / _SECOND, math.inf if next_look is None else next_look)
        self._presence.waits(0.0 if self._kicked else max(0.0, until - self._clock.now()))
        # From here on, what takes time makes deadlines late.
        return 0.0 if self._kicked else max(0.0, until - self._clock.now())

    def rehearse(self) -> None:
        """Shortly before the next deadline: look at what will be looked at then, and judge nobody."""
        now = self.now()
        worker = self._looks.next_request(now / _SECOND + _SOON)
        if worker is None or worker.pending:
            return
        first, _ = worker.timers.due(worker.timers.earliest())
        seen = [arming.page.snapshot(arming.slot) for arming in first]
        timers = [_expired_timer(each, worker.deadline_of(each), now) for each in seen if each is not None]
        if timers:
            self._hands.prepare(worker, timers)

    def turn(self) -> bool:
        """After each wait: give back the time in which nobody looked, look at whoever is due; True once a beat."""
        lost = self._presence.is_back()
        now = self.now()
        if lost:
            self._credits.add(now, int(lost * _SECOND))
            self._hands.tell("overslept", None, [Expired("", 0.0, lost, 0.0)])
        beat = now >= self._next_beat
        if beat:
            self._next_beat = now + BEAT
            due = self.workers
        else:
            due = [worker for workers in self._looks.expired(now / _SECOND).values() for worker in workers]
        kicked, self._kicked = self._kicked, {}
        for worker in ({worker.number: worker for worker in due} | kicked).values():
            self.look_at(worker, again_soon=not beat)
            if beat:
                _notice_progress(worker, now)
        return beat

    def look_at(self, worker: Watched, *, again_soon: bool = False) -> None:
        """Read the worker's timers, judge it if one has expired, and promise when to look again.

        Args:
            worker: whom to look at.
            again_soon: look again when a timer that it has disarmed would have expired. A worker that kicks is likely
                to arm the same timer again, and would kick each time if the next look were a beat away.
        """
        now = self.now()
        if not self.was_armed:
            self._notice(worker)
        beat = max(self._next_beat, now + 1)
        due, next_look = worker.timers.look(beat, now, worker.credited, again_soon=again_soon)
        if not again_soon:
            self._look_early(worker, next_look, now)
        next_look = min(next_look, self._warn(worker, now))
        if worker.pending:
            pass
        elif due or worker.dealt_with:
            next_look = min(next_look, self._judge(worker, due, now))
        else:
            # Whatever kept it from being killed was about another block.
            worker.attempts, worker.held = 0, False
        if worker.number in self._workers and next_look < NEVER:
            self._looks.arm(worker.number, 0, next_look / _SECOND, worker)
        else:
            self._looks.disarm(worker.number, 0)

    def _look_early(self, worker: Watched, deadline: int, now: int) -> None:
        """Once a beat: have a look at a worker whose deadline is near, and was the next one a beat ago too."""
        if now < deadline < now + _NEAR and worker.next_deadline == deadline:
            self._hands.look_early(worker)
        worker.next_deadline = deadline

    def _warn(self, worker: Watched, now: int) -> int:
        """Tell of timers whose pretimeout has come; returns when the next one does."""
        if worker.pending or not (self._pretimeout or worker.timers.has_pretimeouts()):
            return NEVER
        longest = max(self._pretimeout, worker.timers.pretimeout)
        told = []
        near, earliest = worker.timers.due(now + longest)
        new = sorted(set(near) - worker.early, key=_by_deadline)
        # Where there are too many, the next beat is early enough.
        next_one = min(earliest - longest, now + BEAT) if len(new) > _AT_ONCE else earliest - longest
        for arming in new[:_AT_ONCE]:
            seen = arming.page.snapshot(arming.slot)
            if seen is None:
                continue
            credited = worker.deadline_of(seen)
            before = seen.pretimeout or self._pretimeout
            instant = credited - before
            if before >= seen.timeout:
                worker.early.add(arming)  # it would be told as soon as it is armed, which says nothing
            elif instant > now:
                next_one = min(next_one, instant)
            elif credited > now:
                worker.early.add(arming)
                told.append((credited, _expired_timer(seen, credited, now)))
        worker.early &= set(near)
        if told:
            self._hands.tell("pretimeout", worker, [timer for _, timer in sorted(told, key=lambda entry: entry[0])])
        return next_one

    def _judge(self, worker: Watched, due: list[Arming], now: int) -> int:
        """Deal with timers whose deadlines are over; returns when to look at the worker again."""
        expired, next_look = self._expired(worker, due, now)
        worker.dealt_with &= set(due)
        observed = [over for over in expired if over[0].page.observed]
        if observed:
            self._hands.tell("expired", worker, _expired_timers(observed, now))
            self._dealt_with(worker, observed)
        expired = [over for over in expired if not over[0].page.observed]
        if not expired:
            return next_look
        if worker.not_before > now:
            return worker.not_before
        return min(next_look, self._deal_with(worker, expired, now))

    def _expired(self, worker: Watched, due: list[Arming], now: int) -> tuple[list[_Over], int]:
        """Those that have expired even with what they get back, and are news; and when the next of them does."""
        new = sorted(set(due) - worker.dealt_with, key=_by_deadline)
        expired, is_damaged, next_look = [], False, NEVER
        for arming in new[:_AT_ONCE]:
            seen = arming.page.snapshot(arming.slot)
            if seen is None:
                continue
            deadline = worker.deadline_of(seen)
            if deadline > now:
                next_look = min(next_look, deadline)
            elif flaw := seen.flaw():
                is_damaged = True
                worker.dealt_with.add(arming)
                self._hands.damaged(worker, flaw)
            else:
                expired.append((seen, deadline))
        expired.sort(key=lambda entry: entry[1])
        # The others at once; what is in a damaged page can wait for the next beat.
        return expired, now if len(new) > _AT_ONCE and not is_damaged else next_look

    def _killable(self, worker: Watched, now: int) -> list[_Over]:
        """Those for which it may be killed, as they are now."""
        due, _ = worker.timers.due(now, worker.credited, observed_too=False)
        return self._expired(worker, due, now)[0]

    def recheck(self, worker: Watched, timers: list[Expired]) -> list[Expired] | Outcome:
        """The timers of a worker that have expired and are still armed; else what has become of these timers.

        A watchdog that was stopped since then does not matter: a page is as it is now, and they had all their time.
        """
        expired = self._killable(worker, self.now())
        if expired and self._was_starved(worker, expired[0]):
            expired = self._killable(worker, self.now())
        if expired:
            return _expired_timers(expired, self.now())
        is_armed = any(timer.seen is not None and timer.seen.is_still() for timer in timers)
        return Outcome.LATER if is_armed else Outcome.SPARED

    def _was_starved(self, worker: Watched, over: _Over) -> bool:
        """Whether it gets time back because it could not run; how much in all is bounded as for all that it gets."""
        now = self.now()
        lost = self._hands.could_not_run(worker, _expired_timer(*over, now))
        worker.credits.add(now, int(lost * _SECOND), is_pause=False)
        return lost > 0

    def settle(self, worker: Watched, outcome: Outcome, timers: list[Expired]) -> None:
        """What `Outcome.PENDING` has come to: the worker is judged again from now on."""
        worker.pending = False
        if worker.number not in self._workers:
            if outcome is Outcome.SPARED:
                self._hands.tell("near miss", worker, _until(self.now(), timers))
            return
        self._after(outcome, worker, self._killable(worker, self.now()), timers)
        self.kicked(worker)

    def _deal_with(self, worker: Watched, expired: list[_Over], now: int) -> int:
        timers = _expired_timers(expired, now)

        def still() -> Outcome | None:
            if self._was_starved(worker, expired[0]):
                found = self.recheck(worker, timers)
                return found if isinstance(found, Outcome) else None
            return None if any(seen.is_still() for seen, _ in expired) else Outcome.SPARED

        if worker.held:
            return self._look_whether_held(worker, now)
        # Before, since what is begun may be settled at once.
        worker.pending = True
        outcome = self._hands.execute(worker, timers, still)
        if outcome is Outcome.PENDING:
            return NEVER
        worker.pending = False
        return self._after(outcome, worker, expired, timers)

    def _look_whether_held(self, worker: Watched, now: int) -> int:
        """A debugger held the worker: once it does not, its timers start over. Returns when to look again."""
        if self._hands.is_held(worker):
            worker.not_before = now + int(HELD_PAUSE * _SECOND)
            return worker.not_before
        worker.held = False
        worker.held_until = now
        return now

    def _dealt_with(self, worker: Watched, expired: list[_Over]) -> int:
        worker.dealt_with |= {Arming(seen.page, seen.index, seen.deadline) for seen, _ in expired}
        return NEVER

    def _after(
        self,
        outcome: Outcome,
        worker: Watched,
        expired: list[_Over],
        timers: list[Expired],
    ) -> int:
        """Tell what became of a worker; returns when to look at it again."""
        now = self.now()
        if outcome is Outcome.SPARED:
            self._hands.tell("near miss", worker, _until(now, timers))
        if outcome in (Outcome.SPARED, Outcome.LATER):
            return now
        if outcome is Outcome.GONE:
            return self._dealt_with(worker, expired)
        if outcome is Outcome.REFUSED:
            self._hands.tell("refused", worker, timers)
            return self._dealt_with(worker, expired)
        pause: float | None
        if outcome is Outcome.HELD:
            if not worker.held:
                self._hands.tell("held", worker, timers)
            worker.held = True
            pause = HELD_PAUSE
        else:
            worker.attempts += 1
            pause = pause_after(worker.attempts)
            first = worker.attempts == 1
            if outcome is Outcome.FAILED or pause is None:
                self._hands.tell("failed", worker, timers)
            elif first:
                self._hands.tell("killed", worker, timers)
        if pause is None:
            return self._dealt_with(worker, expired)
        worker.not_before = now + int(pause * _SECOND)
        return worker.not_before


def _notice_progress(worker: Watched, now: int) -> None:
    deadlines = worker.timers.deadlines
    if deadlines != worker.deadlines:
        worker.deadlines, worker.changed_at = deadlines, now


def _by_deadline(arming: Arming) -> int:
    return arming.deadline


def _until(now: int, timers: list[Expired]) -> list[Expired]:
    """The same timers, having run until now."""
    return [
        timer if timer.seen is None else replace(timer, running=(now - timer.seen.armed_at) / _SECOND)
        for timer in timers
    ]


def _expired_timers(expired: list[_Over], now: int) -> list[Expired]:
    return [_expired_timer(seen, deadline, now) for seen, deadline in expired]


def _expired_timer(seen: Snapshot, deadline: int, now: int) -> Expired:
    return Expired(
        seen.scope,
        seen.timeout / _SECOND,
        (now - deadline) / _SECOND,
        (now - seen.armed_at) / _SECOND,
        seen.ending,
        seen.thread,
        seen,
    )
