"""Frames out of the pipe of a ``multiprocessing.Queue``.

Some facts about the stream:

- A frame is the payload's length, four bytes, signed, big-endian, and the payload: a pickle, so it begins
  with the PROTO opcode and a protocol number and ends with the STOP opcode. (For 2 GiB and more
  multiprocessing writes -1 and an eight-byte length. No timer request is that long.)
- A frame of at most ``PIPE_BUF`` bytes arrives whole, since the kernel writes it at once. A longer one
  may end in the middle when its writer dies, and what follows is then read as its remainder.

So a header that cannot be one, or a payload that does not look like a pickle, means that the stream is out
of step. The splitter then looks for the next place that looks like a frame and goes on from there: bytes
are lost, not the frames behind them.
"""

from __future__ import annotations

import re
import struct

_HEADER = struct.Struct("!i")
_LENGTH = _HEADER.size
_PROTO, _STOP = b"\x80."
_FRAME_START = re.compile(rb"\x00[\x00-\x0f]..\x80[\x02-\x05]", re.DOTALL)
MOST_BYTES = 1 << 20


def frame(payload: bytes) -> bytes:
    """The payload as `multiprocessing.connection.Connection.send_bytes` would write it."""
    return _HEADER.pack(len(payload)) + payload


def payload_of(data: bytes) -> bytes:
    """What `frame` was given."""
    return data[_LENGTH:]


def embedded(payload: bytes) -> list[bytes]:
    """The payloads inside one that cannot be loaded.

    If the rest of a writer that died is exactly as long as some frames behind it, those look like its end.
    """
    return FrameSplitter().feed(payload[1:])


class FrameSplitter:
    """Splits bytes into payloads of at most 1 MiB. Not thread-safe."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.out_of_step = 0  # times that bytes were skipped to find the next frame

    @property
    def unfinished(self) -> bool:
        """Whether there are bytes of a frame that has not arrived whole."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """The payloads that are complete now."""
        self._buffer += data
        payloads: list[bytes] = []
        while self._take(payloads):
            self._skip()
        return payloads

    def _take(self, payloads: list[bytes]) -> bool:
        """Move what is complete out of the buffer; returns whether what follows cannot be a frame."""
        buffer = self._buffer
        start, size = 0, len(buffer)
        broken = False
        while size - start >= _LENGTH:
            first = start + _LENGTH
            (length,) = _HEADER.unpack_from(buffer, start)
            end = first + length
            broken = not 3 <= length <= MOST_BYTES or (first < size and buffer[first] != _PROTO)
            if broken or end > size:
                break
            broken = buffer[end - 1] != _STOP
            if broken:
                break
            payloads.append(bytes(buffer[first:end]))
            start = end
        del buffer[:start]
        return broken

    def resume(self) -> list[bytes]:
        """Give up the unfinished frame at the head: its writer will not finish it.

        Returns the payloads found behind it.
        """
        if self._buffer:
            self._skip()
        return self.feed(b"")

    def _skip(self) -> None:
        self.out_of_step += 1
        start = _FRAME_START.search(self._buffer, 1)
        # What could be the first bytes of a frame whose rest is on its way stays.
        del self._buffer[: start.start() if start else max(1, len(self._buffer) - 5)]
