"""Timer requests as they go through a queue's pipe: pickles, of which only a few bytes differ from one to the next.

`KeptFrames` are the worker's side: what comes before and after the expiration time is kept for each scope. `Parser` is
the server's: it knows the pickles of our `TimerRequest` by their shape, and leaves all others to a real unpickler. Both
yield exactly what pickling and unpickling would.
"""

from __future__ import annotations

import pickle
import re
import struct
from collections.abc import Callable
from typing import NamedTuple

from unhang._core.frames import frame

# Bytes of a float that no text contains: 0xff is no part of UTF-8.
_MARK_BYTES = b"\x7f\xef\xff\xff\xff\xff\xff\xfe"
_DOUBLE = struct.Struct(">d")
(_MARK,) = _DOUBLE.unpack(_MARK_BYTES)
# Scopes of a process that are kept; a program that makes up more of them starts over.
_MOST_KEPT = 1024
# Pairs of a worker and a scope that a server keeps, likewise; each is at most a request long.
_MOST_KNOWN = 4096
_INTEGER = struct.Struct("<i")

_SHAPE = re.compile(
    rb"\x80[\x04\x05]\x95.{8}\x8c\nunhang\.api\x94\x8c\x0cTimerRequest\x94\x93\x94\)\x81\x94"
    rb"N\}\x94\(\x8c\x0fexpiration_time\x94(?:(G).{8}|J\xff\xff\xff\xff)"
    rb"\x8c\x08scope_id\x94\x8c(.)(.*)\x94"
    rb"\x8c\tworker_id\x94(?:J(.{4})|M(..)|K(.))u\x86\x94b\.",
    re.DOTALL,
)
# Where what the frame's length counts begins in it, and where a float's opcode and its eight bytes stand.
_BODY = 11
_OPCODE = 66
_FLOAT, _REST = _OPCODE + 1, _OPCODE + 9


class Frames(NamedTuple):
    """The requests of one process for one scope as frames: ``armed + eight bytes + armed_end``, and ``disarmed``."""

    armed: bytes
    armed_end: bytes
    disarmed: bytes


# The eight bytes of an expiration time, in seconds of the wall clock.
instant: Callable[[float], bytes] = _DOUBLE.pack


def frames_of(make: Callable[[int, str, float], object], pid: int, scope: str) -> Frames | None:
    """What the requests of a process for a scope look like; None where that cannot be known.

    Args:
        make: makes a request.
        pid: the process.
        scope: a plain string.
    """
    parts = frame(pickle.dumps(make(pid, scope, _MARK))).split(_MARK_BYTES)
    if len(parts) != 2:
        return None
    return Frames(parts[0], parts[1], frame(pickle.dumps(make(pid, scope, -1))))


class KeptFrames:
    """The `Frames` of one process, by scope: ``kept.get(scope)`` finds what was asked for with `keep` before.

    Args:
        make: makes a request.
        pid: the process.
        limit: bytes of a frame; longer ones are not kept.
    """

    def __init__(self, make: Callable[[int, str, float], object], pid: int, limit: int) -> None:
        self.pid = pid
        self._limit = limit
        self._make = make
        self._kept: dict[object, Frames] = {}
        self.get: Callable[[object], Frames | None] = self._kept.get

    def keep(self, scope: object) -> None:
        """Have them at hand from now on, if the scope is a string and not too long."""
        if type(scope) is not str or len(scope) > self._limit:
            return
        if len(self._kept) >= _MOST_KEPT:
            self._kept.clear()
        found = frames_of(self._make, self.pid, scope)
        if found is not None and len(found.armed) + _DOUBLE.size + len(found.armed_end) <= self._limit:
            self._kept[scope] = found


class Parser:
    """Reads pickled requests: what differs from one request of a worker for a scope to the next is the float alone."""

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[int, str]] = {}

    def parse(self, payload: bytes) -> tuple[int, str, float] | None:
        """The worker's id, the scope and the expiration time; None: it is to be unpickled."""
        arms = payload[_OPCODE:_FLOAT] == b"G"
        # The key has the opcode, so the bytes that are left out are a float's, as in the payload that was learned.
        key = payload[:_FLOAT] + payload[_REST:] if arms else payload
        known = self._known.get(key) or self._learn(key, payload)
        if known is None:
            return None
        return (*known, _DOUBLE.unpack_from(payload, _FLOAT)[0] if arms else -1)

    def _learn(self, key: bytes, payload: bytes) -> tuple[int, str] | None:
        found = _SHAPE.fullmatch(payload)
        if found is None or int.from_bytes(payload[3:_BODY], "little") != len(payload) - _BODY:
            return None
        _, length, scope, integer, short, byte = found.groups()
        try:
            text = scope.decode()
        except UnicodeDecodeError:
            return None
        if len(scope) != length[0]:
            return None
        worker = _INTEGER.unpack(integer)[0] if integer is not None else int.from_bytes(short or byte, "little")
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        known = self._known[key] = worker, text
        return known
