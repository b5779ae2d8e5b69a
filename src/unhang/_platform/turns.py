"""How much of the processor a thread got, of what it asked for: the kernel's counts of its scheduling.

``/proc/PID/task/TID/schedstat`` has nanoseconds on a processor and of waiting for one. It counts a wait when it is
over, and the time in which a quota of its control group kept it off the processor as waiting.
"""

from __future__ import annotations

from dataclasses import dataclass

from unhang._platform.process import _read


@dataclass(frozen=True, slots=True)
class Turns:
    """One thread at one moment.

    Attributes:
        pid: its process.
        thread: the kernel's number of it.
        instant: on the monotonic clock, seconds.
        is_ready: whether it runs, or waits for a processor.
        ran: seconds on a processor, so far.
        waited: seconds of waiting for one, as far as they are over.
    """

    pid: int
    thread: int
    instant: float
    is_ready: bool
    ran: float
    waited: float

    def share_of_waiting(self, before: Turns) -> float:
        """The part of the time since ``before`` in which it waited for a processor, from 0 to 1."""
        spent = self.instant - before.instant
        if spent <= 0 or self.thread != before.thread:
            return 0.0
        waited = self.waited - before.waited
        if self.is_ready and before.is_ready:
            # It has probably not slept: the wait that goes on is the rest.
            waited = max(waited, spent - (self.ran - before.ran))
        return max(0.0, min(1.0, waited / spent))


def turns(pid: int, thread: int, instant: float) -> Turns | None:
    """What a thread got so far; of the main thread if there is none of that number. None if that cannot be read."""
    for number in (thread, pid) if thread > 0 else (pid,):
        try:
            ran, waited, _ = (int(word) for word in _read(f"/proc/{pid}/task/{number}/schedstat").split())
            state = _read(f"/proc/{pid}/task/{number}/stat").rpartition(b")")[2].split()[0]
        except (OSError, ValueError, IndexError):
            continue
        return Turns(pid, number, instant, state == b"R", ran / 1e9, waited / 1e9)
    return None
