"""The table of escalations: every stage with every event."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unhang._core.escalation import TABLE, Action, Event, Stage

# What does something; all other pairs are no news, and stay where they are.
NEWS = {
    ("watched", "EXPIRED"): (Action.GATHER, Stage.EVIDENCE),
    ("watched", "DIED"): (Action.LOSE, Stage.OVER),
    ("evidence", "GATHERED"): (Action.RECHECK, Stage.RECHECK),
    ("evidence", "TIMEOUT"): (Action.RECHECK, Stage.RECHECK),
    ("evidence", "DIED"): (Action.LOSE, Stage.OVER),
    ("recheck", "STILL"): (Action.ASK, Stage.GRACE),
    ("recheck", "LEFT"): (Action.SPARE, Stage.WATCHED),
    ("recheck", "DIED"): (Action.LOSE, Stage.OVER),
    ("grace", "TIMEOUT"): (Action.KILL, Stage.KILLED),
    ("recheck", "POSTPONED"): (Action.POSTPONE, Stage.WATCHED),
    ("grace", "POSTPONED"): (Action.POSTPONE, Stage.WATCHED),
    ("killed", "POSTPONED"): (Action.POSTPONE, Stage.WATCHED),
    ("grace", "MISSED"): (Action.SPARE, Stage.WATCHED),
    ("killed", "MISSED"): (Action.SPARE, Stage.WATCHED),
    ("grace", "PREVENTED"): (Action.HOLD, Stage.WATCHED),
    ("killed", "PREVENTED"): (Action.HOLD, Stage.WATCHED),
    ("grace", "HELD"): (Action.WAIT, Stage.GRACE),
    ("grace", "REFUSED"): (Action.REFUSE, Stage.WATCHED),
    ("grace", "FAILED"): (Action.RETRY, Stage.WATCHED),
    ("grace", "DIED"): (Action.CONFIRM, Stage.OVER),
    ("killed", "TIMEOUT"): (Action.TELL, Stage.UNKILLABLE),
    ("killed", "HELD"): (Action.WAIT, Stage.GRACE),
    ("killed", "REFUSED"): (Action.REFUSE, Stage.WATCHED),
    ("killed", "FAILED"): (Action.RETRY, Stage.WATCHED),
    ("killed", "DIED"): (Action.CONFIRM, Stage.OVER),
    ("unkillable", "DIED"): (Action.CONFIRM, Stage.OVER),
}


@pytest.mark.parametrize(("stage", "event"), list(itertools.product(Stage, Event)), ids=str)
def test_every_pair_has_its_step(stage, event):
    """What is to be done for each stage and event, and that there is nothing to do for all others."""
    assert TABLE[stage, event] == NEWS.get((stage.value, event.name), (Action.NOTHING, stage))


@given(st.lists(st.sampled_from(Event)))
def test_nobody_is_signalled_before_the_recheck(events):
    """Whatever happens in whatever order, the first signal follows a recheck that found the block still running."""
    stage, actions = Stage.WATCHED, []
    for event in events:
        action, stage = TABLE[stage, event]
        actions.append(action)
        if action in (Action.ASK, Action.KILL):
            assert Action.RECHECK in actions
            break


@given(st.sampled_from([stage for stage in Stage if stage is not Stage.OVER]))
def test_a_death_ends_every_stage(stage):
    """Nothing is done about a worker that is dead."""
    assert TABLE[stage, Event.DIED][1] is Stage.OVER


def test_an_escalation_that_nothing_stops_ends():
    """Time alone leads from the expiry to SIGKILL, and then to somebody being told."""
    stage = TABLE[Stage.WATCHED, Event.EXPIRED][1]
    done = []
    while stage is not Stage.UNKILLABLE:
        event = Event.STILL if stage is Stage.RECHECK else Event.TIMEOUT
        action, stage = TABLE[stage, event]
        done.append(action)
    assert done == [Action.RECHECK, Action.ASK, Action.KILL, Action.TELL]
