"""The sites of a worker that learns: where each writes down how long its blocks take."""

from __future__ import annotations

from unhang._core.durations import PAGE_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from unhang._core.duration_pages import DurationWriter
    from unhang._worker.slot import SiteBase
    from unhang._worker.slots import Slots


class Pupils:
    """Those that have a record. Called with the lock of the slots held, or in a forked child.

    Args:
        slots: whose sites they are.
        made_of: the implementation of a block.
    """

    def __init__(self, slots: Slots, made_of: Any) -> None:
        self._slots = slots
        self._writer: DurationWriter | None = None
        self._sites: dict[SiteBase, None] = {}
        begin = getattr(made_of, "learn", None)
        if begin is not None:
            begin()

    def add(self, site: SiteBase) -> None:
        """Let a site write down how long its blocks take, if there is room for its scope; and its timeout, as it is."""
        if self._writer is None:
            self._writer = self._slots.channel.new_durations(PAGE_BYTES)
            if self._writer is None:
                return
        record = self._writer.record(site.label, site.after)
        if record is not None and site not in self._sites:
            self._sites[site] = None
            site.keep(record)

    def forget(self) -> None:
        """The slots have forgotten all sites, which learn no more; those that they make anew do."""
        sites, self._sites = self._sites, {}
        for site in sites:
            site.keep(None)

    def start_over(self) -> None:
        """Nobody writes to this page any more; the next ones get another."""
        self._writer = None
        self.forget()
