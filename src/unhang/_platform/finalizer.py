"""Finalizers that keep still once the interpreter takes its modules apart."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def finalizer(end: Callable[[T], None]) -> Callable[[T], None]:
    """A ``__del__`` that calls ``end(self)``, unless the interpreter is ending.

    The globals of modules may be None by then, and the kernel closes what is left.
    """
    is_finalizing = sys.is_finalizing

    def __del__(self: T) -> None:  # noqa: N807 - it becomes one
        if not is_finalizing():
            end(self)

    return __del__
