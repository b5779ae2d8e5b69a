"""What keys a terminal sends: bytes in, names of keys out."""

from __future__ import annotations

import codecs

_ESCAPE = b"\x1b"
# Behind an escape, as xterm, the Linux console and tmux have them.
_SEQUENCES = {
    b"[A": "up", b"OA": "up", b"[B": "down", b"OB": "down",
    b"[5~": "page up", b"[6~": "page down",
    b"[H": "home", b"OH": "home", b"[1~": "home", b"[7~": "home",
    b"[F": "end", b"OF": "end", b"[4~": "end", b"[8~": "end",
}  # fmt: skip
_CONTROLS = {"\r": "enter", "\n": "enter", "\x7f": "backspace", "\b": "backspace"}
# Longer ones are none of these.
_LONGEST = 16


class Keys:
    """Names keys: a character is itself; ``up``, ``page down``, ``enter``, ``escape``… are those without one."""

    def __init__(self) -> None:
        self._rest = b""
        self._decoder = codecs.getincrementaldecoder("utf-8")("ignore")

    @property
    def waits(self) -> bool:
        """Whether a key may have come by half: then call `end` when nothing follows soon."""
        return bool(self._rest)

    def feed(self, data: bytes) -> list[str]:
        """The keys that are complete with these bytes."""
        data, self._rest = self._rest + data, b""
        keys: list[str] = []
        while data:
            plain, escape, behind = data.partition(_ESCAPE)
            keys += self._characters(plain)
            if not escape:
                break
            size = _size(behind)
            if size is None:
                self._rest = _ESCAPE + behind
                break
            name = _SEQUENCES.get(behind[:size], "" if size else "escape")
            keys += [name] if name else []
            data = behind[size:]
        return keys

    def end(self) -> list[str]:
        """Nothing follows: an escape alone is that key."""
        rest, self._rest = self._rest, b""
        return ["escape"] if rest == _ESCAPE else []

    def _characters(self, plain: bytes) -> list[str]:
        keys = (_CONTROLS.get(character, character) for character in self._decoder.decode(plain))
        return [key for key in keys if len(key) > 1 or key.isprintable()]


def _size(behind: bytes) -> int | None:
    """How many bytes behind an escape belong to it; None: more may come."""
    if not behind:
        return None
    if behind[:1] == b"O":
        return 2 if len(behind) > 1 else None
    if behind[:1] != b"[":
        return 0
    for place, byte in enumerate(behind[1:_LONGEST], start=2):
        if 0x40 <= byte <= 0x7E:
            return place
        if not 0x20 <= byte < 0x40:
            return place - 1
    return None if len(behind) < _LONGEST else _LONGEST
