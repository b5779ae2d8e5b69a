"""Lines out of a byte stream that many processes write to."""

from __future__ import annotations


class LineSplitter:
    """Splits bytes into lines of at most ``limit`` bytes; a longer one is dropped alone, and counted.

    Keeps at most ``limit`` bytes of an unfinished line. Not thread-safe.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._unfinished = b""
        self._skipping = False
        self.too_long = 0  # lines dropped so far

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are complete now, without their newlines; empty lines are left out."""
        *complete, rest = data.split(b"\n")
        lines = []
        if complete and not (self._unfinished or self._skipping) and len(max(complete, key=len)) <= self._limit:
            # All is well, as it is nearly always.
            lines = list(filter(None, complete))
            complete = []
        for piece in complete:
            line = self._unfinished + piece
            self._unfinished = b""
            if self._skipping:
                self._skipping = False
            elif len(line) > self._limit:
                self.too_long += 1
            elif line:
                lines.append(line)
        self._keep(rest)
        return lines

    def _keep(self, rest: bytes) -> None:
        if self._skipping:
            return
        self._unfinished += rest
        if len(self._unfinished) > self._limit:
            self.too_long += 1
            self._skipping = True
            self._unfinished = b""
