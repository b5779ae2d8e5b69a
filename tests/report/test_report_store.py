"""Where reports are kept."""

import errno
import os
import subprocess
import sys
import threading

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import capabilities
from report import samples
from unhang.report import store
from unhang.report.model import Evidence, Worker, decode
from unhang.report.store import ReportDirectoryError, ReportStore, default_directory, latest


@pytest.fixture
def directory(tmp_path):
    return str(tmp_path / "state" / "reports")


def named(name, **fields):
    return msgspec.structs.replace(samples.lone(), id=name, **fields)


def aged(path, seconds):
    """Make a file older."""
    status = os.stat(path)
    os.utime(path, ns=(status.st_mtime_ns - seconds * 10**9,) * 2)


def read(path):
    with open(path, "rb") as file:
        return decode(file.read())


def test_a_report_is_kept_for_its_user_alone(directory):
    """The file, its directory, and those above that are made."""
    path = ReportStore(directory).write(samples.lone())
    assert path == f"{directory}/unhang-20260301T120341Z-4f2a91c0.json"
    assert read(path) == samples.lone()
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert [os.stat(each).st_mode & 0o777 for each in (directory, os.path.dirname(directory))] == [0o700] * 2
    assert latest(directory) == path


def test_the_same_incident_has_one_file(directory):
    """Also when its time has changed."""
    kept = ReportStore(directory)
    kept.write(named("a", complete=False))
    kept.write(named("b"))
    kept.write(named("a"))
    path = kept.write(named("a", time="2026-03-01T12:03:42Z"))
    assert len(os.listdir(directory)) == 2
    assert read(path).complete


def test_old_reports_go(directory):
    """The oldest first, when there are too many."""
    kept = ReportStore(directory, most=3)
    for index in range(6):
        aged(kept.write(named(f"r{index}")), 100 - index)
    assert sorted(name[-7:-5] for name in os.listdir(directory)) == ["r3", "r4", "r5"]
    assert latest(directory).endswith("r5.json")


def test_old_reports_go_when_they_are_too_large_together(directory):
    """The one that was just written stays, whatever its size; and no older one stays in place of a newer."""
    ReportStore(directory).write(named("large", job="x" * 50_000))
    aged(latest(directory), 10)
    ReportStore(directory).write(named("small"))
    aged(latest(directory), 20)
    size = os.stat(latest(directory)).st_size
    path = ReportStore(directory, most_bytes=size).write(named("new"))
    assert os.listdir(directory) == [os.path.basename(path)]
    path = ReportStore(directory, most_bytes=1).write(named("newest"))
    assert os.listdir(directory) == [os.path.basename(path)]


def test_what_is_not_ours_is_left_alone(directory):
    """Files of other names, directories and links of our names."""
    kept = ReportStore(directory, most=1)
    others = ["notes.json", "unhang-1.json", "xunhang-20260101T000000Z-a.json", ".unhang-0123456789abcdef.tmp"]
    for name in others:
        with open(f"{directory}/{name}", "w") as file:
            file.write("mine")
    os.mkdir(f"{directory}/unhang-20260101T000000Z-directory.json")
    os.symlink("notes.json", f"{directory}/unhang-20260101T000000Z-link.json")
    kept.write(named("a"))
    path = kept.write(named("b"))
    assert len(os.listdir(directory)) == len(others) + 2 + 1
    assert latest(directory) == path


def test_what_a_dead_process_left_half_written_goes(directory):
    """After an hour."""
    kept = ReportStore(directory)
    for name, age in (("0" * 16, 7200), ("1" * 16, 60)):
        with open(f"{directory}/.unhang-{name}.tmp", "w"):
            pass
        aged(f"{directory}/.unhang-{name}.tmp", age)
    kept.write(samples.lone())
    assert sorted(os.listdir(directory))[:-1] == [f".unhang-{'1' * 16}.tmp"]


@given(st.text(max_size=80), st.text(max_size=40) | st.datetimes().map(str))
def test_a_file_name_is_a_plain_name(name, time):
    """Whatever id and time are; two ids have two names, which are ours."""
    found = store.file_name(named(name, time=time))
    assert store._OURS.fullmatch(found)
    assert found != store.file_name(named(name + "x", time=time))


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b", "", ".", "x" * 200, "a\0b", "-rf"])
def test_a_hostile_id_stays_in_the_directory(directory, name):
    """It is turned into one that is harmless."""
    path = ReportStore(directory).write(named(name))
    assert os.listdir(directory) == [os.path.basename(path)]
    assert read(path).id == name


@pytest.mark.parametrize(("mode", "word"), [(0o770, "others may write"), (0o707, "others may write")])
def test_a_directory_that_others_may_write_to_is_refused(tmp_path, mode, word):
    """By its group, by anybody; also when that is only so later."""
    tmp_path.chmod(mode)
    with pytest.raises(ReportDirectoryError, match="and only you should"):
        ReportStore(str(tmp_path))
    tmp_path.chmod(0o755)
    kept = ReportStore(str(tmp_path))
    tmp_path.chmod(mode)
    with pytest.raises(PermissionError, match=word):
        kept.write(samples.lone())
    assert os.listdir(tmp_path) == []


def test_a_directory_of_another_user_is_refused(tmp_path, other_user):
    """Its owner could change what is in it."""
    os.chown(tmp_path, other_user, -1)
    with pytest.raises(ReportDirectoryError, match=f"another user \\(uid {other_user}\\)"):
        ReportStore(str(tmp_path))


@pytest.mark.parametrize("ending", ["", "/", "/."])
def test_a_link_is_refused(tmp_path, ending):
    """Also one to a directory that would do."""
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(ReportDirectoryError, match="not a directory"):
        ReportStore(f"{tmp_path}/link{ending}")


def test_a_file_is_no_directory(tmp_path):
    """As itself, and above the directory."""
    (tmp_path / "file").touch()
    for path in ("file", "file/below"):
        with pytest.raises(OSError, match="file"):
            ReportStore(str(tmp_path / path))


def test_a_link_in_place_of_a_report_is_replaced(directory, tmp_path):
    """What it points to is not touched."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    kept = ReportStore(directory)
    os.symlink(victim, f"{directory}/{store.file_name(samples.lone())}")
    path = kept.write(samples.lone())
    assert not os.path.islink(path)
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("function", ["write", "close", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_a_failure_leaves_nothing_behind(directory, monkeypatch, function, number):
    """Wherever it comes; the report before is still there."""
    kept = ReportStore(directory)
    path = kept.write(samples.lone())
    real = getattr(os, function)

    def fails(*arguments, **keywords):
        monkeypatch.setattr(store.os, function, real)
        if function == "close":
            real(*arguments)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(store.os, function, fails)
    with pytest.raises(OSError) as raised:  # noqa: PT011 - checked below
        kept.write(msgspec.structs.replace(samples.lone(), complete=False))
    assert raised.value.errno == number
    assert os.listdir(directory) == [os.path.basename(path)]
    assert read(path).complete


def test_a_full_disk(tmp_path):
    """A real one: the report is refused, and nothing of it is left."""
    mounted = subprocess.run(
        ["/bin/mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "unhang-test", str(tmp_path)],
        check=False,
        capture_output=True,
        timeout=30,
    )
    if mounted.returncode != 0:
        capabilities.lacks("mount", mounted.stderr.decode(errors="replace"))
    try:
        kept = ReportStore(str(tmp_path))
        path = kept.write(named("fits"))
        with pytest.raises(OSError, match="No space") as raised:
            kept.write(named("too large", job="x" * 200_000))
        assert raised.value.errno == errno.ENOSPC
        assert os.listdir(tmp_path) == [os.path.basename(path)]
    finally:
        subprocess.run(["/bin/umount", str(tmp_path)], check=True, timeout=30)


LIMITED = """
import os, resource, sys
sys.path[:0] = sys.argv[2:]
from report import samples
from unhang.report.store import ReportStore
kept = ReportStore(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    kept.write(samples.slow_loader())
except OSError as error:
    print(error.errno, os.listdir(sys.argv[1]))
"""


def test_a_limit_on_the_size_of_files(directory):
    """A write that is done in part is a failure too."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, directory, os.path.dirname(os.path.dirname(__file__))],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert done.stdout == f"{errno.EFBIG} []\n"


def test_a_huge_report_is_made_smaller(directory):
    """To four MiB at most."""
    huge = Worker(pid=1, evidence=Evidence(stderr="e" * (5 << 20)))
    path = ReportStore(directory).write(samples.report(workers=(huge,)))
    assert os.stat(path).st_size < 4 << 20
    assert "standard error" in read(path).omitted[0]


def test_many_may_write_at_once(directory):
    """Stores of one directory, each in its thread: in the end there are whole reports, as many as allowed."""
    failures = []

    def write(name):
        try:
            kept = ReportStore(directory, most=5)
            for index in range(10):
                kept.write(named(f"{name}{index}"))
        except OSError as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    ReportStore(directory, most=5).write(named("last"))
    assert len(os.listdir(directory)) == 5
    assert all(read(f"{directory}/{name}").workers for name in os.listdir(directory))


def test_where_reports_are_by_default(monkeypatch):
    """As the XDG base directories have it; a relative one does not count."""
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("XDG_STATE_HOME", "/srv/state")
    assert default_directory() == "/srv/state/unhang/reports"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert default_directory() == "/home/ada/.local/state/unhang/reports"
    monkeypatch.delenv("XDG_STATE_HOME")
    assert default_directory() == "/home/ada/.local/state/unhang/reports"


def test_a_store_keeps_something(directory):
    """Bounds that keep nothing are refused."""
    with pytest.raises(ValueError, match="one report"):
        ReportStore(directory, most=0)


def test_no_report_is_the_latest_of_nothing(tmp_path):
    """None for an empty directory, and for none."""
    assert latest(str(tmp_path)) is None
    assert latest(str(tmp_path / "missing")) is None
