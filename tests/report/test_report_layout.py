"""Where everything of the timeline goes."""

import itertools

import pytest
from hypothesis import given

from report import samples
from report.random_reports import reports
from unhang.report import layout
from unhang.report.model import Block, Departed, Step, Worker


def drawn(*workers, departed=(), start=-100.0, end=0.0):
    return layout.timeline(samples.report(workers=workers, departed=departed), start, end)


def x(at, start=-100.0, end=0.0):
    return layout.LEFT + (at - start) / (end - start) * (layout.RIGHT - layout.LEFT)


def test_a_block_is_drawn_to_scale():
    """From its start to the end of the picture, with its deadline."""
    (row,) = drawn(
        Worker(pid=1, blocks=(Block(scope="step", after=30.0, started=-50.0, expired=True, deadline=-20.0),))
    ).rows
    (bar,) = row.bars
    assert bar.x == pytest.approx(x(-50))
    assert bar.x + bar.width == pytest.approx(x(0), abs=0.02)
    assert bar.deadline == pytest.approx(x(-20), abs=0.01)
    assert (bar.kind, bar.label) == ("expired", "step")


def test_a_killed_worker_ends_when_it_is_dead():
    """Its bars stop there, its steps are marked there."""
    killed = Worker(
        pid=1,
        blocks=(Block(scope="step", after=30.0, started=-50.0),),
        steps=(Step(at=-20.0, what="SIGTERM"), Step(at=-10.0, what="SIGKILL"), Step(at=-9.99, what="dead")),
    )
    (row,) = drawn(killed).rows
    assert row.bars[0].x + row.bars[0].width == pytest.approx(x(-9.99), abs=0.02)
    # The last two would cover each other.
    assert [mark.kind for mark in row.marks] == ["signal", "dead"]
    assert "SIGKILL at" in row.marks[1].title


def test_a_block_that_was_left_ends_where_the_next_begins():
    """That is when it had been left at the latest; it is in the same lane, and has no deadline."""
    finished = (
        Block(scope="b", after=9.0, started=-60.0, finished=True),
        Block(scope="a", after=9.0, started=-80.0, finished=True),
    )
    (row,) = drawn(Worker(pid=1, finished=finished, blocks=(Block(scope="c", after=90.0, started=-40.0),))).rows
    assert [bar.kind for bar in row.bars] == ["finished", "finished", "armed"]
    assert len({bar.y for bar in row.bars}) == 1
    assert all(left.x + left.width == pytest.approx(right.x, abs=0.02) for left, right in itertools.pairwise(row.bars))
    assert [bar.deadline for bar in row.bars] == [None] * 3


def test_blocks_within_each_other_have_lanes():
    """Up to four; the others are counted."""
    nested = tuple(Block(scope=str(i), after=200.0, started=-90.0 + i) for i in range(7))
    (row,) = drawn(Worker(pid=1, blocks=nested)).rows
    assert len({bar.y for bar in row.bars}) == len(row.bars) == 4
    assert row.more == 3


def test_rows_are_in_the_order_of_ranks():
    """Those that are gone in between, those without a rank last."""
    rows = drawn(
        Worker(pid=9, rank=2), Worker(pid=5), Worker(pid=7, rank=0), departed=[Departed(pid=3, rank=1, at=-40.0)]
    ).rows
    assert [row.label for row in rows] == ["rank 0", "rank 1", "rank 2", "worker 5"]
    assert [(mark.kind, mark.x) for mark in rows[1].marks] == [("departed", pytest.approx(x(-40)))]
    assert all(above.y + above.height < below.y for above, below in itertools.pairwise(rows))


@pytest.mark.parametrize(
    ("start", "end", "labels"),
    [
        (-61.0, 6.0, "-60 s|-50 s|-40 s|-30 s|-20 s|-10 s|0"),
        (-0.1, 0.55, "-0.1 s|0|+0.1 s|+0.2 s|+0.3 s|+0.4 s|+0.5 s"),
        (-0.02, 0.01, "-20 ms|-15 ms|-10 ms|-5 ms|0|+5 ms|+10 ms"),
        (-200.0, 10.0, "-180 s|-150 s|-120 s|-90 s|-60 s|-30 s|0"),
        (-3600.0, 100.0, "-60 min|-50 min|-40 min|-30 min|-20 min|-10 min|0"),
        (-86400.0 * 6, 0.0, "-6 d|-5 d|-4 d|-3 d|-2 d|-1 d|0"),
    ],
)
def test_ticks_are_round(start, end, labels):
    """At instants that people count in, some seven of them."""
    found = "|".join(tick.label for tick in drawn(start=start, end=end).ticks)
    assert found.replace("\N{MINUS SIGN}", "-") == labels


def test_what_is_far_before_does_not_squeeze_the_rest():
    """An outer block of an hour leaves room for the minute that counts."""
    outer = Block(scope="epoch", after=7200.0, started=-3600.0)
    inner = Block(scope="step", after=60.0, started=-60.0, expired=True)
    whole = layout.timelines(samples.report(workers=(Worker(pid=1, expired=True, blocks=(outer, inner)),)))[0]
    assert whole.start > -200
    assert [bar.cut for bar in whole.rows[0].bars] == [True, False]


def test_the_kill_is_enlarged():
    """When it is a small part of the whole; at most sixteen workers."""
    _, enlarged = layout.timelines(samples.sixty_four())
    assert len(enlarged.rows) == layout.MOST_ENLARGED
    assert "culprit" in {row.role for row in enlarged.rows}
    assert len(layout.timelines(samples.out_of_memory())) == 1


@given(reports)
def test_nothing_is_outside_of_the_picture(report):
    """Whatever the model allows, also numbers without sense."""
    for picture in layout.timelines(report):
        assert picture.start < picture.end
        assert len(picture.ticks) < 12
        for row in picture.rows:
            assert row.y + row.height <= picture.bottom
            xs = [bar.x + part for bar in row.bars for part in (0, bar.width)]
            xs += [mark.x for mark in row.marks]
            xs += [bar.deadline for bar in row.bars if bar.deadline is not None]
            assert all(layout.LEFT <= x <= layout.RIGHT + 2 for x in xs)
            assert all(row.y - 0.1 <= bar.y and bar.y + bar.height <= row.y + row.height + 0.1 for bar in row.bars)


def test_time_that_was_given_back_moves_the_deadline():
    """A block has the deadline that its worker was judged by."""
    block = Block(scope="step", after=30.0, started=-90.0, deadline=-10.0)
    assert drawn(Worker(pid=1, blocks=(block,))).rows[0].bars[0].deadline == pytest.approx(x(-10), abs=0.01)
