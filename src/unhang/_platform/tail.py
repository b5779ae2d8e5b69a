"""The standard error of a command, passed through, of which the end is kept."""

from __future__ import annotations

import os
import threading

from unhang._platform.descriptor import pipe_past_streams

# Bytes that are kept.
_KEPT = 4096
_CHUNK = 65536
# Seconds for what is still in the pipe when the command has ended.
_PATIENCE = 1.0


class Tail:
    """A pipe whose writing end a command gets as its standard error; a thread copies it to ours. Thread-safe.

    What the command writes waits for whoever reads our standard error, as it would without the pipe.
    """

    def __init__(self) -> None:
        self._reader, self._writer = pipe_past_streams()
        status = os.fstat(self._writer)
        self._pipe = status.st_dev, status.st_ino
        self._kept = b""
        self._thread = threading.Thread(target=self._copy, name="unhang-stderr", daemon=True)

    def fileno(self) -> int:
        """The writing end."""
        return self._writer

    def start(self) -> None:
        """Copy from now on. The command has the writing end, and we give ours back."""
        os.close(self._writer)
        self._writer = -1
        self._thread.start()

    def _copy(self) -> None:
        while data := os.read(self._reader, _CHUNK):
            self._kept = (self._kept + data)[-_KEPT:]
            try:
                _write_all(data)
            except OSError:
                continue  # nobody reads it: the command must not be stopped by that

    def of(self, pid: int) -> str:
        """What was written last, if that is the standard error of this process too; else nothing."""
        try:
            status = os.stat(f"/proc/{pid}/fd/2")
        except OSError:
            return ""
        if (status.st_dev, status.st_ino) != self._pipe:
            return ""
        return self._kept.decode("utf-8", "replace")

    def close(self) -> None:
        """Copy what is left, for a moment at most: a process that was left behind may hold the pipe for ever."""
        if self._writer >= 0:
            os.close(self._writer)
            self._writer = -1
        if self._thread.is_alive():
            self._thread.join(_PATIENCE)


def _write_all(data: bytes) -> None:
    while data:
        data = data[os.write(2, data) :]
