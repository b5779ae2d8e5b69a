"""A report as one HTML page that needs nothing else: no script, no file, no network."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import markupsafe

from unhang.report import about, frames, layout, text, words
from unhang.report.headline import expires_in, headline
from unhang.report.model import Report, Thread, Worker


@dataclass(frozen=True)
class _Stack:
    """A stack, and the workers that share it."""

    workers: Sequence[Worker]
    thread: Thread
    role: str


def render(report: Report) -> str:
    """The report as a page; whatever stands in the report is shown as text."""
    return _template().render(
        report=report,
        headline=words.clean(report.headline, 240) or headline(report),
        cast=about.cast(report),
        timelines=layout.timelines(report),
        stacks=_stacks(report),
        roles={worker.pid: _role(report, worker) for worker in report.workers},
        layout=layout,
    )


def _stacks(report: Report) -> list[_Stack]:
    """The stacks that tell most, equal ones once: those of culprits first."""
    found = []
    parts = about.cast(report)
    for role, workers in (
        ("culprit", parts.culprits),
        ("stuck", parts.suspects),
        ("victim", parts.victims),
        ("other", parts.others),
    ):
        for group in about.grouped(workers, lambda worker: (about.site(worker).scope, about.stack(worker))):
            thread = frames.telling_thread(group[0].evidence)
            if thread is not None:
                found.append(_Stack(group, thread, role))
    return found


def _role(report: Report, worker: Worker) -> str:
    if worker.pid in report.verdict.culprits:
        return "culprit"
    if worker.pid in report.verdict.victims:
        return "victim"
    return "stuck" if about.is_suspect(report, worker) else "other"


def _printable(value: object) -> object:
    """What is shown for a value of the template, before it is escaped; macros of ours have escaped theirs."""
    if isinstance(value, str) and not isinstance(value, markupsafe.Markup):
        return words.stripped(value, keep="\n\t")
    return value


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "seconds": words.seconds,
        "number": words.number,
        "often": words.often,
        "outcome": words.outcome,
        "size": words.size,
        "quoted": words.quoted,
        "who": words.who,
        "moment": words.moment,
        "place": words.place,
        "clean": words.clean,
        "tail": words.clean_path,
        "spot": words.spot,
        "ranges": words.ranges,
    }
    environment.globals |= {
        "block_of": about.block_of,
        "frame_of": about.frame_of,
        "running": about.running,
        "expires_in": expires_in,
        "how_gone": text.how_gone,
        "is_users": frames.is_users,
        "telling_thread": frames.telling_thread,
        "user_frame": frames.user_frame,
    }
    return environment.get_template("page.html.jinja")
