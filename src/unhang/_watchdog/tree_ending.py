"""Ending a worker together with all that it has started, in a thread: looking for them takes its time."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable

from unhang._core.rules import Facts
from unhang._platform.process import ProcessHandle
from unhang._platform.tree import Tree

logger = logging.getLogger(__name__)

# Seconds between two looks for new ones while the old ones are on their way out.
_PAUSE = 0.1
# An order besides the numbers of signals.
_KILL = -1


class Ending:
    """A tree on its way out; see `unhang._watchdog.escalations.TreeEnding`. Its methods return at once.

    Args:
        root: the worker.
        may: as for `unhang._platform.tree.Tree`.
        gone: called, in the thread, when nobody is left of it.
    """

    def __init__(self, root: ProcessHandle, may: Callable[[Facts], str | None], gone: Callable[[], None]) -> None:
        self._root = root.copy()
        self._may = may
        self._gone = gone
        self._is_killing = False
        self._orders: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="unhang-tree", daemon=True).start()

    def ask(self, number: int) -> None:
        """See `TreeEnding.ask`."""
        self._orders.put(number)

    def kill(self) -> None:
        """See `TreeEnding.kill`."""
        self._orders.put(_KILL)

    def close(self) -> None:
        """See `TreeEnding.close`."""
        self._orders.put(None)

    def _run(self) -> None:
        tree = Tree(self._root, self._may)
        try:
            while self._turn(tree):
                pass
        except Exception:
            logger.exception("Error in ending the tree of pid %s", self._root.pid)
        finally:
            for pid, reason in tree.left_alone.items():
                logger.warning("pid %s, started by worker %s, is left alone: %s", pid, self._root.pid, reason)
            tree.close()

    def _turn(self, tree: Tree) -> bool:
        """Carry out one order, or look again; False when there is nothing more to do."""
        with contextlib.suppress(queue.Empty):
            order = self._orders.get(timeout=_PAUSE)
            if order is None:
                return False
            self._is_killing = self._is_killing or order == _KILL
            if order != _KILL:
                tree.signal(order, wake=True)
                tree.wait(_PAUSE)
        if self._is_killing:
            tree.kill()
        if _is_there(tree):
            return True
        self._gone()
        return False


def _is_there(tree: Tree) -> bool:
    """Whether anybody is left. In a chain whose links make the next and exit, nobody may be at one moment."""
    try:
        tree.look()
        return bool(tree.alive() or tree.scan())
    except OSError:
        return True  # nobody can tell: it is looked at again
