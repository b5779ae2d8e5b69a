"""Process groups, for requests that name one by a negative pid."""

from __future__ import annotations

import os

from unhang._core.rules import Facts
from unhang._platform.process import facts, group_members


class GroupHandle:
    """The process group that has this number now: not one that is given the number later.

    The number of a group is its leader's pid, and stays taken while the group has a member. So the group is
    another one when a leader stands there that did not before, or when it was empty before.
    """

    fd = -1

    def __init__(self, group: int) -> None:
        self.pid = -group
        self._group = group
        self._leader = facts(group)
        self.first_members = group_members(group)
        self.was_empty = not self.first_members

    def members(self) -> list[Facts]:
        """The members, if it is still the same group."""
        members = group_members(self._group)
        leader = facts(self._group)
        led_by_another = leader is not None and (self._leader is None or leader.start_time != self._leader.start_time)
        return [] if self.was_empty or led_by_another else members

    def is_stale(self) -> bool:
        """Always False: it can be told from another group when it is signalled."""
        return False

    def send(self, number: int) -> None:
        """Send a signal to all members.

        Raises:
            ProcessLookupError: the group is empty, or another one has its number.
            OSError: the kernel does not allow it.
        """
        if not self.members() and group_members(self._group):
            raise ProcessLookupError(self.pid)
        os.kill(self.pid, number)

    def close(self) -> None:
        """There is nothing to give back."""
