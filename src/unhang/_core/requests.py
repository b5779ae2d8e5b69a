"""What a timer request may be, and the lines of the named pipe (wire format version 1).

A request on the named pipe is one line of UTF-8, at most ``PIPE_BUF`` bytes, a JSON object::

    {"version": 1, "pid": 4711, "scope_id": "train.py:12", "expiration_time": 1700000000.0, "signal": 9}

``expiration_time`` is in seconds of the wall clock; a negative one disarms. ``signal`` is what to send when
the timer expires; zero or a negative number tells, and sends nothing. Other fields are ignored.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple, TypeGuard

from unhang._core.texts import described

VERSION = 1
LARGEST_PID = 1 << 22
LARGEST_SIGNAL = 64
_NUMBERS = frozenset({int, float})
_LARGEST_INSTANT = 1e300
_LARGEST_FLOAT = 1.7976931348623157e308

_decode = json.JSONDecoder().raw_decode


class MalformedRequestError(ValueError):
    """A request that is not one. ``kind`` is one of a few words to count by, ``detail`` says more."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(kind, detail)
        self.kind = kind
        self.detail = detail


class Fields(NamedTuple):
    """The fields of a request on the named pipe."""

    pid: int
    scope_id: str
    expiration_time: float
    signal: int


def parse_line(line: bytes) -> Fields:
    """The request on a line.

    If a writer stopped in the middle of its line, the next writer's line stands behind its half. That one
    is found by how every request begins; inside a JSON string the same characters would be escaped.

    Raises:
        MalformedRequestError: the line holds no request.
    """
    try:
        return _fields(line)
    except MalformedRequestError:
        behind_a_half = line.rfind(b'{"version"')
        if behind_a_half <= 0:
            raise
        return _fields(line[behind_a_half:])


def _fields(line: bytes) -> Fields:
    try:
        text = line.decode().strip()
        # json.loads() would look for white space at both ends once more.
        message, end = _decode(text)
    except UnicodeDecodeError:
        raise MalformedRequestError("not UTF-8", repr(line[:60])) from None
    except (ValueError, RecursionError):
        raise MalformedRequestError("not JSON", repr(line[:60])) from None
    if end != len(text):
        raise MalformedRequestError("not JSON", repr(line[:60]))
    if not isinstance(message, dict):
        raise MalformedRequestError("not a JSON object", repr(line[:60]))
    version = message.get("version", VERSION)
    if version != VERSION:
        raise MalformedRequestError("other version", f"version {described(version)}, not {VERSION}")
    signal = message.get("signal", 0)
    if not _is_int(signal) or signal > LARGEST_SIGNAL:
        raise MalformedRequestError("bad signal", described(signal))
    return Fields(*checked(message.get("pid"), message.get("scope_id"), message.get("expiration_time")), signal)


def is_plain(request: Any) -> bool:
    """Whether `checked` would find nothing, nor anything unusual; at once. Never raises."""
    try:
        return (
            type(request.worker_id) is int
            and type(request.scope_id) is str
            and type(request.expiration_time) in _NUMBERS
            and -LARGEST_PID <= request.worker_id <= LARGEST_PID
            and -_LARGEST_INSTANT <= request.expiration_time <= _LARGEST_INSTANT
        )
    except Exception:  # noqa: BLE001 - a subclass of a request may do anything when it is asked for a field
        return False


def checked(worker_id: object, scope_id: object, expiration_time: object) -> tuple[int, str, float]:
    """The same as plain values. Of subclasses of the built-in types no method is called.

    Raises:
        MalformedRequestError: they cannot be a request about a process.
    """
    pid = _plain_int(worker_id)
    if pid is None or not -LARGEST_PID <= pid <= LARGEST_PID:
        raise MalformedRequestError("bad pid", described(worker_id))
    if not isinstance(scope_id, str):
        raise MalformedRequestError("bad scope", described(scope_id))
    instant = _plain_instant(expiration_time)
    if instant is None:
        raise MalformedRequestError("bad expiration time", described(expiration_time))
    return pid, str.__str__(scope_id), instant


def _is_int(value: object) -> TypeGuard[int]:
    return _plain_int(value) is not None


def _plain_int(value: object) -> int | None:
    """The value if it is an integer, and no truth value; else None."""
    return int.__add__(value, 0) if isinstance(value, int) and not isinstance(value, bool) else None


def _plain_instant(value: object) -> float | None:
    """The value if it is a number that a float can hold, and not NaN; else None."""
    if isinstance(value, float):
        instant = float.__float__(value)
        return None if instant != instant else instant  # noqa: PLR0124 - only NaN differs from itself
    number = _plain_int(value)
    return None if number is None or not -_LARGEST_FLOAT <= number <= _LARGEST_FLOAT else number
