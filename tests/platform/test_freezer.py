"""Control groups that are frozen."""

import pytest

from unhang._platform import freezer


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """A process in these control groups, whose files are under a directory of the test's."""

    def of(text):
        def read(path):
            return text.encode() if path == "/proc/7/cgroup" else original(path)

        original = freezer._read
        monkeypatch.setattr(freezer, "_read", read)
        monkeypatch.setattr(freezer, "_ROOT", str(tmp_path))
        return tmp_path

    return of


@pytest.mark.parametrize(("events", "frozen"), [("populated 1\nfrozen 1\n", True), ("populated 1\nfrozen 0\n", False)])
def test_a_frozen_group_of_version_two(groups, events, frozen):
    """As its file of events says."""
    folder = groups("0::/job:1\n") / "job:1"
    folder.mkdir()
    (folder / "cgroup.events").write_text(events)
    assert freezer.is_frozen(7) is frozen


@pytest.mark.parametrize(("state", "frozen"), [("FROZEN\n", True), ("FREEZING\n", True), ("THAWED\n", False)])
def test_a_frozen_group_of_version_one(groups, state, frozen):
    """Of the freezer's hierarchy alone."""
    root = groups("5:freezer:/job\n4:memory:/other\n0::/\n")
    (root / "freezer" / "job").mkdir(parents=True)
    (root / "freezer" / "job" / "freezer.state").write_text(state)
    assert freezer.is_frozen(7) is frozen


@pytest.mark.parametrize("text", ["", "nonsense\n", "0::/is/not/there\n"])
def test_what_cannot_be_told_is_not_frozen(groups, text):
    """Groups that are not visible from here, or a process that is gone."""
    groups(text)
    assert not freezer.is_frozen(7)
    assert not freezer.is_frozen(2**30)
