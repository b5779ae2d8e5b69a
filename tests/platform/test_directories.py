"""Directories that are opened without being led elsewhere."""

import os
import subprocess
import sys

import pytest

from unhang._platform.directories import UnsafePathError, open_safely
from unhang.observe.learning import LearnedFile, LearnedFileError
from unhang.report.store import ReportDirectoryError, ReportStore, check, default_directory

UNHANG = [sys.executable, "-m", "unhang"]


def run(command):
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


@pytest.fixture
def target(tmp_path):
    """Where another user would have something written."""
    target = tmp_path / "target"
    target.mkdir(mode=0o700)
    return target


def is_same(descriptor, path):
    there, here = os.fstat(descriptor), os.stat(path)
    os.close(descriptor)
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)


def test_a_path_leads_where_it_says(tmp_path, target):
    """Through links of this user's, absolute and relative, through dots, and through what is made on the way."""
    (tmp_path / "absolute").symlink_to(target)
    (tmp_path / "relative").symlink_to("absolute/../target/.")
    for path in (f"{tmp_path}/relative/a/b", f"{tmp_path}//absolute/./a/../a/b", f"{tmp_path}/target/a/b"):
        assert is_same(open_safely(path, make=True), target / "a" / "b")
    assert is_same(open_safely("/"), "/")
    assert is_same(open_safely(str(tmp_path / "relative"), follow=True), target)
    with pytest.raises(NotADirectoryError):
        open_safely(str(tmp_path / "relative"))
    with pytest.raises(FileNotFoundError):
        open_safely(f"{tmp_path}/relative/a/c")


def test_a_link_to_itself_is_an_error(tmp_path):
    """And no walk without an end."""
    (tmp_path / "loop").symlink_to("loop/x")
    with pytest.raises(OSError, match="symbolic links"):
        open_safely(f"{tmp_path}/loop/x")


def test_what_is_made_is_private_whatever_the_umask(tmp_path):
    """It can be entered, too."""
    before = os.umask(0o777)
    try:
        os.close(open_safely(f"{tmp_path}/a/b", make=True))
    finally:
        os.umask(before)
    assert os.stat(tmp_path / "a" / "b").st_mode & 0o777 == 0o700


def test_what_anybody_may_write_to_leads_nowhere(tmp_path):
    """Unless it is sticky, as /tmp is: then nobody else can replace what is in it."""
    (tmp_path / "shared" / "mine").mkdir(parents=True)
    (tmp_path / "shared").chmod(0o777)
    with pytest.raises(UnsafePathError, match=r"anybody may write to .*shared"):
        open_safely(f"{tmp_path}/shared/mine")
    (tmp_path / "shared").chmod(0o1777)
    assert is_same(open_safely(f"{tmp_path}/shared/mine"), tmp_path / "shared" / "mine")


@pytest.fixture
def home(tmp_path, other_user, target, monkeypatch):
    """Another user's, with a link to a place where that user may not write; ours by the environment."""
    home = tmp_path / "home"
    home.mkdir()
    (home / ".local").symlink_to(target)
    os.chown(home / ".local", other_user, other_user, follow_symlinks=False)
    os.chown(home, other_user, other_user)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    return home


def test_another_users_home_leads_nowhere(home, target):
    """By default reports are kept elsewhere; asked to keep them there, it is refused; nothing is made at the target."""
    directory = f"{home}/.local/state/unhang/reports"
    with pytest.raises(ReportDirectoryError, match="home' belongs to another user"):
        ReportStore(directory)
    with pytest.raises(ReportDirectoryError, match="home' belongs to another user"):
        check(directory)
    with pytest.raises(LearnedFileError, match="home' belongs to another user"):
        LearnedFile(f"{home}/.local/learned.json").check()
    assert not default_directory().startswith(str(home))
    assert list(target.iterdir()) == []


def test_a_link_of_another_user_leads_nowhere(home, target, tmp_path):
    """Also where the directory that it is in belongs to us: as in /tmp."""
    os.chown(home, os.geteuid(), -1)
    with pytest.raises(ReportDirectoryError, match=r"\.local' belongs to another user"):
        ReportStore(f"{home}/.local/reports")
    assert list(target.iterdir()) == []


@pytest.mark.parametrize("path", ["/", "//", "/tmp/.."])
def test_nothing_is_learned_into_the_root_directory(path):
    """A directory is no file, also the one that has no name."""
    done = subprocess.run(
        [*UNHANG, "run", "--learn", path, "true"], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 125
    assert "it is a directory; name a file" in done.stderr
    assert not os.path.lexists("/.lock")


def test_the_limit_that_is_met_is_named(tmp_path):
    """A page counts as a file for `ulimit -f`, which is not taken for a want of descriptors."""
    code = "import unhang\nwith unhang.expires(60): pass"
    limited = ["/bin/sh", "-c", 'ulimit -f 1; exec "$@"', "sh", *UNHANG, "run", "--report-dir", "none", "--"]
    done = subprocess.run(
        [*limited, sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert "File too large, see `ulimit -f`" in done.stderr
    assert "ulimit -n" not in done.stderr
    assert done.returncode == 0
