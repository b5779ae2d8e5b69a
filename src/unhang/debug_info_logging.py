"""The hook that logs what is known about expired timers."""

from __future__ import annotations

import json
import logging

TYPE_CHECKING = False
if TYPE_CHECKING:
    from unhang.report.model import Block

logger = logging.getLogger(__name__)

__all__ = ["log_debug_info_for_expired_timers"]


def log_debug_info_for_expired_timers(run_id: str, expired_timers: dict[int, list[str]]) -> None:
    """Log the expired timers of a run, and where their workers are stuck; nothing if there are none.

    The stacks and the class of each hang are gathered and logged if this logger is enabled for ``INFO``. That takes
    some hundredths of a second, a second at most, in which the caller kills nobody.

    Args:
        run_id: the run that the server was started for.
        expired_timers: by pid, the requests of its expired timers as JSON.
    """
    if not expired_timers or not logger.isEnabledFor(logging.INFO):
        return
    logger.info("Timers expired for run:[%s] [%s].", run_id, expired_timers)
    # Only here, since a server of the timer contract pays for what it uses.
    from unhang._watchdog.bystander import report_of
    from unhang.report import text

    workers = {pid: [_block(request) for request in requests] for pid, requests in expired_timers.items()}
    logger.info("%s", text.render(report_of(workers, run_id, gentle=True)))


def _block(request: str) -> Block:
    from unhang._watchdog.bystander import block_of

    try:
        fields = json.loads(request)
        return block_of(str(fields["scope_id"]), float(fields["expiration_time"]))
    except (ValueError, KeyError, TypeError):
        return block_of(request, 0.0)
