"""Descriptors that a forked child must not keep.

A worker forked by the process of a server would hold the reading end of the server's pipe, and would so
keep the pipe alive after the server has died: clients would write into a pipe that nobody reads.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Closable(Protocol):
    """Anything with a ``close`` that may be called twice."""

    def close(self) -> None:
        """Give back what it holds."""


_open: weakref.WeakSet[Closable] = weakref.WeakSet()


def close_in_child(resource: Closable) -> None:
    """Call ``resource.close()`` in every child that this process forks while the resource exists."""
    _open.add(resource)


def _after_fork() -> None:
    for resource in list(_open):
        resource.close()
    _open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
