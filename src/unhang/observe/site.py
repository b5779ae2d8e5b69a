"""What is answered over HTTP, from what was seen at the last look: nothing that is asked makes anybody look."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from unhang._core.histogram import Durations
from unhang.observe import health
from unhang.observe.document import document, encode
from unhang.observe.measures import State
from unhang.observe.picture import Picture

_TEXT = "text/plain; charset=utf-8"
_INDEX = """<!doctype html><meta charset="utf-8"><title>unhang</title><h1>unhang</h1><dl>
<dt><a href="livez">/livez</a><dd>whether the watchdog looks
<dt><a href="readyz">/readyz</a><dd>whether all workers make progress
<dt><a href="workers">/workers</a><dd>the workers, as JSON
<dt><a href="metrics">/metrics</a><dd>for Prometheus
</dl>
"""
# Seconds that the first request waits for the first look to end.
_FIRST_LOOK = 3.0


@dataclass(frozen=True)
class Answer:
    """What is sent back.

    Attributes:
        status: of HTTP.
        content_type: of the body.
        body: the body.
    """

    status: int
    content_type: str
    body: bytes


class Site:
    """The pages. Thread-safe: one thread looks, others answer.

    Args:
        limits: what is well.
        clock: monotonic seconds.
    """

    def __init__(self, limits: health.Limits = health.DEFAULT, clock: Callable[[], float] = time.monotonic) -> None:
        self._state = State(limits)
        self._clock = clock
        self._why_lost = "it has not answered yet"
        self._tried = threading.Event()
        # Held for moments. While metrics are rendered another one is held, so that nobody else waits for that.
        self._lock = threading.Lock()
        self._rendering = threading.Lock()
        self._looks = 0
        # Of which look, whether that was fresh, and what it looks like.
        self._rendered: tuple[tuple[int, bool] | None, Answer] = None, in_text(503, "")
        self._pages: dict[str, Callable[[], Answer]] = {
            "/": lambda: Answer(200, "text/html; charset=utf-8", _INDEX.encode()),
            "/livez": self._livez,
            "/readyz": self._readyz,
            "/metrics": self._metrics,
            "/workers": self._workers,
        }

    def saw(self, picture: Picture, durations: Mapping[str, Durations] | None = None) -> None:
        """The watchdog was looked at."""
        with self._lock:
            self._state.picture = picture
            self._state.counters.see(picture)
            self._state.durations = durations or {}
            self._looks += 1
        self._tried.set()

    def lost(self, reason: str) -> None:
        """The watchdog was looked for, and did not answer. What is seen next may have been told before."""
        with self._lock:
            self._state.picture = None
            self._state.counters.begin_anew()
            self._why_lost = " ".join(reason.split())
            self._looks += 1
        self._tried.set()

    def answer(self, path: str) -> Answer:
        """What is at a path."""
        page = self._pages.get(path)
        if page is None:
            return in_text(404, f"there is {', '.join(self._pages)}")
        if path != "/":
            self._tried.wait(_FIRST_LOOK)
        return page()

    def _seen(self) -> tuple[Picture | None, str]:
        """The last picture, if it is fresh; why it is not, or why the watchdog is not alive."""
        with self._lock:
            picture = self._state.picture
            if picture is None:
                return None, self._why_lost
        why = self._why_old(picture)
        return (None, why) if why else (picture, health.why_late(picture.watchdog.looked, picture.at))

    def _why_old(self, picture: Picture) -> str:
        """Why a picture is not fresh; empty if it is."""
        age = self._clock() - picture.at
        return f"the watchdog was looked at {age:.0f} s ago" if age > health.LATE else ""

    def _livez(self) -> Answer:
        _, why = self._seen()
        return in_text(503, why) if why else in_text(200, "the watchdog looks")

    def _readyz(self) -> Answer:
        picture, why = self._seen()
        if picture is None:
            return in_text(503, why)
        limits = self._state.limits
        why = health.why_not(picture, limits)
        return in_text(503, why) if why else in_text(200, health.in_words(picture, limits))

    def _workers(self) -> Answer:
        picture, why = self._seen()
        if picture is None:
            return in_text(503, why)
        return Answer(200, "application/json", encode(document(picture)))

    def _metrics(self) -> Answer:
        from unhang.observe import metrics  # for those who want it: it takes long to load

        with self._rendering:  # once a look: whoever asks meanwhile gets the same
            key, state = self._unless(self._rendered[0])
            if state is not None:
                self._rendered = key, Answer(200, metrics.CONTENT_TYPE, metrics.render(state))
            return self._rendered[1]

    def _unless(self, known: tuple[int, bool] | None) -> tuple[tuple[int, bool], State | None]:
        """Which state this is, and a copy of it, without a picture that is too old; None if it is the known one."""
        with self._lock:
            picture = self._state.picture
            is_fresh = picture is not None and not self._why_old(picture)
            key = (self._looks, is_fresh)
            if key == known:
                return key, None
            counters = copy.deepcopy(self._state.counters)
            return key, replace(self._state, picture=picture if is_fresh else None, counters=counters)


def in_text(status: int, line: str) -> Answer:
    """One line."""
    return Answer(status, _TEXT, f"{line}\n".encode("utf-8", "backslashreplace"))
