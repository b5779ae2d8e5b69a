"""Threads on a processor, and threads that keep the GIL: Python code or C code?

Every few milliseconds the interpreter passes the GIL on, and a line follows the other. C code does neither. A single
stack does not show which of the two it is; some stacks of the same thread do.
"""

from __future__ import annotations

from unhang._verdict import library
from unhang._verdict.symptoms import Motion, Sample, Symptoms, is_running
from unhang.report.model import Frame, HangClass, Thread

Finding = tuple[HangClass, tuple[str, ...]]

# A loop of Python code may be found in the same helper of the interpreter twice by chance.
_SAME, _SAME_IN_INTERPRETER = 2, 3
_WAITS_FOR_GIL = ("take_gil", "PyEval_RestoreThread", "PyEval_AcquireThread")
# Called by the interpreter's loop itself, where it has taken in the function that takes the GIL.
_CONDITIONS = ("pthread_cond_timedwait", "pthread_cond_clockwait")


def label(thread: Thread) -> str:
    """What to call a thread."""
    return thread.name or (f"thread {thread.id}" if thread.id else "its thread")


def called(syscall: str) -> str:
    """What to call a system call: ``read()``, or by its number if nobody knows its name."""
    return syscall.replace("syscall ", "system call ") if syscall.startswith("syscall ") else f"{syscall}()"


def owner(symptoms: Symptoms) -> Thread | None:
    """Whose the GIL was all the time; None for nobody's, several threads', or if that is not known.

    One dump shows a moment. It stands for the whole time if another shows the same, or if the thread was not run once.
    """
    owners = set(symptoms.owners)
    number = owners.pop() if owners else 0
    seen = symptoms.motions.get(number)
    if not number or owners or seen is None:
        return None
    return symptoms.thread(number) if len(symptoms.owners) > 1 or (seen.stayed and seen.turns == 0) else None


def wants_owner_again(symptoms: Symptoms) -> bool:
    """Whether another dump would tell if a blocked thread keeps the GIL."""
    owners = set(symptoms.owners)
    seen = symptoms.motions.get(owners.pop()) if len(symptoms.owners) == 1 else None
    return seen is not None and seen.rests and owner(symptoms) is None


def suspect(symptoms: Symptoms) -> int:
    """The thread of which more stacks would tell more: the relevant one if it runs, else one that keeps the GIL."""
    relevant = symptoms.relevant
    if is_running(symptoms.its_motion):
        return relevant.id
    holder = next((thread for thread in symptoms.threads if thread.holds_gil and thread.id), None)
    waits_in_lock = library.waits_in(relevant.frames) is not None
    if (
        holder is None
        or holder.id == relevant.id
        or not is_running(symptoms.motions.get(holder.id, Motion()))
        or waits_in_lock
    ):
        return 0
    return holder.id


def gil_kept(symptoms: Symptoms) -> Finding | None:
    """C code that is blocked and keeps the GIL meanwhile: no thread of the process can run Python code."""
    holder = owner(symptoms)
    seen = None if holder is None else symptoms.motions.get(holder.id)
    if holder is None or seen is None or not seen.rests:
        return None
    look = symptoms.looks.get(holder.id)
    where = f", blocked in {called(look.syscall)}" if look and look.syscall not in ("", "running") else ", blocked"
    if holder.id == symptoms.relevant.id:
        return HangClass.NATIVE_GIL, (f"{label(holder)} holds the GIL in C code{where}",)
    return HangClass.NATIVE_GIL, (f"thread '{label(holder)}' holds the GIL in C code{where}", "no other thread can run")


def by_samples(symptoms: Symptoms) -> Finding | None:
    """A thread that is on a processor: the relevant one, or one that keeps the GIL from it."""
    number = suspect(symptoms)
    thread = symptoms.thread(number) if number else None
    if thread is None:
        return None
    finding = decide(symptoms.samples.get(number, ()), thread, symbols=symptoms.symbols)
    if number == symptoms.relevant.id or finding is None:
        return finding
    if finding[0] is HangClass.NATIVE_GIL:
        return finding[0], (f"thread '{label(thread)}' holds the GIL in C code", *finding[1])
    return None


def decide(samples: tuple[Sample, ...], thread: Thread, *, symbols: bool) -> Finding | None:
    """What stacks of a thread on a processor say; None if they do not decide yet.

    Args:
        samples: its stacks.
        thread: what it is, with the first of them.
        symbols: as `Symptoms.symbols`.
    """
    if len({sample.place for sample in samples}) > 1:
        return HangClass.PYTHON_LOOP, ("runs Python code: its line changes",)
    natives = [sample for sample in samples if sample.native]
    if any((symbols and not sample.above) or waits_for_gil(sample.above) for sample in natives):
        return HangClass.PYTHON_LOOP, ("runs Python code: there is no C code above its line",)
    if any(library.calls_nothing(frame) for frame in thread.frames[:1]):
        return HangClass.PYTHON_LOOP, ("runs Python code: its line calls nothing",)
    if len(samples) >= _SAME and all(sample.holds_gil is False for sample in samples):
        return HangClass.NATIVE, ("runs C code without the GIL", *_in(natives))
    return _same_call([sample for sample in natives if sample.above]) or _in_regex(samples, thread)


def _same_call(natives: list[Sample]) -> Finding | None:
    """C code that was in the same call each time."""
    directly = [sample.above[-1] for sample in natives]
    if not directly:
        return None
    names = {(frame.file, frame.function) for frame in directly}
    if len(names) > 1:
        return HangClass.PYTHON_LOOP, ("runs Python code: the C code above its line changes",)
    needed = _SAME_IN_INTERPRETER if library.is_interpreter(directly[0]) else _SAME
    if len(natives) < needed or not all(sample.holds_gil for sample in natives):
        return None
    return HangClass.NATIVE_GIL, (*_in(natives), f"was in it in each of {len(natives)} samples, with the GIL")


def _in_regex(samples: tuple[Sample, ...], thread: Thread) -> Finding | None:
    """The same call of a regular expression each time, which is C code, where C code does not show."""
    if len(samples) < _SAME_IN_INTERPRETER or any(sample.holds_gil is False for sample in samples):
        return None
    frame = thread.frames[0] if thread.frames else None
    if frame is None or not library.matches_regex(frame):
        return None
    return HangClass.NATIVE_GIL, (
        f"was in re.{library.name(frame)}(), which keeps the GIL, in each of {len(samples)} samples",
    )


def _in(natives: list[Sample]) -> tuple[str, ...]:
    return (f"runs {call(natives[0].above[-1])}, C code",) if natives and natives[0].above else ()


def call(frame: Frame) -> str:
    """What to call a function of C code, whose name may not be known."""
    return f"C code of {frame.file.rpartition('/')[2]}" if frame.function.startswith("0x") else f"{frame.function}()"


def waits_for_gil(above: tuple[Frame, ...]) -> bool:
    """Whether C code above a line of Python code is the interpreter's own wait for the GIL."""
    if not above:
        return False
    return above[-1].function in _CONDITIONS or any(frame.function in _WAITS_FOR_GIL for frame in above)


def unsure(symptoms: Symptoms) -> tuple[str, ...]:
    """What could not be told about a thread on a processor."""
    if not is_running(symptoms.its_motion):
        return ()
    return ("runs, in Python or in C code: its stacks do not tell which",)
