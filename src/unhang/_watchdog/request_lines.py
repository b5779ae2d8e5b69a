"""Lines of the named pipe, read fast: for the server, since workers import the standard library only."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from unhang._core.requests import LARGEST_PID, LARGEST_SIGNAL, parse_line


class Line(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A request as `unhang._core.requests` describes it.

    Only with the fields that it knows: msgspec skips others without a look at their encoding.
    """

    pid: Annotated[int, msgspec.Meta(ge=-LARGEST_PID, le=LARGEST_PID)]
    scope_id: str
    expiration_time: float
    signal: Annotated[int, msgspec.Meta(le=LARGEST_SIGNAL)] = 0
    version: Literal[1] = 1


_decode = msgspec.json.Decoder(Line).decode


def read_line(line: bytes) -> Line:
    """As `parse_line`, which is asked of whatever is not quite what a client writes.

    Raises:
        MalformedRequestError: the line holds no request.
    """
    try:
        return _decode(line)
    except (ValueError, RecursionError):
        return Line(*parse_line(line))
