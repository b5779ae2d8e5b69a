"""Threads that are blocked: what for, by their calls, their system call, and the text of their line."""

from __future__ import annotations

from unhang._platform.waits import Target
from unhang._verdict import library, running
from unhang._verdict.running import Finding, call, label
from unhang._verdict.symptoms import Symptoms, is_running
from unhang.report.model import Frame, HangClass

# What a line says that a thread waits for.
_AT_A_LINE = {
    HangClass.LOCK: "waits for a lock",
    HangClass.SLEEP: "sleeps",
    HangClass.NETWORK: "waits for the network",
    HangClass.CHILD: "waits for a child process",
}
_COLLECTIVE_THREADS = ("pt_gloo", "pt_nccl", "gloo_")
_EPOLL = ("epoll_wait", "epoll_pwait", "epoll_pwait2")
_MANY = ("poll", "ppoll", "select", "pselect6", *_EPOLL)
_MILLISECONDS = ("poll", *_EPOLL[:2])
_BY_NAME = {
    "recvfrom": HangClass.NETWORK,
    "recvmsg": HangClass.NETWORK,
    "recvmmsg": HangClass.NETWORK,
    "sendto": HangClass.NETWORK,
    "sendmsg": HangClass.NETWORK,
    "sendmmsg": HangClass.NETWORK,
    "accept": HangClass.NETWORK,
    "accept4": HangClass.NETWORK,
    "connect": HangClass.NETWORK,
    "wait4": HangClass.CHILD,
    "waitid": HangClass.CHILD,
    "nanosleep": HangClass.SLEEP,
    "clock_nanosleep": HangClass.SLEEP,
    "flock": HangClass.LOCK,
    "fcntl": HangClass.LOCK,
    "semop": HangClass.LOCK,
    "semtimedop": HangClass.LOCK,
    "ioctl": HangClass.NATIVE,
}
_BY_KIND = {
    "tcp": HangClass.NETWORK,
    "udp": HangClass.NETWORK,
    "unix": HangClass.NETWORK,
    "socket": HangClass.NETWORK,
    "pipe": HangClass.PIPE,
    "pidfd": HangClass.CHILD,
}
# What the kernel's function says when the descriptor does not: a named pipe has a path like any file.
_BY_WCHAN = (
    (("pipe_read", "pipe_write", "anon_pipe_read", "anon_pipe_write", "wait_for_partner"), HangClass.PIPE),
    (("request_wait_answer", "fuse_", "rpc_wait", "nfs"), HangClass.DISK),
    (("unix_stream", "unix_dgram", "sk_wait", "sk_stream", "inet_", "wait_woken", "tcp_"), HangClass.NETWORK),
)


def by_frames(symptoms: Symptoms) -> Finding | None:
    """Well-known functions say what they wait for."""
    if not _is_blocked(symptoms):
        return None
    waits = library.waits_in(symptoms.relevant.frames)
    if waits is None:
        return None
    hang, frame = waits
    syscall = symptoms.its_look.syscall
    if hang is HangClass.LOCK and syscall not in ("", "running", "futex"):
        return None  # a lock is a futex: what this call waits for is something else
    if hang in (HangClass.PIPE, HangClass.NETWORK) and symptoms.targets and not library.is_collective(frame):
        return None  # its descriptors tell more
    told = frame if library.is_collective(frame) else library.entry(symptoms.relevant.frames)
    where = f"{label(symptoms.relevant)} waits in {library.name(told)}() of {library.place(told)}"
    return hang, (where, *_details(hang, symptoms))


def _is_blocked(symptoms: Symptoms) -> bool:
    return bool(symptoms.relevant.frames) and not is_running(symptoms.its_motion)


def _details(hang: HangClass, symptoms: Symptoms) -> tuple[str, ...]:
    if hang is HangClass.CHILD and symptoms.children:
        return (f"its child processes: {', '.join(symptoms.children[:5])}",)
    return ()


def by_event_loop(symptoms: Symptoms) -> Finding | None:
    """An event loop that has nothing to do: what it watches is what its tasks wait for."""
    look = symptoms.its_look
    if not library.is_event_loop(symptoms.relevant.frames) or not symptoms.its_motion.rests:
        return None
    if look.syscall not in _EPOLL or symptoms.targets is None:
        return HangClass.UNKNOWN, ("its event loop is idle",)
    # Its own wake-up is a pair of unix sockets; a socket that listens waits for nobody in particular.
    watched = [target for target in symptoms.targets if target.kind in ("tcp", "udp", "pipe", "pidfd")]
    watched = [target for target in watched if not target.listening]
    if watched:
        return _BY_KIND[watched[0].kind], (f"its event loop is idle and watches {_names(watched)}",)
    if any(target.listening or target.kind not in ("unix", "event") for target in symptoms.targets):
        return HangClass.UNKNOWN, ("its event loop is idle",)
    if _timeout(symptoms) is None:
        return HangClass.LOCK, ("its event loop is idle, watches nothing and has no timer: a task waits for another",)
    return HangClass.UNKNOWN, ("its event loop is idle and watches nothing; it has a timer",)


def _timeout(symptoms: Symptoms) -> float | None:
    """Seconds after which its call would return by itself; None for never, or if that is not known."""
    look = symptoms.its_look
    if look.syscall not in (*_EPOLL[:2], "poll") or len(look.arguments) < 6:
        return None
    milliseconds = look.arguments[2 if look.syscall == "poll" else 3] & 0xFFFFFFFF
    return None if milliseconds & 0x80000000 else milliseconds / 1000


def by_futex(symptoms: Symptoms) -> Finding | None:
    """A futex is a lock, or anything else that C code waits for: who called tells which."""
    thread = symptoms.relevant
    if symptoms.its_look.syscall != "futex" or is_running(symptoms.its_motion) or not thread.frames:
        return None
    name = label(thread)
    if waits_for_collective(symptoms):
        return HangClass.NETWORK, (f"{name} waits for an operation of torch.distributed, which has threads here",)
    above = next((sample.above for sample in symptoms.samples.get(thread.id, ()) if sample.above), ())
    if above:
        hang, fact = _by_c_code(above)
        return hang, (f"{name} {fact}",)
    if library.takes_a_lock(thread.frames[0]):
        return HangClass.LOCK, (f"{name} waits for a lock",)
    return HangClass.UNKNOWN, (f"{name} waits for a lock, or in other C code: its stack does not tell which",)


def _by_c_code(above: tuple[Frame, ...]) -> tuple[HangClass, str]:
    """What the C code that led to a futex waits for."""
    if any("c10d" in frame.function for frame in above):
        return HangClass.NETWORK, "waits in torch.distributed for the other ranks"
    if running.waits_for_gil(above):
        return HangClass.UNKNOWN, "waits for the GIL"
    if all(library.is_lock_code(frame) for frame in above):
        return HangClass.LOCK, f"waits in {call(above[-1])}, a lock"
    return HangClass.NATIVE, f"waits in {call(_outermost_foreign(above))}"


def _outermost_foreign(above: tuple[Frame, ...]) -> Frame:
    foreign = [frame for frame in above if not library.is_interpreter(frame)]
    return (foreign or list(above))[-1]


def waits_for_collective(symptoms: Symptoms) -> bool:
    """Whether a line waits for an operation of ``torch.distributed`` that it has started before."""
    frame = symptoms.relevant.frames[0]
    threads = any(look.name.startswith(_COLLECTIVE_THREADS) for look in symptoms.looks.values())
    return threads and ".wait(" in frame.source and not library.module_of(frame)


def wants_native(symptoms: Symptoms) -> bool:
    """Whether the C code of a blocked thread would tell a lock from another wait."""
    frames = symptoms.relevant.frames
    if symptoms.its_look.syscall != "futex" or not _is_blocked(symptoms) or library.waits_in(frames):
        return False
    return not library.takes_a_lock(frames[0]) and not waits_for_collective(symptoms)


def by_syscall(symptoms: Symptoms) -> Finding | None:
    """The system call, and what its descriptors are."""
    look = symptoms.its_look
    if look.syscall in ("", "running") or is_running(symptoms.its_motion):
        return None
    where = f"{label(symptoms.relevant)} waits in {running.called(look.syscall)}"
    targets = list(symptoms.targets or ())
    if look.syscall in _BY_NAME:
        hang = _BY_NAME[look.syscall]
        detail = f"{where} on {_names(targets)}" if targets else where
        return hang, (detail, *_details(hang, symptoms))
    if look.syscall in _MANY:
        return _of_many(symptoms, where, targets)
    kinds = {_BY_KIND[target.kind] for target in targets if target.kind in _BY_KIND}
    hang = kinds.pop() if len(kinds) == 1 else _by_wchan(look.wchan)
    return hang, (f"{where} on {_names(targets)}" if targets else where,)


def _of_many(symptoms: Symptoms, where: str, targets: list[Target]) -> Finding:
    if not targets:
        if symptoms.targets is not None and _timeout(symptoms) != 0:
            return HangClass.SLEEP, (f"{where} on nothing",)
        return HangClass.UNKNOWN, (where,)
    # An event loop that ran a moment ago: its own wake-up is a pair of unix sockets.
    others = () if library.is_event_loop(symptoms.relevant.frames) else (("unix", "socket"),)
    for kinds in (("tcp", "udp"), ("pidfd",), ("pipe",), *others):
        found = [target for target in targets if target.kind in kinds]
        if found:
            return _BY_KIND[found[0].kind], (f"{where} on {_names(found)}",)
    return HangClass.UNKNOWN, (f"{where} on {_names(targets)}",)


def _by_wchan(wchan: str) -> HangClass:
    for starts, hang in _BY_WCHAN:
        if wchan.startswith(starts):
            return hang
    return HangClass.UNKNOWN


def _names(targets: list[Target]) -> str:
    names = list(dict.fromkeys(target.name for target in targets))
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def by_line(symptoms: Symptoms) -> Finding | None:
    """Without its system call: a thread that sleeps, at a line that names a single thing that can be waited for."""
    thread, look = symptoms.relevant, symptoms.its_look
    if look.syscall or look.state != "S" or not symptoms.its_motion.rests or not thread.frames:
        return None
    hang = library.line_says(thread.frames[0])
    if hang is None or library.is_library(thread.frames[0]):
        return None
    if hang is HangClass.SLEEP and sum(bool(other.frames) for other in symptoms.threads) > 1:
        return None  # a sleep ends by itself: it may be another thread that does not give it the GIL back
    return hang, (f"{label(thread)} {_AT_A_LINE[hang]}, as its line says",)
