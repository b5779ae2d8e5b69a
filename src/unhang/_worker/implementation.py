"""Which implementation of a block this process uses: the compiled one, or plain Python. It is decided here alone.

Both have the same names and do the same; `unhang._worker.plain` says what. The compiled one is used if it is there
and was made for this layout of the page, unless the environment variable ``UNHANG_PURE`` says yes.
"""

from __future__ import annotations

import os

from unhang._core import page
from unhang._worker.flags import says_no

PURE = "UNHANG_PURE"
COMPILED = "compiled"
# An extension that lies beside newer sources may lack some.
_NAMES = ("LAYOUT", "Heartbeat", "Site", "Slot", "Timer", "accelerate", "fence", "use")

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any


def _compiled() -> tuple[ModuleType | None, str]:
    """The compiled implementation, if it can be used, and what is to be said of the choice."""
    if not says_no(os.environ.get(PURE, "")):
        return None, f"plain Python: {PURE} is set"
    try:
        import unhang._worker._block as _block  # noqa: PLR0402 - it says if it is missing
    except ModuleNotFoundError:
        return None, "plain Python: the extension is not built"
    except ImportError as error:
        return None, f"plain Python: {error}"
    is_whole = all(hasattr(_block, name) for name in _NAMES) and "DURATIONS" in _block.LAYOUT
    if not is_whole or any(getattr(page, name, None) != value for name, value in _block.LAYOUT.items()):
        return None, "plain Python: the extension was built for another version, install unhang again"
    return _block, COMPILED


def _choose() -> tuple[Any, str]:
    compiled, why = _compiled()
    if compiled is not None:
        return compiled, why
    from unhang._worker import plain

    return plain, why


CHOSEN, WHY = _choose()
"""The module, and which one it is and why, for people."""

if TYPE_CHECKING:
    from unhang._worker.plain import Heartbeat, Site, Slot, Timer, accelerate, fence, use
else:
    Heartbeat, Site, Slot, Timer = CHOSEN.Heartbeat, CHOSEN.Site, CHOSEN.Slot, CHOSEN.Timer
    accelerate, fence, use = CHOSEN.accelerate, CHOSEN.fence, CHOSEN.use

__all__ = ["CHOSEN", "COMPILED", "PURE", "WHY", "Heartbeat", "Site", "Slot", "Timer", "accelerate", "fence", "use"]
