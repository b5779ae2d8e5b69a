"""The class of a hang: a list of rules, asked in order; the first that can tell decides.

A rule tells only what follows from the facts. What none of them can tell is `HangClass.UNKNOWN`.
"""

from __future__ import annotations

from collections.abc import Callable

from unhang._verdict import calls, library, running
from unhang._verdict.running import Finding
from unhang._verdict.scene import COLLECTIVE
from unhang._verdict.symptoms import ENOUGH_TO_STARVE, Symptoms, is_running
from unhang.report.model import HangClass
from unhang.report.words import number

Rule = Callable[[Symptoms], Finding | None]

# The kernel's functions in which a frozen control group keeps its processes.
_FROZEN = ("__refrigerator", "do_freezer_trap")
_SPAWNS = ("kernel_clone", "_do_fork", "wait_for_vfork_done")
_FAULTS_A_SECOND = 20


def classify(symptoms: Symptoms) -> Finding:
    """The class of a hang, and the facts that it rests on. Pure; takes any symptoms."""
    for rule in RULES:
        finding = rule(symptoms)
        if finding is not None:
            hang, facts = finding
            return hang, (*facts, *_general(symptoms, facts))
    facts = running.unsure(symptoms)
    return HangClass.UNKNOWN, (*facts, *_general(symptoms, facts))


def waits_for(symptoms: Symptoms, facts: tuple[str, ...]) -> tuple[str, ...]:
    """Whom a worker waits to hear from; see `unhang.report.model.Evidence`."""
    in_collective = any(library.is_collective(frame) for frame in symptoms.relevant.frames)
    if in_collective or any(COLLECTIVE in fact for fact in facts):
        return (COLLECTIVE,)
    return tuple(sorted({target.remote for target in symptoms.targets or () if target.remote}))


def is_plain(symptoms: Symptoms) -> bool:
    """Whether no further stacks can change the class."""
    return any(rule(symptoms) is not None for rule in _WITHOUT_STACKS)


def _debugger(symptoms: Symptoms) -> Finding | None:
    if not symptoms.tracer:
        return None
    name = f" ({symptoms.tracer_name})" if symptoms.tracer_name else ""
    return HangClass.DEBUGGER, (f"a debugger holds it: pid {symptoms.tracer}{name}",)


def _stopped(symptoms: Symptoms) -> Finding | None:
    look = symptoms.its_look
    if look.state == "T":
        return HangClass.STOPPED, ("state T: a signal has stopped it",)
    if look.wchan.startswith(_FROZEN):
        return HangClass.STOPPED, ("its control group is frozen",)
    return None


def _starved(symptoms: Symptoms) -> Finding | None:
    seen = symptoms.its_motion
    if not seen.ready or symptoms.window < ENOUGH_TO_STARVE or seen.waited < 0.7 or seen.cpu > 0.2:
        return None
    waited = f"was ready to run for {symptoms.window:.1f} s and waited for a processor {seen.waited:.0%} of that"
    return HangClass.STARVED, (waited, f"used {seen.cpu:.0%} of a processor")


def _disk(symptoms: Symptoms) -> Finding | None:
    look, seen = symptoms.its_look, symptoms.its_motion
    many = symptoms.major_faults >= max(3, _FAULTS_A_SECOND * symptoms.window)
    if many and seen.cpu < 0.5 and not seen.rests:
        swapped = f", with {symptoms.swapped >> 20} MiB swapped out" if symptoms.swapped else ""
        return HangClass.DISK, (
            f"read {number(symptoms.major_faults, 'page')} from disk in {symptoms.window:.2f} s{swapped}",
        )
    if seen.states != ("D", "D"):
        return None
    where = f"state D in {look.wchan}" if look.wchan else "state D"
    if look.wchan.startswith(_SPAWNS):
        return HangClass.CHILD, (where, "waits for a child process to start its program")
    return HangClass.DISK, (where,)


def _general(symptoms: Symptoms, told: tuple[str, ...]) -> list[str]:
    """What is worth knowing about the relevant thread, whatever the class is, unless it has been told."""
    look, seen, thread = symptoms.its_look, symptoms.its_motion, symptoms.relevant
    facts = []
    if look.syscall not in ("", "running") and not is_running(seen):
        call = running.called(look.syscall)
        if not any(call in fact for fact in told):
            name = running.label(thread)
            facts.append(f"{'it' if told and told[-1].startswith(name) else name} is in {call}")
    elif look.state in ("S", "D") and not told:
        facts.append(f"{running.label(thread)} is asleep")
    if symptoms.window and (seen.cpu >= 0.05 or is_running(seen)):
        facts.append(f"used {seen.cpu:.0%} of a processor for {symptoms.window:.2f} s")
    if seen.ready and seen.waited >= 0.5 and not any("for a processor" in fact for fact in told):
        facts.append(f"waited for a processor {seen.waited:.0%} of that time")
    if thread.holds_gil and not any("the GIL" in fact for fact in told):
        facts.append("holds the GIL")
    return facts


_WITHOUT_STACKS: tuple[Rule, ...] = (_debugger, _stopped, _starved, _disk, running.gil_kept)
RULES: tuple[Rule, ...] = (
    *_WITHOUT_STACKS,
    running.by_samples,
    calls.by_frames,
    calls.by_event_loop,
    calls.by_futex,
    calls.by_syscall,
    calls.by_line,
)
