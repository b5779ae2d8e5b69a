"""The file of learned durations: written by several at once, and read by workers."""

import json
import logging
import os
import pickle
import stat
import subprocess
import sys

import pytest

from support import LONG, Worker
from unhang._core.histogram import Durations, Histogram
from unhang._core.learned import MOST_BYTES
from unhang._worker.learned_file import read, read_durations
from unhang.observe.learning import LearnedFile, LearnedFileError

SECOND = 10**9


@pytest.fixture
def directory(tmp_path):
    tmp_path.chmod(0o700)
    return tmp_path


@pytest.fixture
def path(directory):
    return str(directory / "learned.json")


def blocks(*seconds, **more):
    return Durations(Histogram.of(int(each * SECOND) for each in seconds), **more)


def saved(path, scopes):
    file = LearnedFile(path)
    file.add(scopes)
    file.save()


def test_what_was_saved_is_read_by_workers(path):
    """All of it, from whatever process it came."""
    saved(path, {"step": blocks(1, 2, budget=60 * SECOND), "load": blocks(first := 5)})
    saved(path, {"step": Durations(first=Histogram.of([first * SECOND]), killed=3)})
    found = read_durations(path)
    assert set(found) == {"step", "load"}
    assert found["step"].steady == blocks(1, 2).steady
    assert found["step"].first == blocks(5).steady
    assert (found["step"].killed, found["step"].budget) == (3, 60 * SECOND)


def test_nobody_else_can_read_or_write_it(directory, path):
    """The file and its lock."""
    saved(path, {"step": blocks(1)})
    for each in (path, f"{path}.lock"):
        assert not os.stat(each).st_mode & 0o077
    assert sorted(os.listdir(directory)) == ["learned.json", "learned.json.lock"]


def test_a_directory_is_not_made(directory):
    """It may be mistyped: the error names what is missing, before anything is learned and when it is saved."""
    below = str(directory / "state" / "learned.json")
    for action in (LearnedFile(below).check, lambda: saved(below, {"step": blocks(1)})):
        with pytest.raises(LearnedFileError, match=f"there is no directory '{directory}/state'; make it"):
            action()
    assert os.listdir(directory) == []


def test_nothing_to_save_writes_nothing(path):
    """So a run that arms no timers leaves no file."""
    LearnedFile(path).save()
    assert not os.path.exists(path)


def save_many(path, number, times, say):
    say.send("ready")
    say.recv()
    file = LearnedFile(path, patience=LONG)
    for _ in range(times):
        file.add({"step": blocks(1), f"scope {number}": blocks(2, 3)})
        file.save()


def test_several_that_save_at_once_lose_nothing(path):
    """Four processes, a hundred times."""
    savers = [Worker(save_many, path, number, 25, method="fork") for number in range(4)]
    try:
        for saver in savers:
            saver.heard()
        for saver in savers:
            saver._pipe.send("go")
        assert [saver.ended() for saver in savers] == [0] * 4
    finally:
        for saver in savers:
            saver.end()
    found = read_durations(path)
    assert found["step"].steady.count == 100
    assert all(found[f"scope {number}"].steady.count == 50 for number in range(4))


def save_until_killed(path, say):
    file = LearnedFile(path)
    say.send("ready")
    while True:
        file.add({"step": blocks(1)})
        file.save()


def test_a_saver_that_is_killed_leaves_a_whole_file(path):
    """At whatever moment: others can read it, and go on."""
    before = 0
    for _ in range(10):
        saver = Worker(save_until_killed, path, method="fork")
        try:
            saver.heard()
            while not os.path.exists(path) or read_durations(path)["step"].steady.count < before + 3:
                assert saver.runs()
        finally:
            saver.end()
        now = read_durations(path)["step"].steady.count
        assert now >= before + 3
        saved(path, {"step": blocks(1)})
        before = read_durations(path)["step"].steady.count
        assert before == now + 1


def hold_lock(path, say):
    with LearnedFile(path)._opened() as directory, LearnedFile(path)._locked(directory):
        say.send("locked")
        say.recv()


def test_a_lock_that_is_held_for_too_long(path):
    """It is not waited for for ever, and nothing is lost: it goes with the next time."""
    holder = Worker(hold_lock, path, method="fork")
    try:
        assert holder.heard() == "locked"
        file = LearnedFile(path, patience=0.05)
        file.add({"step": blocks(1)})
        with pytest.raises(LearnedFileError, match="somebody else has locked it"):
            file.save()
        assert file.unsaved == 1
    finally:
        holder.end()
    file.add({"step": blocks(2)})
    file.save()
    assert read_durations(path)["step"].steady.count == 2
    assert file.unsaved == 0


CORRUPT = [b"", b"\n", b'{"unhang_learned": 1, "scopes": 3}', b'{"unhang_learned": ' + b"[" * 100_000]


@pytest.mark.parametrize("document", CORRUPT)
def test_a_corrupt_file_is_kept_aside(path, caplog, document):
    """It is said, learning begins anew, and what was there can be looked at."""
    with open(path, "wb") as file:
        file.write(document)
    os.chmod(path, 0o600)
    saved(path, {"step": blocks(1)})
    saved(path, {"step": blocks(1)})
    assert read_durations(path)["step"].steady.count == 2
    with open(f"{path}.corrupt", "rb") as file:
        assert file.read() == document
    assert [record.getMessage() for record in caplog.records if "corrupt" in record.getMessage()] != []
    assert len(caplog.records) == 1


def test_what_was_put_aside_stays(path):
    """A second corrupt file gets a name of its own."""
    for number in range(2):
        with open(path, "w") as file:
            file.write(f'{{"unhang_learned": 1, "scopes": {number}}}')
        os.chmod(path, 0o600)
        saved(path, {"step": blocks(1)})
    kept = []
    for name in ("corrupt", "corrupt.1"):
        with open(f"{path}.{name}") as file:
            kept.append(file.read())
    assert kept == [f'{{"unhang_learned": 1, "scopes": {number}}}' for number in range(2)]


@pytest.mark.parametrize("document", [b"{", b"import unhang\n", b"\xff\xfe", None])
def test_what_is_no_such_file_is_left_alone(path, document):
    """Somebody has named his program, or a directory: that is told, also before anything is learned."""
    if document is None:
        os.mkdir(path, 0o700)
    else:
        with open(path, "wb") as file:
            file.write(document)
        os.chmod(path, 0o600)
    with pytest.raises(LearnedFileError, match="name another file"):
        LearnedFile(path).check()
    assert os.listdir(os.path.dirname(path)) == ["learned.json"]
    with pytest.raises(LearnedFileError, match="name another file"):
        saved(path, {"step": blocks(1)})


def test_nonsense_of_a_worker_does_not_spoil_the_file(path):
    """Counts without end and names that are too long: what is written can be read."""
    endless = Histogram([1 << 63] * 3, 5000)
    for _ in range(2):
        saved(path, {"step": Durations(endless, endless), "ü" * 192: blocks(1), "\ud800": blocks(1)})
    assert set(read_durations(path)) == {"step"}


def test_a_file_of_a_later_version_is_left_alone(path):
    """It is not corrupt: nothing is written, and the reason is told."""
    document = b'{"unhang_learned": 2}'
    with open(path, "wb") as file:
        file.write(document)
    os.chmod(path, 0o600)
    with pytest.raises(LearnedFileError, match="its format is 2"):
        saved(path, {"step": blocks(1)})
    with open(path, "rb") as file:
        assert file.read() == document
    assert read_durations(path) == {}


def warnings_of(caplog, path):
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert read_durations(path) == {}
    return [record.getMessage() for record in caplog.records]


def test_a_file_that_is_not_there_yet_is_no_warning(path, caplog):
    """The first run has nothing to learn from."""
    assert warnings_of(caplog, path) == []


def test_a_file_that_others_may_write_to_is_not_used(path, caplog):
    """A worker says so, and has no data; a saver does not write to it."""
    saved(path, {"step": blocks(1)})
    os.chmod(path, 0o622)
    (warning,) = warnings_of(caplog, path)
    assert warning.endswith("others may write to it (mode 622); chmod 600 it")
    with pytest.raises(LearnedFileError, match="mode 622"):
        saved(path, {"step": blocks(1)})


def test_a_file_of_another_user_is_not_used(path, caplog, other_user):
    """Nor is a directory that belongs to somebody else."""
    saved(path, {"step": blocks(1)})
    os.chown(path, other_user, other_user)
    (warning,) = warnings_of(caplog, path)
    assert warning.endswith(f"it belongs to another user (uid {other_user})")
    os.chown(os.path.dirname(path), other_user, other_user)
    with pytest.raises(LearnedFileError, match="its directory belongs to another user"):
        saved(path, {"step": blocks(1)})


def test_a_link_is_not_followed(directory, path, caplog):
    """Neither by who reads, nor by who writes, nor for the lock."""
    saved(str(directory / "real.json"), {"step": blocks(1)})
    os.symlink(directory / "real.json", path)
    (warning,) = warnings_of(caplog, path)
    assert warning.endswith("it is a link, which is not followed")
    with pytest.raises(LearnedFileError, match="a link"):
        saved(path, {"step": blocks(1)})
    os.unlink(path)
    os.unlink(f"{path}.lock")
    os.symlink(directory / "elsewhere", f"{path}.lock")
    with pytest.raises(LearnedFileError, match="a link"):
        saved(path, {"step": blocks(1)})
    assert not os.path.exists(directory / "elsewhere")


def test_what_is_no_plain_file_is_not_waited_for(path, caplog):
    """A named pipe that nobody writes to would hold up a worker, a directory is none, and megabytes are not read."""
    os.mkfifo(path, 0o600)
    assert "it is no plain file" in warnings_of(caplog, path)[0]
    os.unlink(path)
    os.mkdir(path)
    assert "it is no plain file" in warnings_of(caplog, path)[0]
    os.rmdir(path)
    with open(path, "wb") as file:
        file.truncate(MOST_BYTES + 1)
    os.chmod(path, 0o600)
    assert "it has more than 16 MiB" in warnings_of(caplog, path)[0]


def test_a_path_that_is_none_is_a_warning(caplog):
    """A worker goes on without data."""
    assert len(warnings_of(caplog, "a\0b")) == 1
    assert len(warnings_of(caplog, "/proc/self/mem/x")) == 1


def test_a_directory_that_others_may_write_to_is_refused(directory, path):
    """They could put another file into its place."""
    directory.chmod(0o777)
    with pytest.raises(LearnedFileError, match=r"others may write to its directory \(mode 777\)"):
        saved(path, {"step": blocks(1)})
    directory.chmod(0o700)


def test_what_was_never_finished_is_removed(directory, path):
    """When it is so old that it is nobody's any more."""
    for name, age in (("0" * 16, 0), ("1" * 16, 7200)):
        unfinished = directory / f".learned.json-{name}.tmp"
        unfinished.touch()
        stamp = unfinished.stat().st_mtime - age
        os.utime(unfinished, (stamp, stamp))
    saved(path, {"step": blocks(1)})
    assert [name for name in os.listdir(directory) if name.endswith(".tmp")] == [f".learned.json-{'0' * 16}.tmp"]


def test_a_full_disk_loses_nothing(path):
    """What could not be written is kept, and what was there stays."""
    saved(path, {"step": blocks(1)})
    code = (
        "import resource, signal, sys\n"
        "from unhang._core.histogram import Durations, Histogram\n"
        "from unhang.observe.learning import LearnedFile, LearnedFileError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "file = LearnedFile(sys.argv[1])\n"
        "file.add({'step': Durations(Histogram.of([10**9]))})\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10, resource.RLIM_INFINITY))\n"
        "try:\n"
        "    file.save()\n"
        "except LearnedFileError as error:\n"
        "    print(file.unsaved, error.reason)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "file.save()\n"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True, timeout=LONG)
    assert done.stdout == "1 File too large\n"
    assert read_durations(path)["step"].steady.count == 2
    assert sorted(os.listdir(os.path.dirname(path))) == ["learned.json", "learned.json.lock"]


def test_the_budget_that_was_seen_last_is_kept(path):
    """Not the longest one, though deltas that come at once are merged."""
    now = [1_000_000.0]
    file = LearnedFile(path, clock=lambda: now[0])
    for budget in (60, 30):
        file.add({"step": blocks(1, budget=budget * SECOND)})
        file.save()
        now[0] += 1
    assert read_durations(path)["step"].budget == 30 * SECOND


def test_the_document_can_be_read_by_anybody(path):
    """It is JSON, of a version, with a line for each scope."""
    saved(path, {'a "b"\n': blocks(1), "ü": blocks(1)})
    with open(path, encoding="utf-8") as file:
        text = file.read()
    assert set(json.loads(text)["scopes"]) == {'a "b"\n', "ü"}
    assert len(text.splitlines()) == 4
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_errors_can_be_pickled():
    """With what they say."""
    error = LearnedFileError("/x", "no room")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) == "no durations can be kept in '/x': no room"
    assert isinstance(error, OSError)


def test_reading_tells_what_is_wrong():
    """For whoever asks for a file by name."""
    with pytest.raises(FileNotFoundError):
        read("/does/not/exist")
