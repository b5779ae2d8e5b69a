"""Debuggers that work inside of the process that they hold: Python's own, and those of editors.

No other process can see that they hold it but by its stacks: a thread waits at a prompt, or for the editor.
"""

from __future__ import annotations

from collections.abc import Iterable

from unhang.report.model import Frame, Thread

# The functions in which they wait, by the ends of their files' paths. IPython's debugger waits in those of pdb.
_WAITS = {
    "/pdb.py": {"interaction", "_cmdloop"},
    "/pudb/debugger.py": {"interaction"},
    "/pydevd.py": {"do_wait_suspend", "_do_wait_suspend"},  # of debugpy, too: VS Code, PyCharm
}


def hold(threads: Iterable[Thread]) -> bool:
    """Whether one of these threads waits at the prompt of such a debugger."""
    return any(_is_a_wait(frame) for thread in threads for frame in thread.frames)


def _is_a_wait(frame: Frame) -> bool:
    function = frame.function.rpartition(".")[2]  # some have their class in front
    return any(frame.file.endswith(end) and function in functions for end, functions in _WAITS.items())
