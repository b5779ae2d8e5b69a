"""What well-known code waits for: by the names of its functions, by the text of a line."""

from __future__ import annotations

import itertools
import re

from unhang.report import frames
from unhang.report.model import Frame, HangClass

_STANDARD = re.compile(r"(?:^|/)python3[^/]*/(?!(?:site|dist)-packages/)(.+)$")
_INSTALLED = re.compile(r"/(?:site|dist)-packages/(.+)$")
_LOCK, _CHILD, _PIPE, _NETWORK = HangClass.LOCK, HangClass.CHILD, HangClass.PIPE, HangClass.NETWORK

# Modules of the standard library, their functions, and what these wait for.
_CALLS: tuple[tuple[str, str, HangClass], ...] = (
    ("threading.py", "wait wait_for acquire join _wait_for_tstate_lock _acquire_restore __enter__ _shutdown", _LOCK),
    ("queue.py", "get put join", _LOCK),
    ("concurrent/futures/_base.py", "result exception wait as_completed", _LOCK),
    ("multiprocessing/synchronize.py", "wait wait_for acquire __enter__", _LOCK),
    ("logging/__init__.py", "acquire _acquireLock", _LOCK),
    ("subprocess.py", "wait _wait _try_wait communicate _communicate _execute_child", _CHILD),
    ("multiprocessing/popen_fork.py", "wait poll", _CHILD),
    ("multiprocessing/popen_forkserver.py", "wait poll", _CHILD),
    ("multiprocessing/process.py", "join", _CHILD),
    ("multiprocessing/connection.py", "_recv _send _recv_bytes _send_bytes recv send recv_bytes send_bytes", _PIPE),
    ("socket.py", "accept readinto create_connection recv send", _NETWORK),
    ("ssl.py", "read write recv send accept connect do_handshake recv_into", _NETWORK),
)
_KNOWN = {(module, name): hang for module, names, hang in _CALLS for name in names.split()}

_TEXTS: tuple[tuple[str, HangClass], ...] = (
    (r"(?:^|[^\w.])(?:time\.)?sleep\(", HangClass.SLEEP),
    # C code that a bare name enters and that sleeps is a lock's.
    (r"\.acquire\(|^with (?:\w+\.)*\w+:", _LOCK),
    (r"\.(?:recv|recv_into|recvfrom|recvmsg|sendall|sendmsg|accept|getresponse|urlopen)\(", _NETWORK),
    (r"\bos\.(?:wait|waitpid|wait3|wait4|waitid)\(", _CHILD),
)
_COMPILED = tuple((re.compile(pattern), hang) for pattern, hang in _TEXTS)
# C code that `with` and `acquire` call is a lock's; that of other methods may be anything's.
_TAKES = re.compile(r"^with\b|\.acquire\(")
_MATCHERS = {"match", "fullmatch", "search", "sub", "subn", "split", "findall"}
_SIMPLE = re.compile(r"(?:while (?:True|1)\s*:|pass|continue|break|else:|try:)(?:\s*(?:pass|continue))?\s*(?:#.*)?")


def name(frame: Frame) -> str:
    """The name of a function alone, without its class."""
    return frame.function.rpartition(".")[2]


def module_of(frame: Frame) -> str:
    """The path of a module of the standard library within it; empty for all others."""
    if frame.file.startswith("<frozen "):
        return frame.file
    match = _STANDARD.search(frame.file)
    return match[1] if match else ""


def is_library(frame: Frame) -> bool:
    """Whether the code belongs to Python or to an installed package."""
    return frames.is_library(frame.file)


def is_collective(frame: Frame) -> bool:
    """Whether the function waits for the other ranks of a job of ``torch.distributed``."""
    match = _INSTALLED.search(frame.file)
    if match is None or not match[1].startswith("torch/distributed/"):
        return False
    return match[1].rpartition("/")[2] in {"distributed_c10d.py", "c10d_logger.py", "_functional_collectives.py"}


def waits_in(frames: tuple[Frame, ...]) -> tuple[HangClass, Frame] | None:
    """What the innermost calls wait for, if they are of well-known code, and the call that tells."""
    for frame in frames:
        if is_collective(frame):
            return HangClass.NETWORK, frame
        module = module_of(frame)
        if module.startswith("<frozen importlib") and name(frame) in ("acquire", "__enter__"):
            return HangClass.LOCK, frame
        if (module, name(frame)) in _KNOWN:
            return _KNOWN[module, name(frame)], frame
        if not is_library(frame):
            return None
    return None


def line_says(frame: Frame) -> HangClass | None:
    """What the text of a line waits for, if it is a single thing."""
    said = {hang for pattern, hang in _COMPILED if pattern.search(frame.source)}
    return said.pop() if len(said) == 1 else None


def takes_a_lock(frame: Frame) -> bool:
    """Whether a line that waits in a futex, in no further Python code, can only be one that takes a lock."""
    return bool(_TAKES.search(frame.source))


def calls_nothing(frame: Frame) -> bool:
    """Whether the line can only be run by the interpreter itself: no call, no operator."""
    return bool(_SIMPLE.fullmatch(frame.source))


def is_event_loop(frames: tuple[Frame, ...]) -> bool:
    """Whether an event loop of ``asyncio`` waits for something to do."""
    modules = [module_of(frame) for frame in frames[:3]]
    return modules[:2] == ["selectors.py", "asyncio/base_events.py"] and name(frames[0]) == "select"


def matches_regex(frame: Frame) -> bool:
    """Whether the function is one of ``re`` that does nothing but match."""
    return module_of(frame) in ("re/__init__.py", "re.py") and name(frame) in _MATCHERS


def entry(frames: tuple[Frame, ...]) -> Frame:
    """The call of well-known code that code of the program has made."""
    for inner, outer in itertools.pairwise(frames):
        if not is_library(outer):
            return inner
    return frames[-1]


def place(frame: Frame) -> str:
    """The path of a module within the standard library or its package."""
    match = _INSTALLED.search(frame.file)
    return module_of(frame) or (match[1] if match else frame.file)


def is_interpreter(frame: Frame) -> bool:
    """Whether a call of C code belongs to Python itself or to the C library, not to an extension."""
    file = frame.file.rpartition("/")[2]
    return file.startswith(("libpython3", "python3", "libc.so", "libc-", "libpthread", "ld-linux")) or file == "python"


def is_lock_code(frame: Frame) -> bool:
    """Whether a call of C code can be a lock of Python's own: of the interpreter, its queues, its semaphores."""
    extension = frame.file.rpartition("/")[2].partition(".")[0]
    return is_interpreter(frame) or extension in ("_queue", "_multiprocessing", "_thread")
