"""The hook that logs what is known about expired timers."""

from __future__ import annotations

import logging

logger = logging.getLogger(__name__)

__all__ = ["log_debug_info_for_expired_timers"]


def log_debug_info_for_expired_timers(run_id: str, expired_timers: dict[int, list[str]]) -> None:
    """Log the expired timers of a run; nothing if there are none.

    Args:
        run_id: the run that the server was started for.
        expired_timers: by pid, the requests of its expired timers as JSON.
    """
    if expired_timers:
        logger.info("Timers expired for run:[%s] [%s].", run_id, expired_timers)
