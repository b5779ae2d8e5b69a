"""How times, places and workers are put into words, for people. Everything in a report may be hostile."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Iterable, Sequence

from unhang._core.texts import escaped
from unhang.report.model import Departed, Frame, Worker

_BREAKS = re.compile("[\t\n\r\v\f\x85\u2028\u2029]")


def stripped(text: str, keep: str = "") -> str:
    """The text with a space for each line break or tab, and the rest of it `escaped`, but for what is in ``keep``."""
    return escaped(_BREAKS.sub(lambda each: each[0] if each[0] in keep else " ", text), keep)


def clean(text: str, most: int) -> str:
    """The text on one line without control characters, cut behind ``most`` characters."""
    # Cut first: it may be megabytes.
    line = stripped(text[: most + 1]).strip()
    return line if len(line) <= most else f"{line[: most - 1]}…"


def clean_path(path: str, most: int) -> str:
    """As `clean`, but it is the beginning that is cut off."""
    line = stripped(path[-most - 1 :]).strip()
    return line if len(line) <= most else f"…{line[1 - most :]}"


def quoted(scope: str, most: int = 48) -> str:
    """The name of a block, in quotes; of a path, its end counts."""
    return f"'{clean_path(scope, most) if '/' in scope else clean(scope, most)}'"


def seconds(duration: float) -> str:
    """A duration, as exact as people want it: ``35 ms``, ``5.2 s``, ``61 s``, ``12 min``, ``3.4 h``."""
    if not math.isfinite(duration):
        return "? s"
    for least, unit, form in _DURATIONS:
        if abs(duration) >= least:
            return form.format(duration / unit)
    return "0 s" if duration == 0 else f"{round(duration * 1000)} ms"


# From how many seconds on, what to divide by, and how it is written.
_DURATIONS = (
    (3.6e9, 1, "{:.0e} s"),
    (7200, 3600, "{:.1f} h"),
    (600, 60, "{:.0f} min"),
    (9.95, 1, "{:.0f} s"),
    (0.0995, 1, "{:.2g} s"),
)


def instant(time: str) -> dt.datetime | None:
    """An instant in ISO 8601, of UTC if it says nothing else; None if it is none."""
    try:
        parsed = dt.datetime.fromisoformat(time[:64])
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=dt.UTC)).astimezone(dt.UTC)
    except (ValueError, OverflowError):
        return None


def moment(time: str) -> str:
    """An instant in ISO 8601 as ``2026-03-01 12:03:41 UTC``; what is none stays as it is."""
    parsed = instant(time)
    return f"{parsed:%Y-%m-%d %H:%M:%S} UTC" if parsed else clean(time, 32)


def number(count: int, noun: str, plural: str = "") -> str:
    """So many: ``1 worker``, ``2,000 workers``. The plural of the noun ends in s, if it is not given."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def often(count: int) -> str:
    """So often: ``never``, ``once``, ``3 times``."""
    return {0: "never", 1: "once"}.get(count, f"{count:,} times")


def size(count: int) -> str:
    """A number of bytes, in binary units."""
    if abs(count) < 1024:
        return number(count, "byte")
    amount = count / 1024
    for unit in ("KiB", "MiB", "GiB"):
        if abs(amount) < 1024:
            return f"{amount:.0f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def ranges(numbers: Iterable[int], most: int = 12) -> str:
    """Numbers in order, runs folded: ``0-3,5``; what is behind the first ``most`` runs becomes an ellipsis."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    words = [str(low) if low == high else f"{low}-{high}" for low, high in runs[:most]]
    return ",".join([*words, "…"] if len(runs) > most else words)


def who(workers: Sequence[Worker | Departed]) -> str:
    """Which workers: ``rank 2``, ``ranks 0-3,5``, ``worker 123`` by its pid, ``ranks 0-3 and workers 77,78``."""
    ranks = {worker.rank for worker in workers if worker.rank is not None}
    pids = {worker.pid for worker in workers if worker.rank is None}
    words = []
    if ranks:
        words.append(f"rank{_s(ranks)} {ranges(ranks)}")
    if pids:
        words.append(f"{_noun(workers, len(pids))} {ranges(pids, 6)}")
    return " and ".join(words)


def _noun(workers: Sequence[Worker | Departed], several: int) -> str:
    """What those without a rank are called."""
    if any(isinstance(worker, Departed) or worker.timers for worker in workers):
        return "worker" if several == 1 else "workers"
    return "process" if several == 1 else "processes"


def who_with_pid(worker: Worker | Departed) -> str:
    """One worker, and its pid: ``rank 2 (pid 17784)``, ``worker 123``."""
    return who([worker]) if worker.rank is None else f"{who([worker])} (pid {worker.pid})"


def count(workers: Sequence[Worker | Departed]) -> str:
    """How many workers: ``1 rank``, ``3 ranks``, or ``3 workers`` if they have no ranks."""
    noun = "rank" if all(worker.rank is not None for worker in workers) else "worker"
    return number(len(workers), noun)


def ending(exit_: str) -> str:
    """How a worker ended, behind "ended": ``by SIGKILL``, ``with exit code 1``; empty if that is not known."""
    how = clean(exit_, 60)
    return how and f"{'by' if how.startswith('SIG') else 'with'} {how}"


_OUTCOMES = {
    "": "It was left alone",
    "pending": "It was still being ended when this was recorded",
    "killed": "It was killed",
    "spared": "It was spared: it left its block in time",
    "postponed": "It was still in its block, which was given time back",
    "observed": "It was only observed",
    "held": "It was spared while a debugger held it, or a signal had stopped it",
    "refused": "It was not signalled: it is protected",
    "failed": "It could not be signalled",
    "unkillable": "It did not die, though SIGKILL was sent",
    "gone": "It ended by itself",
}


def outcome(worker: Worker) -> str:
    """What became of a worker, in sentences: "It was killed. It ended by SIGKILL"."""
    said = _OUTCOMES.get(worker.outcome) or f"What became of it: {clean(worker.outcome, 40)}"
    how = ending(worker.exit)
    return f"{said}.{f' It ended {how}.' if how else ''}"


def _s(several: Iterable[object]) -> str:
    return "" if len(list(several)) == 1 else "s"


def idle(worker: Worker) -> str:
    """What is known of a worker in no block: what it did before it was last heard of may have been in one."""
    if not worker.timers:
        return command(worker.evidence.process.command) if worker.evidence else "not looked at"
    return f"in no block, idle for at least {seconds(worker.idle)}"


def command(line: str, most: int = 60) -> str:
    """A command line in short: the program without its directory; what is too long is cut out of the middle."""
    program, space, rest = line.partition(" ")
    words = clean(f"{program.rpartition('/')[2]}{space}{rest}", 1000)
    return words if len(words) <= most else f"{words[: most // 3]}…{words[most // 3 + 1 - most :]}"


def place(frame: Frame) -> str:
    """Where a frame is, in short: ``train.py:41 in load_batch``."""
    return f"{clean_path(spot(frame).rpartition('/')[2], 48)} in {clean(frame.function, 48)}"


def spot(frame: Frame) -> str:
    """The file and line of a frame."""
    return f"{frame.file}:{frame.line}" if frame.line else frame.file
