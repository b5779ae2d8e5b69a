"""Which workers stand out from the others of their job, and the order in which they are shown."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from observe import pictures
from observe.pictures import row
from unhang.observe.picture import Armed
from unhang.observe.screen_marks import Level, marks, spent
from unhang.observe.screen_state import SORTS, State, arranged, matches, press, scrolled


def suspects(rows):
    return {number - 1 for number, mark in marks(rows).items() if mark.level is Level.SUSPECT}


def why(rows):
    return [mark.why for mark in marks(rows).values() if mark.level is Level.SUSPECT]


def job(count=8, **more):
    return [row(rank, **more) for rank in range(count)]


def test_one_that_does_nothing_while_the_others_go_on():
    """In a block or in none."""
    rows = job(200)
    rows[137] = row(137, "load", idle=42.0)
    assert suspects(rows) == {137}
    assert why(rows) == ["in 'load' for 42s; 199 others go on"]
    rows[137] = row(137, None, idle=42.0)
    assert why(rows) == ["in no block for 42s; 199 others go on"]


def test_workers_without_ranks_may_have_nothing_to_do():
    """One that waits for a request is in no block, and does not stand out; one that takes long over it does."""
    rows = [row(number, None, rank=None, idle=idle) for number, idle in enumerate((0.1, 0.2, 0.3, 0.4, 0.5, 300.0))]
    assert suspects(rows) == set()
    rows[5] = row(5, "request", rank=None, idle=300.0)
    assert suspects(rows) == {5}


def test_the_block_that_was_entered_last_is_named():
    """Not the one around it, though that is nearer to its deadline."""
    both = (Armed("step", 60.0, 43.0, 17.0), Armed("load", 600.0, 42.0, 558.0))
    assert why([*job(), row(9, armed=both, timers=2, idle=42.0)]) == ["in 'load' for 42s; 8 others go on"]


def test_one_that_the_others_wait_for():
    """They all stand still: it is in another block than they are."""
    rows = job(200, scope="all_reduce", idle=61.0)
    rows[137] = row(137, "load", idle=63.0, after=3600.0)
    assert why(rows) == ["in 'load' for 63s; 199 others are in 'all_reduce'"]


def test_one_that_is_behind():
    """In the same block as those that wait, and fewer blocks are behind it; one that is ahead does not stand out."""
    rows = job(idle=61.0, sequence=412)
    rows[2], rows[3] = row(2, idle=61.0, sequence=411), row(3, idle=61.0, sequence=500)
    assert why(rows) == ["in 'step' for 61s; 1 block behind the others"]


@pytest.mark.parametrize(
    "rows",
    [
        job(idle=300.0),
        [row(rank, idle=float(rank * 4)) for rank in range(16)],
        [row(rank, "load" if rank in (3, 9) else "step", idle=float(rank * 4)) for rank in range(16)],
        [row(rank, "load" if rank % 2 else "step", idle=61.0) for rank in range(8)],
        [row(0, idle=4.0), *job()[1:]],
        [row(0, idle=600.0)],
        [row(0, idle=600.0, job="a"), row(1, idle=0.1, job="b")],
        [],
    ],
    ids=["all", "long steps", "two kinds", "half", "short", "alone", "jobs", "none"],
)
def test_who_does_not_stand_out(rows):
    """All wait alike; each is at another place of long steps; only one is there; those of another job go on."""
    assert suspects(rows) == set()


def test_time_that_is_over():
    """From half of a budget on there is a mark, another one from 80 % on, and a third behind the deadline."""
    rows = [row(0, running=29.0), row(1, running=31.0), row(2, running=49.0), row(3, running=61.0), row(4, None)]
    assert {number - 1: mark.level for number, mark in marks(rows).items()} == {
        1: Level.HALF,
        2: Level.LATE,
        3: Level.EXPIRED,
    }
    assert marks(rows)[4].why == "1s behind its deadline"
    assert [round(spent(each), 2) for each in rows] == [0.48, 0.52, 0.82, 1.02, 0.0]


def ranks(rows, **state):
    return [each.info.rank for each in arranged(rows, marks(rows), State(**state))]


def test_who_comes_first():
    """Those that stand out, then the nearest to expiry, then those in no block."""
    rows = [*job(20, running=0.5), row(20, running=40.0), row(21, running=55.0), row(22, None)]
    rows.append(row(23, after=9999.0, idle=99.0))
    assert ranks(rows)[:3] == [23, 21, 20]
    assert ranks(rows)[-1] == 22


def test_rows_that_are_fine_stay_where_they_are():
    """A second more or less to a far deadline moves nobody."""
    assert ranks([row(rank, running=rank % 3) for rank in range(9)]) == list(range(9))


@pytest.mark.parametrize(
    ("sort", "order"), [("idle", [1, 2, 0]), ("rate", [2, 0, 1]), ("rank", [0, 1, 2]), ("pid", [0, 1, 2])]
)
def test_sorting(sort, order):
    """The longest idle first; the slowest first, and those of whom that is not known last; by rank; by pid."""
    rows = [row(0, idle=0.1, rate=5.0), row(1, idle=9.0, rate=None), row(2, idle=2.0, rate=0.0)]
    assert ranks(rows, sort=sort) == order


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("", True),
        ("all_re", True),
        ("ALL_REDUCE node", True),
        ("7", True),
        ("20007", True),
        ("2000", False),
        ("train", True),
        ("all_reduce 8", False),
        ("load", False),
    ],
)
def test_filtering(wanted, found):
    """A part of a scope, host or job, or the whole of a rank or pid; each word must be found."""
    assert matches(row(7, "all_reduce"), wanted) is found


def test_selecting():
    """It stays with its worker wherever that goes; at the top it stays at the top; the ends are ends."""
    rows = arranged(job(50), {}, State(sort="rank"))
    state = press(State(), "down", rows, 10)
    assert state.selected == rows[1].info.number
    assert press(state, "up", rows, 10).selected == 0
    state = press(state, "page down", rows, 10)
    assert (state.selected, state.top) == (rows[11].info.number, 2)
    state = press(state, "end", rows, 10)
    assert (state.selected, state.top) == (rows[49].info.number, 40)
    assert press(state, "down", rows, 10) == state
    assert press(state, "home", rows, 10) == State()
    assert press(State(), "down", [], 10) == State()


def test_typing_a_filter():
    """What is typed is no command; Enter keeps it, Esc clears it."""
    state = State()
    for key in ("/", "s", "q", "x", "backspace"):
        state = press(state, key, [], 10)
    assert (state.filter, state.typing, state.sort) == ("sq", True, "nearest")
    kept = press(state, "enter", [], 10)
    assert (kept.filter, kept.typing) == ("sq", False)
    assert press(kept, "escape", [], 10) == State()
    assert press(state, "escape", [], 10) == State()


def test_other_keys():
    """S goes round the ways to sort, p stands still and goes on, ? helps and goes away again."""
    state = State()
    for name in [*list(SORTS)[1:], "nearest"]:
        state = press(state, "s", [], 10)
        assert state.sort == name
    assert press(press(state, "p", [], 10), "p", [], 10) == state
    assert press(press(state, "?", [], 10), "?", [], 10) == state


@given(st.integers(0, 300), st.integers(0, 300), st.integers(1, 50), st.integers(1, 300))
def test_the_selected_row_is_always_shown(top, place, capacity, count):
    """And no more room is left than there must be."""
    place = min(place, count - 1)
    first = scrolled(top, place, capacity, count)
    assert first <= place < first + capacity
    assert first == 0 or first + capacity <= count


@given(st.lists(pictures.rows, max_size=12), st.sampled_from(list(SORTS)))
def test_any_rows_can_be_arranged(rows, sort):
    """Also with times that are none."""
    found = marks(rows)
    assert len(arranged(rows, found, State(sort=sort))) == len(rows)
    assert not any(math.isnan(spent(each)) for each in rows if each.armed and math.isfinite(each.armed[0].left))
