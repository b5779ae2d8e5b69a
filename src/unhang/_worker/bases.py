"""What both implementations of a block are built on: `unhang._worker.plain` and ``_block.c``."""

from __future__ import annotations

from unhang._core.real_time import monotonic_ns
from unhang._worker.heart import HeartbeatBase
from unhang._worker.slot import SiteBase, SlotBase, warn_of_dropped_timer
from unhang._worker.timer import TimerBase

__all__ = ["HeartbeatBase", "SiteBase", "SlotBase", "TimerBase", "monotonic_ns", "warn_of_dropped_timer"]
