"""How what another process says is shown: on a terminal, in a log, in a report. Nothing here raises.

Control characters (C0, C1), what turns the direction of text, what is invisible, halves of surrogate pairs: each is
written as Python writes it in a string, so that it moves no cursor, hides nothing, and can be encoded.
"""

from __future__ import annotations

import re

_PLAIN = re.compile(r"[ -~]*")
_PLAIN_LINES = re.compile(r"[\n -~]*")
_NOT_PLAIN = re.compile(r"[^\n -~]")
_LONGEST = 60
# Larger integers are not written down: Python refuses to, or it takes long.
_MOST_BITS = 256


def escaped(text: str, keep: str = "") -> str:
    r"""The text with an escape, as ``\x1b`` or ``\u202e``, for what cannot be shown, ``keep`` left out."""
    if _PLAIN.fullmatch(text):
        return text
    return "".join(each if each.isprintable() or each in keep else _escape(each) for each in text)


def _escape(character: str) -> str:
    return ascii(character)[1:-1]


def json_escaped(document: bytes) -> bytes:
    """The same JSON, with an escape for each character in its strings that cannot be shown. Line breaks stay."""
    text = document.decode()
    return document if _PLAIN_LINES.fullmatch(text) else _NOT_PLAIN.sub(_json_escape, text).encode()


def _json_escape(match: re.Match[str]) -> str:
    character = match[0]
    if character.isprintable():
        return character
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


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
