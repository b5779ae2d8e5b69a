"""Stacks of a process, out of what py-spy and Python's ``faulthandler`` print about it.

A worker decides what stands in these texts, names of functions and files most of all: whatever they hold, the result
is bounded, printable, and can be written as JSON.
"""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec

from unhang._core.texts import escaped
from unhang.report.model import Frame, Thread

T = TypeVar("T")

MOST_THREADS = 200
_MAIN = "MainThread"
INNERMOST, OUTERMOST = 150, 50
_LONGEST = 500
_LARGEST_LINE = 2**31 - 1


class StacksError(ValueError):
    """A text that is no stacks."""


class _SpyFrame(msgspec.Struct):
    name: str
    filename: str
    line: int = 0
    module: str | None = None


class _SpyThread(msgspec.Struct):
    frames: list[_SpyFrame]
    thread_name: str | None = None
    os_thread_id: int | None = None
    owns_gil: bool | None = None


_decoder = msgspec.json.Decoder(list[_SpyThread])


def from_pyspy(document: bytes, wanted: int = 0) -> tuple[Thread, ...]:
    """The threads in what ``py-spy dump --json`` printed; nothing but their ids, names, frames, and the GIL.

    Args:
        document: what it printed.
        wanted: the id of a thread that is among them however many there are, as the main thread and the owner of the
            GIL are; 0: of none.

    Raises:
        StacksError: it is no such document, or it has no thread.
    """
    try:
        threads = _decoder.decode(document)
    except (ValueError, RecursionError) as error:
        raise StacksError(f"py-spy printed what it should not: {error}") from None
    if not threads:
        raise StacksError("py-spy saw no thread")
    if len(threads) > MOST_THREADS:
        threads.sort(key=lambda one: not (one.os_thread_id == wanted or one.owns_gil or one.thread_name == _MAIN))
    return tuple(_thread_of_spy(thread) for thread in threads[:MOST_THREADS])


def _thread_of_spy(thread: _SpyThread) -> Thread:
    return Thread(
        id=_bounded(thread.os_thread_id or 0),
        name=printable(thread.thread_name or ""),
        frames=tuple(_frame_of_spy(frame) for frame in _cut(thread.frames)),
        holds_gil=thread.owns_gil,
    )


def _frame_of_spy(frame: _SpyFrame) -> Frame:
    native = frame.module is not None
    file = frame.module if frame.module is not None else frame.filename
    return Frame(
        function=printable(frame.name),
        file=printable(file),
        line=0 if native else _bounded(frame.line),
        native=native,
    )


_HEAD = re.compile(r"(?:Current thread|Thread) 0x[0-9a-f]+(?: \[(.*)\])? \(most recent call first\):")
_FRAME = re.compile(r'  File "(.*)", line (\d{1,10}|\?\?\?) in (.*)')
_ESCAPE = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8}))")


def from_faulthandler(text: bytes) -> tuple[Thread, ...]:
    """The threads in what ``faulthandler`` wrote, in its order: the youngest first. It tells no thread's id.

    Raises:
        StacksError: there is no thread in it.
    """
    found: list[tuple[str, list[Frame]]] = []
    for line in text.decode("latin-1").split("\n"):
        if head := _HEAD.fullmatch(line):
            if len(found) == MOST_THREADS:
                break
            found.append((head[1] or "", []))
        elif found and (frame := _FRAME.fullmatch(line)):
            found[-1][1].append(_frame_of_faulthandler(frame))
    if not found:
        raise StacksError("faulthandler wrote no thread")
    return tuple(Thread(name=printable(name), frames=tuple(_cut(frames))) for name, frames in found)


def last_is_main(text: bytes) -> bool:
    """Whether the last thread of such a text is the main one: Python lists the oldest last, unless it cuts the list."""
    return not text.rstrip().endswith(b"\n...") and b"<Cannot show all threads" not in text


def _frame_of_faulthandler(match: re.Match[str]) -> Frame:
    file, line, function = match.groups()
    return Frame(
        function=printable(_unescaped(function)),
        file=printable(_unescaped(file)),
        line=_bounded(int(line)) if line.isdecimal() else 0,
    )


def _unescaped(text: str) -> str:
    def character(match: re.Match[str]) -> str:
        number = int(match[1] or match[2] or match[3], 16)
        return chr(number) if number < 0x110000 else "?"

    return _ESCAPE.sub(character, text)


def without_native(frames: tuple[Frame, ...]) -> tuple[Frame, ...]:
    """The frames of Python code alone."""
    return tuple(frame for frame in frames if not frame.native)


def native_above(frames: tuple[Frame, ...]) -> tuple[Frame, ...]:
    """The calls of C code that the innermost frame of Python code has led to, the innermost first."""
    for index, frame in enumerate(frames):
        if not frame.native:
            return frames[:index]
    return frames


def printable(text: str) -> str:
    """The text, cut, and with nothing in it that moves a cursor or cannot be encoded."""
    return escaped(text[:_LONGEST])[:_LONGEST]


def _bounded(number: int) -> int:
    return number if 0 <= number <= _LARGEST_LINE else 0


def _cut(frames: list[T]) -> list[T]:
    return frames if len(frames) <= INNERMOST + OUTERMOST else frames[:INNERMOST] + frames[-OUTERMOST:]
