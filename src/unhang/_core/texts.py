"""How what another process says is shown: on a terminal, in a log, in a report. Nothing here raises.

Control characters (C0, C1), what turns the direction of text, what is invisible, halves of surrogate pairs: each is
written as Python writes it in a string, so that it moves no cursor, hides nothing, and can be encoded.
"""

from __future__ import annotations

import re

_PLAIN = re.compile(r"[ -~]*")
# Python escapes all spaces but one; these are harmless.
_SPACES = frozenset("\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000")
_LONGEST = 60
# Larger integers are not written down: Python refuses to, or it takes long.
_MOST_BITS = 256


def escaped(text: str, keep: str = "") -> str:
    r"""The text with an escape, as ``\x1b`` or ``\u202e``, for what cannot be shown, ``keep`` left out."""
    if _PLAIN.fullmatch(text):
        return text
    return "".join(each if _is_shown(each) or each in keep else _escape(each) for each in text)


def _is_shown(character: str) -> bool:
    return character.isprintable() or character in _SPACES


def _escape(character: str) -> str:
    return ascii(character)[1:-1]


def described(value: object) -> str:
    """A value of any kind in a few words on one line. No code of the value's own class is run."""
    kind = type(value)
    if isinstance(value, int) and kind is int:
        bits = value.bit_length()
        return str(value) if bits <= _MOST_BITS else f"an integer of {bits} bits"
    if value is None or kind is bool or kind is float:
        return repr(value)
    if isinstance(value, str) and kind is str:
        return _quoted(value)
    if isinstance(value, bytes) and kind is bytes:
        return repr(value[:_LONGEST])
    return f"an object of type {_name(kind)}"


def error_described(error: BaseException) -> str:
    """What an exception says, on one line, or what it is if it cannot say it."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - its arguments may be of any kind
        text = ""
    return escaped(text[: 2 * _LONGEST])[: 2 * _LONGEST] or _name(type(error))


def _quoted(text: str) -> str:
    return f"'{escaped(text[:_LONGEST])}'{'…' if len(text) > _LONGEST else ''}"


def _name(kind: type) -> str:
    name = type.__dict__["__name__"].__get__(kind)  # a metaclass may have another one
    return escaped(str(name)[:_LONGEST])
