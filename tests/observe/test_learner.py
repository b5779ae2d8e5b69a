"""What workers learn gets into the file, each block once, whatever becomes of the connection."""

import threading

import pytest

from support import LONG, until
from unhang._core.histogram import Durations, Histogram
from unhang._worker.learned_file import read_durations
from unhang.errors import UnhangError
from unhang.observe.learner import Learner
from unhang.observe.learning import LearnedFile
from unhang.report.live import Event

SECOND = 1_000_000_000


def blocks(*seconds):
    return {"step": Durations(Histogram.of([round(each * SECOND) for each in seconds]))}


@pytest.fixture
def path(tmp_path):
    tmp_path.chmod(0o700)
    return str(tmp_path / "learned.json")


def steady(path):
    """The steady blocks of the one scope in the file."""
    known = read_durations(path).get("step")
    return None if known is None else known.steady.count


def test_each_block_is_saved_once(path):
    """A view tells all from its beginning on, so only what is new is added."""
    learner = Learner(LearnedFile(path))
    for seen in (blocks(1), blocks(1, 2), blocks(1, 2), blocks(1, 2, 3)):
        learner.saw(seen)
        learner.save()
    assert steady(path) == 3


def test_a_new_view_does_not_tell_the_same_blocks_again(path):
    """Its first durations are those of workers that were there before: what comes behind them is new."""
    learner = Learner(LearnedFile(path))
    learner.saw(blocks(1, 2))
    learner.begin_anew()
    learner.saw(blocks(1, 2))
    learner.saw(blocks(1, 2, 3))
    learner.save()
    assert steady(path) == 3


def test_it_is_saved_from_time_to_time(path):
    """A watchdog that dies loses half a minute."""
    now = [0.0]
    learner = Learner(LearnedFile(path), lambda: now[0])
    learner.saw(blocks(1))
    assert steady(path) is None
    now[0] = 31.0
    learner.saw(blocks(1))
    until(lambda: steady(path))
    assert steady(path) == 1


def test_a_file_system_that_hangs_keeps_nobody_waiting(path, monkeypatch):
    """What comes in the meantime is saved behind that."""
    now = [0.0]
    file = LearnedFile(path)
    learner = Learner(file, lambda: now[0])
    save, hangs = file.save, threading.Event()
    monkeypatch.setattr(file, "save", lambda: hangs.wait(LONG) and save())
    now[0] = 31.0
    for seen in (blocks(1), blocks(1, 2), blocks(1, 2, 3)):
        learner.saw(seen)
    hangs.set()
    until(lambda: steady(path) == 1)
    until(lambda: not learner._saving.is_alive())
    learner.saw(blocks(1, 2, 3))
    learner.save()
    assert steady(path) == 3


def test_another_process_goes_on_where_one_has_died(path):
    """What that one had seen is in the file, or lost; it is not added again."""
    Learner(LearnedFile(path)).saw(blocks(1, 2))
    learner = Learner(LearnedFile(path), lambda: 5.0, again=True)
    learner.happened([Event(time="", event="killed", at=4.0, scope="step")])
    learner.saw(blocks(1, 2))
    learner.saw(blocks(1, 2, 3))
    learner.save()
    assert (steady(path), read_durations(path)["step"].killed) == (1, 0)


def test_kills_are_kept(path):
    """How often a budget was too short, or a worker hung, is part of what is known of it; each is told once."""
    learner = Learner(LearnedFile(path))
    told = [("killed", "step"), ("near miss", "step"), ("killed", ""), ("killed", "step")]
    events = [Event(time="", event=event, at=float(at), scope=scope) for at, (event, scope) in enumerate(told)]
    learner.happened(events)
    learner.begin_anew()
    learner.happened(events)
    learner.saw({})
    learner.saw({})
    learner.save()
    assert read_durations(path)["step"].killed == 2


def test_a_file_that_cannot_be_written_is_told_once(path, monkeypatch, caplog):
    """Nothing is lost by then: it is all there when it can be written again."""
    file = LearnedFile(path)
    learner = Learner(file)
    save = file.save

    def fail():
        raise UnhangError("the disk is full")

    monkeypatch.setattr(file, "save", fail)
    for seen in (blocks(1), blocks(1, 2)):
        learner.saw(seen)
        learner.save()
    assert caplog.text.count("the disk is full") == 1
    monkeypatch.setattr(file, "save", save)
    learner.save()
    assert steady(path) == 2
