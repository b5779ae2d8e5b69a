"""What `unhang top` shows, from pictures made by hand and at random."""

import unicodedata
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs
from rich.console import Console
from rich.text import Text

from observe import pictures
from observe.pictures import event, picture, row
from report import samples
from unhang.observe.picture import Armed
from unhang.observe.screen import Screen
from unhang.observe.screen_plain import plain
from unhang.observe.screen_state import SORTS, State, followed, press
from unhang.observe.screen_waiting import waiting
from unhang.observe.screen_words import fit, fit_path, fit_scope

# What keys there are, with some that mean nothing.
KEYS = ["up", "down", "page up", "page down", "home", "end", "s", "/", "p", "?", "escape", "enter", "backspace", "x"]


def shown(screen):
    return [line.plain for line in screen.lines()]


def two_hundred():
    """One is stuck; the others go on."""
    rows = [row(rank, running=0.2, after=900.0) for rank in range(200)]
    rows[137] = row(137, "load", running=43.0, after=900.0, idle=42.0, rate=0.0)
    return picture(rows)


def test_a_stuck_worker_leaps_to_the_eye():
    """It is named above the table and comes first in it, though others are as near to their deadlines, in 80 x 24."""
    lines = shown(Screen(two_hundred()))
    assert lines[2] == "STUCK? rank 137 (pid 20137) in 'load' for 42s; 199 others go on  t: where?"
    assert lines[4].split() == [">!!", "137", "20137", "load", lines[4].split()[4], "43s/15min", "0", "42s"]
    assert len(lines) == 24
    assert max(map(len, lines)) <= 80


def test_the_watchdog_is_above():
    """Its process and host, for how long, how many workers and timers, its loop, what it dropped, where it listens."""
    first, second, *_ = shown(Screen(picture([row(0), row(1)]), busy=0.0002))
    assert first == "unhang top  watchdog 4711 on node-1  up 17min  2 workers  2 timers armed"
    assert second == "loop 0.02% busy, longest turn 1ms  dropped 0  /run/unhang/watchdog.sock"


def test_what_is_not_shown_is_told():
    """How many workers are above and below, and how near the nearest of them is to its deadline."""
    lines = shown(Screen(two_hundred()))
    assert "    … 183 below, the nearest of them has 15min left" in lines
    end = press(State(), "end", Screen(two_hundred()).rows, 17)
    lines = shown(Screen(two_hundred(), end))
    assert any(line.startswith("    … 183 above") for line in lines)


def test_only_visible_rows_are_looked_at_closely():
    """Threads are asked for of the processes on the screen, of this host."""
    rows = [row(rank, host="node-1" if rank % 2 else "node-2") for rank in range(1000)]
    screen = Screen(picture(rows))
    assert len(screen.pids) <= 12
    assert all(pid % 2 for pid in screen.pids)
    assert screen.shown[0].info.number == screen.rows[0].info.number


@pytest.mark.parametrize("width", [80, 100, 132, 200])
def test_hosts_are_shown_if_they_differ(width):
    """Else they would be in the way."""
    one = shown(Screen(picture([row(0), row(1)]), width=width))
    two = shown(Screen(picture([row(0), row(1, host="node-2")]), width=width))
    assert "host" not in one[3]
    assert "host" in two[3]
    assert any("node-2" in line for line in two)


@pytest.mark.parametrize("width", [80, 100, 132, 200])
def test_titles_stand_above_their_columns(width):
    """They end where the figures end, and use the width that there is."""
    lines = shown(Screen(picture([row(0, "x" * 190), row(1)]), width=width, threads={20000: 77}))
    title, first = lines[3:5]
    assert len(title) == len(first) == min(width, 171)
    for name, figure in (("rank", " 0 "), ("pid", " 20000 "), ("blk/s", " 2.0 "), ("idle", " now "), ("thr", " 77")):
        assert title.index(name) + len(name) == first.index(figure) + len(figure.rstrip())


def test_paths_keep_their_lines():
    """Of a block that is named after its place the end is shown, in as many whole directories as there is room for."""
    scope = "/home/ada/projects/vision/src/train.py:1088"
    assert fit_scope(scope, 60) == scope
    assert fit_scope(scope, 24) == "…/src/train.py:1088"
    assert fit_scope(scope, 18) == "…/train.py:1088"
    assert fit_scope(scope, 12) == "…ain.py:1088"
    assert fit_scope("train_with_a_long_name.py:7", 10) == "…name.py:7"
    assert fit_scope("a long name without a place", 10) == "a long na…"


@given(pictures.texts, st.integers(-2, 80))
def test_texts_fit(text, width):
    """Whatever is in them."""
    for cut in (fit, fit_path, fit_scope):
        assert Text(cut(text, width)).cell_len <= max(0, width)


def test_who_is_late_is_told():
    """If nobody stands out: how many, and how long the nearest to its deadline has left."""
    rows = [row(0), row(1, running=31.0), row(2, running=58.0)]
    assert shown(Screen(picture(rows)))[2] == "2 workers beyond half of a budget; rank 2 (pid 20002) has 2s left"
    assert shown(Screen(picture([row(0)])))[2] == "nobody stands out"


def test_bars_tell_how_much_time_is_over():
    """Without colours too."""
    rows = [row(0, running=0.0), row(1, running=30.0), row(2, running=59.9), row(3, running=70.0), row(4, None)]
    begun, half, late, expired, in_none = shown(Screen(picture(rows), State(sort="rank")))[4:9]
    assert "█" not in begun
    assert half.startswith("  !")
    assert abs(half.count("█") - half.count("░")) <= 1
    assert "░" not in late
    assert expired.startswith(" !!")
    assert "70s/60s" in expired
    assert "no block" in in_none


def test_several_timers_of_one_worker():
    """The nearest is shown, and how many more there are."""
    both = (Armed("inner", 10.0, 1.0, 9.0), Armed("outer", 60.0, 5.0, 55.0))
    lines = shown(Screen(picture([row(0, armed=both, timers=2)])))
    assert "inner +1" in lines[4]


def test_incidents_are_below():
    """The latest first; the same of several workers is one line, and of a report what it said last."""
    events = [
        event("connect", 90, pid=1, rank=0),
        event("report", 61, report="a", detail="an early word"),
        event("killed", 60, pid=20003, rank=3, scope="load", running=61.0, signal="SIGTERM", hang="lock"),
        event("killed", 59, pid=20004, rank=4, scope="load", running=61.0, signal="SIGTERM"),
        event("report", 58, report="a", detail="rank 3 hangs in 'load' for 61 s: lock, loader.py:12 in decode"),
        event("near miss", 5, pid=20009, rank=9, scope="/a/b/train.py:7"),
        event("overslept", 3, late=2.5),
    ]
    lines = shown(Screen(picture([row(0)], events)))
    start = lines.index("incidents, the latest first")
    assert [" ".join(line.split()) for line in lines[start + 1 : start + 5]] == [
        "3s ago overslept 2.5s given back",
        "5s ago near miss rank 9 (pid 20009) in '/a/b/train.py:7'",
        "58s ago report rank 3 hangs in 'load' for 61 s: lock, loader.py:12 in deco…",
        "59s ago killed ranks 3-4 in 'load' for 61s, SIGTERM",
    ]


def test_no_workers():
    """It is said how some would come; and if a filter is to blame, how to get rid of it."""
    assert "no worker has come yet" in shown(Screen(picture([])))[3]
    assert "Esc clears it" in shown(Screen(picture([row(0)]), State(filter="none")))[3]


@pytest.mark.parametrize("width", [40, 80, 120])
def test_no_workers_on_a_narrow_screen(width):
    """No word is cut, and what stands below stays where it is."""
    lines = shown(Screen(picture([]), width=width))
    assert "in UNHANG_ADDRESS" in " ".join(" ".join(lines).split())
    assert max(map(len, lines)) <= width
    assert lines.index("no incidents") == shown(Screen(picture([row(0)]), width=width)).index("no incidents")


@given(pictures.texts, st.integers(0, 90), st.integers(0, 30))
def test_a_screen_without_a_picture_fits(trouble, width, height):
    """Whatever is told."""
    lines = waiting(trouble, width, height)
    assert len(lines) == height
    assert all(line.cell_len <= width for line in lines)


def test_another_watchdog_has_other_numbers():
    """The same worker stays selected, or nobody is."""
    seen = picture([row(0), row(1), row(2)])
    came = replace(seen.rows[1], info=structs.replace(seen.rows[1].info, number=1))
    again = replace(
        seen, watchdog=structs.replace(seen.watchdog, started=7.0), rows=(came, *pictures.picture([row(3)]).rows)
    )
    assert followed(State(selected=2), seen, again).selected == 1
    assert followed(State(selected=1), seen, again).selected == 0
    assert followed(State(selected=0), seen, again).selected == 0
    assert followed(State(selected=2), seen, seen).selected == 2


def test_a_watchdog_that_stands_still_or_is_gone():
    """Both are said at once."""
    late = picture([row(0)])
    late = replace(late, at=late.at + 9)
    assert shown(Screen(late))[1] == "its loop has not turned for 9s"
    assert shown(Screen(late, alarm="it is gone"))[2] == "it is gone"


def test_the_stacks_of_a_worker():
    """The report as text, long lines wrapped, and all threads behind it, in a pane that can be scrolled."""
    screen = Screen(picture([row(0)]), State(pane="stacks"), stacks=samples.lone())
    lines = shown(screen)
    assert lines[0].startswith("stacks: lines 1 to ")
    assert any("train.py:41" in line for line in lines)
    assert any(line.startswith("thread MainThread") for line in [line.plain for line in screen.pane])
    down = press(screen.state, "down", screen.rows, 3, len(screen.pane))
    assert shown(replace(screen, state=down))[1] == lines[2]
    assert not press(down, "q", screen.rows, 3, len(screen.pane)).pane
    assert "being taken" in shown(Screen(picture([row(0)]), State(pane="stacks")))[1]


def test_help_fits_a_small_terminal():
    """All of it is in 80 x 24, and no line is cut."""
    lines = shown(Screen(picture([]), State(pane="help")))
    assert "Deadlines decide." in lines[-2] or "Deadlines decide." in lines[-3]
    assert not any("…" in line for line in lines)


@settings(max_examples=100)
@given(
    pictures.pictures,
    st.builds(
        State,
        sort=st.sampled_from(list(SORTS)),
        filter=pictures.texts,
        typing=st.booleans(),
        selected=st.integers(0, 60),
        top=st.integers(-5, 60),
        pane=st.sampled_from(["", "", "help", "stacks"]),
        scroll=st.integers(0, 60),
        paused=st.booleans(),
    ),
    st.integers(-1, 220),
    st.integers(-1, 60),
    pictures.texts,
    st.lists(st.sampled_from(KEYS), max_size=6),
)
def test_nothing_breaks_the_screen(seen, state, width, height, said, keys):
    """Whatever is in a picture, wherever keys lead: no line too wide or too many, nothing that a terminal acts on."""
    screen = Screen(seen, state, width, height, stacks=seen.stacks, message=said, alarm=said, busy=0.1)
    for key in keys:
        screen = replace(screen, state=press(screen.state, key, screen.rows, screen.capacity, len(screen.pane)))
    lines = screen.lines()
    assert len(lines) <= max(0, height)
    for line in lines:
        assert line.cell_len <= max(0, width)
        assert_harmless(line.plain)


@given(pictures.pictures, st.none() | st.integers(20, 220))
def test_nothing_breaks_the_plain_table(seen, width):
    """As the live one."""
    for line in plain(seen, {}, width):
        assert width is None or line.cell_len <= width
        assert_harmless(line.plain)


def assert_harmless(line):
    assert not [character for character in line if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")]


def test_markup_is_no_markup():
    """What looks like rich's own is shown as it is."""
    console = Console(width=80, force_terminal=True)
    with console.capture() as captured:
        console.print(Text("\n").join(Screen(picture([row(0, "[red]x[/]")])).lines()))
    assert "[red]x[/]" in captured.get()
