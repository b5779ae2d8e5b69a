"""Starts Python processes of unhang's own, which import nothing from where a program keeps its modules.

A program's ``sys.path`` begins with the directory of its script, and may have others of its own: a ``msgspec.py`` or a
``queue.py`` there is meant for the program. A process of ours runs this very unhang, wherever that lies, and finds all
else as the same interpreter does without a script and without ``PYTHONPATH``. What it cannot find so (of a zipapp, or
of an interpreter without ``site``) it takes from the first place on the program's path that has it.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import PathFinder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# What such a process may import besides the standard library.
DEPENDENCIES = ("click", "jinja2", "msgspec", "prometheus_client", "psutil", "rich")

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# This package is loaded from its place, and not looked for: there may be another one on the path.
_PROLOGUE = """\
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
spec = PathFinder.find_spec("unhang", [{root!r}])
package = sys.modules["unhang"] = module_from_spec(spec)
spec.loader.exec_module(package)
from unhang._platform.own_process import set_path
set_path(sys.path, {root!r}, {path!r})
"""
_SITES = ("site-packages", "dist-packages")


def command(code: str, first: str = "") -> list[str]:
    """The command of a process that runs ``code``, in which this unhang and what it needs can be imported.

    Args:
        code: Python; whole lines.
        first: the same, run before anything is looked for.
    """
    flags = ["-E", "-P"]  # no PYTHON… of the program's, neither its directory nor the current one
    flags += ["-s"] * bool(sys.flags.no_user_site) + ["-S"] * bool(sys.flags.no_site)
    flags += ["-B"] * sys.dont_write_bytecode
    prologue = _PROLOGUE.format(root=_ROOT, path=[os.path.abspath(entry) for entry in sys.path])
    return [sys.executable, *flags, "-c", first + prologue + code]


def set_path(path: list[str], root: str, programs: Iterable[str]) -> None:
    """Complete the ``sys.path`` of a process of ours; in that process.

    Args:
        path: as the interpreter has made it; changed.
        root: the directory, or the archive, that unhang is in. If pip has installed unhang there, what it needs was
            installed beside it, and comes before what is in other places.
        programs: where the program looks for modules.
    """
    if root not in path and _is_installation(root):
        first_site = next((i for i, entry in enumerate(path) if entry.endswith(_SITES)), len(path))
        path.insert(first_site, root)
    programs = list(programs)
    for name in DEPENDENCIES:
        if PathFinder.find_spec(name, path) is None:
            path += [entry for entry in programs if PathFinder.find_spec(name, [entry]) is not None][:1]


def _is_installation(directory: str) -> bool:
    try:
        return any(name.startswith("unhang-") and name.endswith(".dist-info") for name in os.listdir(directory))
    except OSError:
        return False
