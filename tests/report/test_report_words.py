"""Times, places and workers in words."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unhang.report import words
from unhang.report.model import Frame, Worker


@pytest.mark.parametrize(
    ("duration", "said"),
    [
        (0, "0 s"),
        (0.035, "35 ms"),
        (0.25, "0.25 s"),
        (5.25, "5.2 s"),
        (9.96, "10 s"),
        (61.4, "61 s"),
        (1200, "20 min"),
        (12240, "3.4 h"),
        (1e308, "1e+308 s"),
        (float("inf"), "? s"),
        (-0.0001, "0 ms"),
        (-5, "-5 s"),
    ],
)
def test_durations(duration, said):
    """As exact as people want them."""
    assert words.seconds(duration) == said


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        (words.number(0, "worker"), "0 workers"),
        (words.number(1, "worker"), "1 worker"),
        (words.number(1, "process", "processes"), "1 process"),
        (words.number(2, "process", "processes"), "2 processes"),
        (words.number(2000, "more worker"), "2,000 more workers"),
        (words.often(0), "never"),
        (words.often(1), "once"),
        (words.often(3), "3 times"),
        (words.size(1), "1 byte"),
        (words.size(2), "2 bytes"),
        (words.size(3 << 20), "3 MiB"),
    ],
)
def test_numbers_and_nouns_agree(said, wanted):
    """One of it is no plural."""
    assert said == wanted


@pytest.mark.parametrize(
    ("worker", "sentence"),
    [
        (Worker(pid=1, outcome="killed", exit="SIGKILL"), "It was killed. It ended by SIGKILL."),
        (Worker(pid=1, outcome="spared"), "It was spared: it left its block in time."),
        (Worker(pid=1, exit="exit code 1"), "It was left alone. It ended with exit code 1."),
        (Worker(pid=1, outcome="new\x1b"), "What became of it: new\\x1b."),
    ],
)
def test_an_outcome_is_told_in_sentences(worker, sentence):
    """Those of newer versions, too."""
    assert words.outcome(worker) == sentence


@given(st.sets(st.integers(0, 40)))
def test_ranges_name_each_number_once(numbers):
    """What is folded can be unfolded."""
    unfolded = []
    for part in filter(None, words.ranges(numbers, most=50).split(",")):
        low, _, high = part.partition("-")
        unfolded += range(int(low), int(high or low) + 1)
    assert unfolded == sorted(numbers)


def test_many_ranges_are_cut():
    """A line that names every other rank of many ends in an ellipsis."""
    assert words.ranges(range(0, 100, 2), most=3) == "0,2,4,…"


def test_workers():
    """By rank if they have one, else by pid."""
    ranked = [Worker(pid=100 + rank, rank=rank) for rank in (0, 1, 2, 5)]
    assert words.who(ranked) == "ranks 0-2,5"
    assert words.who(ranked[:1]) == "rank 0"
    assert words.who([Worker(pid=7)]) == "worker 7"
    assert words.who([*ranked, Worker(pid=7), Worker(pid=9)]) == "ranks 0-2,5 and workers 7,9"
    assert words.who_with_pid(ranked[3]) == "rank 5 (pid 105)"
    assert words.count(ranked) == "4 ranks"
    assert words.count([Worker(pid=7)]) == "1 worker"


@given(st.text(alphabet=st.characters()), st.integers(2, 20))
def test_clean_text_is_one_harmless_line(text, most):
    """No control characters are left, and no more characters than allowed."""
    for cleaned in (words.clean(text, most), words.clean_path(text, most)):
        assert len(cleaned) <= most
        assert all(unicodedata.category(character)[0] != "C" for character in cleaned)
        assert len(cleaned.splitlines()) <= 1


def test_how_it_ended():
    """A signal ends a worker; a status is what it ends with."""
    assert words.ending("SIGKILL (out of memory)") == "by SIGKILL (out of memory)"
    assert words.ending("exit code 1") == "with exit code 1"
    assert words.ending("\n") == ""


def test_what_is_cut():
    """Of a text its end, of a path its beginning; a scope that is a place counts as a path."""
    assert words.clean("abcdefgh", 4) == "abc…"
    assert words.clean_path("/a/train.py", 9) == "…train.py"
    assert words.quoted("/very/long/path/to/train.py:41", 12) == "'…train.py:41'"
    assert words.place(Frame(function="f", file="/a/train.py", line=41)) == "train.py:41 in f"


def test_moments():
    """ISO 8601 as people write it, in UTC; anything else as it is."""
    assert words.moment("2026-03-01T12:03:41.25+02:00") == "2026-03-01 10:03:41 UTC"
    assert words.moment("2026-03-01T12:03:41") == "2026-03-01 12:03:41 UTC"
    assert words.moment("yesterday\n") == "yesterday"


def test_sizes():
    """In binary units."""
    assert [words.size(1 << power) for power in (3, 12, 23, 31, 45)] == [
        "8 bytes",
        "4 KiB",
        "8 MiB",
        "2 GiB",
        "32.0 TiB",
    ]


def test_commands():
    """Without the program's directory; the beginning and the end of a long one, which tell most."""
    assert words.command("/usr/bin/python3 train.py") == "python3 train.py"
    short = words.command("/usr/bin/python3 /home/user/" + "x" * 400 + "/train.py --fast")
    assert len(short) == 60
    assert short.startswith("python3 /home/user/")
    assert short.endswith("…" + "x" * 23 + "/train.py --fast")
    assert words.command("") == ""
