"""What a block is measured against. A module of its own, which loads nothing."""

from __future__ import annotations

# Seconds of the timers that are measured.
AFTER = 60.0


class Empty:
    """A context manager that does nothing."""

    __slots__ = ()

    def __enter__(self) -> None: ...

    def __exit__(self, *exc_info: object) -> None: ...
