"""Where a watchdog that is a process of its own says what it does."""

from __future__ import annotations

import logging


def log_to_stderr(level: int = logging.WARNING) -> None:
    """Let the loggers of unhang write to standard error, one line each, marked as unhang's."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("unhang: %(message)s"))
    log = logging.getLogger("unhang")
    log.addHandler(handler)
    log.setLevel(level)
    log.propagate = False
