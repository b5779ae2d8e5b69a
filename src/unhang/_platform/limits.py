"""What this process may use."""

from __future__ import annotations

import contextlib
import resource


def raise_file_limit() -> None:
    """Take all the descriptors that this process may have: a watchdog and its viewers need a few for each worker."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
