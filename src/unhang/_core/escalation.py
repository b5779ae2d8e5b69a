"""What is done about a worker whose timer has expired, stage by stage: a table, and no doing.

Evidence is gathered; then it is checked again whether the block still runs; then the worker is asked to end, and
killed when the grace is over; then it is waited for, and told as unkillable if it does not die. `TABLE` has an action
and the next stage for every stage and every event. The form is that of s6's supervisor: policy as a table of states
and events.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Stage(enum.Enum):
    """How far it has come with a worker."""

    WATCHED = "watched"  # nothing is under way
    EVIDENCE = "evidence"  # is being gathered
    RECHECK = "recheck"  # does the block still run?
    GRACE = "grace"  # it was asked to end
    KILLED = "killed"  # and is not dead yet
    UNKILLABLE = "unkillable"  # it was told that it does not die
    OVER = "over"  # it is gone


class Event(enum.Enum):
    """What happens."""

    EXPIRED = "a timer has expired"
    GATHERED = "the evidence is there"
    STILL = "the block still runs"
    LEFT = "the block was left"
    MISSED = "the block was left right before the first signal"
    POSTPONED = "the block still runs, and gets time back"
    PREVENTED = "a debugger holds the worker, which was not signalled yet"
    HELD = "a debugger holds the worker"
    REFUSED = "the rules protect the worker"
    FAILED = "the signal could not be sent"
    TIMEOUT = "the time of the stage is over"
    DIED = "the worker is dead"


class Action(enum.Enum):
    """What is to be done."""

    NOTHING = "nothing"
    GATHER = "gather evidence"
    RECHECK = "check whether the block still runs"
    ASK = "send the soft signal, and SIGCONT"
    KILL = "send SIGKILL, which needs no SIGCONT"
    WAIT = "try to kill again, a little later"
    SPARE = "tell a near miss"
    POSTPONE = "tell nothing, and judge it again"
    HOLD = "spare it as long as the debugger is there"
    REFUSE = "tell that it is protected"
    RETRY = "tell the failure, and judge it again later"
    CONFIRM = "tell that it is dead"
    LOSE = "tell nothing: it ended by itself"
    TELL = "tell that it does not die"


_S, _E, _A = Stage, Event, Action
Step = tuple[Action, Stage]


def _row(stage: Stage, **steps: Step) -> dict[tuple[Stage, Event], Step]:
    """A row of the table: what is not named is no news in this stage."""
    return {(stage, event): steps.get(event.name, (_A.NOTHING, stage)) for event in Event}


TABLE: dict[tuple[Stage, Event], Step] = {
    **_row(_S.WATCHED, EXPIRED=(_A.GATHER, _S.EVIDENCE), DIED=(_A.LOSE, _S.OVER)),
    **_row(
        _S.EVIDENCE,
        GATHERED=(_A.RECHECK, _S.RECHECK),
        TIMEOUT=(_A.RECHECK, _S.RECHECK),
        DIED=(_A.LOSE, _S.OVER),
    ),
    **_row(
        _S.RECHECK,
        STILL=(_A.ASK, _S.GRACE),
        LEFT=(_A.SPARE, _S.WATCHED),
        POSTPONED=(_A.POSTPONE, _S.WATCHED),
        DIED=(_A.LOSE, _S.OVER),
    ),
    # From here on a block that is left changes nothing: the worker was asked to end, and may be half gone.
    **_row(
        _S.GRACE,
        TIMEOUT=(_A.KILL, _S.KILLED),
        MISSED=(_A.SPARE, _S.WATCHED),
        POSTPONED=(_A.POSTPONE, _S.WATCHED),
        PREVENTED=(_A.HOLD, _S.WATCHED),
        HELD=(_A.WAIT, _S.GRACE),
        REFUSED=(_A.REFUSE, _S.WATCHED),
        FAILED=(_A.RETRY, _S.WATCHED),
        DIED=(_A.CONFIRM, _S.OVER),
    ),
    **_row(
        _S.KILLED,
        TIMEOUT=(_A.TELL, _S.UNKILLABLE),
        MISSED=(_A.SPARE, _S.WATCHED),
        POSTPONED=(_A.POSTPONE, _S.WATCHED),
        PREVENTED=(_A.HOLD, _S.WATCHED),
        HELD=(_A.WAIT, _S.GRACE),
        REFUSED=(_A.REFUSE, _S.WATCHED),
        FAILED=(_A.RETRY, _S.WATCHED),
        DIED=(_A.CONFIRM, _S.OVER),
    ),
    **_row(_S.UNKILLABLE, DIED=(_A.CONFIRM, _S.OVER)),
    **_row(_S.OVER),
}


@dataclass(frozen=True, slots=True)
class Policy:
    """How a worker is ended. Times in seconds.

    Attributes:
        signal: the soft signal; None or SIGKILL: there is none, and no grace.
        grace: how long the worker may take to end after it.
        tree: whether the processes that the worker has started are ended with it.
        evidence: how long the evidence may take; 0: none is gathered, and the first signal comes at the deadline.
        pretimeout: how long before a deadline evidence is recorded already; 0: not at all.
    """

    signal: int | None = 15
    grace: float = 5.0
    tree: bool = False
    evidence: float = 2.0
    pretimeout: float = 0.0
