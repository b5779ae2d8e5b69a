"""Directories for sockets: the well-known ones, and fresh ones where those cannot be used."""

import os
import stat
import tempfile
from pathlib import Path

import pytest

from unhang._platform import socket_directory
from unhang._platform.directories import make_directories
from unhang._platform.socket_directory import (
    directories_to_search,
    make_fresh_directory,
    new_address,
    remove_fresh_directory,
    well_known_directory,
)
from unhang.errors import AddressError


@pytest.fixture
def place(monkeypatch):
    """A temporary directory like /tmp, and no other place; its path is short, as that of a socket has to be."""
    with tempfile.TemporaryDirectory(prefix="unhang-test-", dir="/tmp") as path:
        os.chmod(path, 0o1777)
        monkeypatch.setattr(tempfile, "tempdir", path)
        monkeypatch.setattr(socket_directory, "_PARENTS", ())
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
        yield Path(path)


@pytest.fixture
def runtime(place, monkeypatch):
    """An XDG_RUNTIME_DIR."""
    directory = place / "run"
    directory.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory))
    return directory


@pytest.fixture(params=[0o177, 0o777, 0])
def umask(request):
    """One with which a new directory could not be entered, or that lets anybody in."""
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def named(directory):
    """The well-known directory in there."""
    return directory / socket_directory._name()


def make(path, *, permissions=0o700, owner=-1):
    path.mkdir()
    path.chmod(permissions)
    os.chown(path, owner, owner)


SPOILT = {
    "others may enter": lambda path: make(path, permissions=0o755),
    "cannot be entered": lambda path: make(path, permissions=0o600),
    "cannot be written": lambda path: make(path, permissions=0o500),
    "a link": lambda path: path.symlink_to("/var/empty"),
    "a link to one of ours": lambda path: (make(path.with_name("ours")), path.symlink_to(path.with_name("ours"))),
    "a file": Path.touch,
}


def test_the_runtime_directory_comes_first(runtime):
    """XDG_RUNTIME_DIR, then the temporary one: with mode 700, and an address in there is short enough for a socket."""
    assert well_known_directory() == str(runtime / "unhang")
    assert os.path.dirname(new_address("watchdog")) == str(runtime / "unhang")
    assert mode(runtime / "unhang") == 0o700


@pytest.mark.parametrize("spoil", [lambda path: path.chmod(0o777), lambda path: path.rmdir()])
def test_a_runtime_directory_that_is_not_this_users_is_passed_over(place, runtime, spoil):
    """One that anybody may write to, or that is not there."""
    spoil(runtime)
    assert well_known_directory() == str(named(place))


def test_a_runtime_directory_of_another_user_is_passed_over(place, runtime, other_user):
    """As `sudo` leaves it in the environment."""
    os.chown(runtime, other_user, other_user)
    assert well_known_directory() == str(named(place))


def test_a_umask_spoils_nothing(place, umask):
    """Neither a well-known directory nor a fresh one, nor those above a directory of reports."""
    assert mode(well_known_directory()) == 0o700
    address = str(place / f"{socket_directory._name()}-0123456789abcdef" / "watchdog.sock")
    make_fresh_directory(address)
    assert mode(os.path.dirname(address)) == 0o700
    make_directories(str(place / "state" / "reports"))
    assert [mode(place / "state"), mode(place / "state" / "reports")] == [0o700, 0o700]


@pytest.mark.parametrize("what", SPOILT)
def test_where_one_is_spoilt_the_next_is_taken(place, runtime, what):
    """The temporary directory's for the runtime directory's, and a fresh one when both are spoilt."""
    SPOILT[what](runtime / "unhang")
    assert well_known_directory() == str(named(place))
    named(place).rmdir()
    SPOILT[what](named(place))
    before = sorted(place.rglob("*"))
    with pytest.raises(AddressError):
        well_known_directory()
    address = new_address("watchdog")
    assert sorted(place.rglob("*")) == before, "made before it is needed"
    make_fresh_directory(address)
    assert (os.path.dirname(os.path.dirname(address)), mode(os.path.dirname(address))) == (str(runtime), 0o700)
    remove_fresh_directory(address)
    assert sorted(place.rglob("*")) == before


def test_another_users_directory_is_not_used(place, other_user):
    """Whoever made it could replace what is in it: a fresh one is taken, each time another one."""
    make(named(place), owner=other_user)
    addresses = {new_address("watchdog") for _ in range(9)}
    assert len({os.path.dirname(address) for address in addresses}) == 9
    assert {Path(address).parent.parent for address in addresses} == {place}


def test_another_user_who_makes_a_fresh_directory_first_is_found_out(place, other_user):
    """When a watchdog that was stopped starts again, its name is known."""
    make(named(place), owner=other_user)
    address = new_address("watchdog")
    make(Path(address).parent, owner=other_user)
    with pytest.raises(AddressError, match=f"another user \\(uid {other_user}\\)"):
        make_fresh_directory(address)
    remove_fresh_directory(str(place / "mine" / "watchdog.sock"))


def test_what_others_may_replace_is_no_place(place):
    """A temporary directory without the sticky bit: others could put their own directory in place of ours."""
    place.chmod(0o777)
    with pytest.raises(AddressError, match="no directory"):
        new_address("watchdog")


def test_no_other_directory_is_removed_with_a_socket(place):
    """Only one that was made for it, and only when it is empty."""
    make(named(place))
    remove_fresh_directory(str(named(place) / "watchdog.sock"))
    kept = place / f"{socket_directory._name()}-0123456789abcdef"
    make(kept)
    (kept / "other.sock").touch()
    remove_fresh_directory(str(kept / "watchdog.sock"))
    assert (named(place).exists(), kept.exists()) == (True, True)
    make_fresh_directory(str(place / "other" / "watchdog.sock"))
    assert not (place / "other").exists()


def test_where_is_searched(place, runtime):
    """In the directory that a watchdog would take now, also if it was spoilt since, then in fresh ones of this user."""
    fresh = [place / f"{socket_directory._name()}-{digit * 16}" for digit in "12"]
    for path in fresh:
        make(path)
    make(place / f"{socket_directory._name()}-{'3' * 16}", permissions=0o755)
    fresh = [str(path) for path in fresh]
    assert directories_to_search() == [[str(runtime / "unhang")], fresh]
    (runtime / "unhang").chmod(0o500)
    assert directories_to_search() == [[str(runtime / "unhang")], [str(named(place))], fresh]


def test_a_directory_with_room_for_short_names_alone_is_searched_first(place, monkeypatch):
    """`serve.sock` may be in there, and a watchdog with a longer name in the next one."""
    deep = place / ("x" * (88 - len(str(place))))
    deep.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    assert directories_to_search() == [[str(deep / "unhang")], [str(named(place))], []]
    assert well_known_directory("serve.sock") == str(deep / "unhang")
    assert os.path.dirname(new_address("watchdog")) == str(named(place))


def test_root_of_a_user_namespace_is_named_as_outside(monkeypatch, tmp_path):
    """It shares the temporary directory with root, whose name it would take; unmapped, it keeps its own."""
    names = {}
    for user, text in ((0, "0 1000 1\n"), (5, "0 1000 1\n1 100000 65536\n"), (7, "0 1000 1\n"), (8, "nonsense\n")):
        (tmp_path / "uid_map").write_text(text)
        monkeypatch.setattr("builtins.open", lambda _, opened=open: opened(tmp_path / "uid_map"))
        monkeypatch.setattr(os, "geteuid", lambda user=user: user)
        names[user] = socket_directory._name()
        monkeypatch.undo()
    assert names == {0: "unhang-1000", 5: "unhang-100004", 7: "unhang-7", 8: "unhang-8"}
