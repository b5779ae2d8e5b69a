"""Who keeps a command running that has used up its budget: whoever in its tree does not only wait for a child."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from unhang.report.model import HangClass, Sure, Verdict, Worker


def judge(processes: Sequence[Worker], parents: Mapping[int, int], *, is_whole: bool) -> Verdict:
    """The verdict about the processes of a command.

    Args:
        processes: those that were looked at, and those for which there was no time.
        parents: the parent of each, by pid.
        is_whole: whether these are all that there are.
    """
    if len(processes) == 1 and is_whole:
        return Verdict(culprits=(processes[0].pid,), sure=Sure.LIKELY, why="the command has no other process")
    waiting = [one for one in processes if waits_for_child(one, parents)]
    others = [one for one in processes if one not in waiting]
    victims = tuple(one.pid for one in waiting)
    unknown = any(one.evidence is None for one in processes) or not is_whole
    if len(others) != 1 or unknown:
        why = f"{len(others)} of {len(processes)} processes do not only wait for a child" if others else ""
        return Verdict(victims=victims, why=why)
    return Verdict(
        culprits=(others[0].pid,),
        victims=victims,
        sure=Sure.LIKELY,
        why="each other process of the command waits for a child process",
    )


def waits_for_child(process: Worker, parents: Mapping[int, int]) -> bool:
    """Whether a process was seen to wait for a child, and has one."""
    is_parent = process.pid in parents.values()
    return is_parent and process.evidence is not None and process.evidence.hang is HangClass.CHILD
