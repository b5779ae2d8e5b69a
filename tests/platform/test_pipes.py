"""Named pipes, the pipe of a queue, and the wait on them."""

import errno
import multiprocessing.queues
import os
import pickle
import select
import stat
import threading
import time

import pytest

import workers
from support import descriptors, forever, until
from unhang._core.frames import FrameSplitter, frame
from unhang._platform.fifo import Fifo, FifoWriter
from unhang._platform.queue_pipe import QueueReader, QueueWriter, UnsupportedQueueError
from unhang._platform.waiter import Waiter
from unhang.errors import NoTimerServerError, NotOurPipeError, PipeFullError


def test_a_pipe_is_for_us_alone(pipe_path):
    """The named pipe has mode 0600, whatever the umask."""
    old = os.umask(0)
    try:
        Fifo(pipe_path)
    finally:
        os.umask(old)
    assert stat.filemode(os.lstat(pipe_path).st_mode) == "prw-------"


def test_a_pipe_that_we_left_is_replaced(pipe_path, caplog):
    """A server that crashed does not keep the next one from starting; one that still reads is told."""
    first = Fifo(pipe_path)
    second = Fifo(pipe_path)
    assert not first.exists()
    assert second.exists()
    assert caplog.text == ""
    reader = second.open(Waiter())
    Fifo(pipe_path)
    assert "another server still reads" in caplog.text
    reader.close()


@pytest.mark.parametrize("what", ["file", "directory", "link", "dangling link", "socket"])
def test_what_is_no_pipe_is_left_alone(what, pipe_path, tmp_path):
    """An ordinary file, a directory, a link or a socket at the path is a clear error."""
    target = tmp_path / "target"
    if what == "file":
        (tmp_path / "timers").write_text("precious")
    elif what == "directory":
        (tmp_path / "timers").mkdir()
    elif what == "socket":
        os.mknod(pipe_path, stat.S_IFSOCK | 0o600)
    else:
        if what == "link":
            os.mkfifo(target)
        (tmp_path / "timers").symlink_to(target)
    before = os.lstat(pipe_path)
    with pytest.raises(NotOurPipeError, match="not a named pipe of ours"):
        Fifo(pipe_path)
    assert os.lstat(pipe_path).st_ino == before.st_ino


def test_another_users_pipe_is_left_alone(pipe_path, other_user):
    """A named pipe that somebody else made is not removed, even by root."""
    os.mkfifo(pipe_path)
    os.chown(pipe_path, other_user, other_user)
    with pytest.raises(NotOurPipeError, match=f"uid {other_user}"):
        Fifo(pipe_path)


def test_only_the_pipe_that_we_made_is_removed(pipe_path):
    """If something else stands at the path by now, it stays."""
    fifo = Fifo(pipe_path)
    os.unlink(pipe_path)
    os.mkfifo(pipe_path)
    fifo.remove()
    assert os.path.exists(pipe_path)


def test_a_pipe_that_was_exchanged_is_not_opened(pipe_path):
    """Between making and opening, nobody can put another pipe in place."""
    fifo = Fifo(pipe_path)
    os.rename(pipe_path, pipe_path + ".old")
    os.mkfifo(pipe_path)
    with pytest.raises(NotOurPipeError):
        fifo.open(Waiter())


def test_a_forked_child_keeps_no_end_of_the_pipe(pipe_path):
    """A worker forked by the server's process does not keep the pipe alive behind the server's back."""
    waiter = Waiter()
    reader = Fifo(pipe_path).open(waiter)
    waiter.wait(0)
    fds = (reader._fd, reader._writer, waiter._woken, waiter._waker)
    child = os.fork()
    if child == 0:
        still_open = 0
        for fd in fds:
            try:
                os.fstat(fd)
                still_open += 1
            except OSError:
                continue
        os._exit(still_open)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert all(os.fstat(fd) for fd in fds)


def test_a_fork_does_not_make_the_parent_deaf(pipe_path):
    """What the child closes, the parent still waits for."""
    waiter = Waiter()
    reader = Fifo(pipe_path).open(waiter)
    for _ in range(8):
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        with FifoWriter(pipe_path, 1) as writer:
            writer.write("hello")
        assert waiter.wait(30)
        assert reader.read() == b"hello"


def test_a_writer_needs_a_reader(pipe_path):
    """Opening for writing says at once that nobody reads."""
    Fifo(pipe_path)
    with pytest.raises(OSError, match=os.strerror(errno.ENXIO)):
        FifoWriter(pipe_path, 1)


def test_a_writer_does_not_write_into_a_file(tmp_path):
    """An ordinary file at the path is not overwritten."""
    path = tmp_path / "file"
    path.write_text("precious")
    with pytest.raises(NotOurPipeError):
        FifoWriter(str(path), 1)
    assert path.read_text() == "precious"


def test_a_full_pipe_is_waited_for_and_then_named(pipe_path):
    """A writer gives up after its patience, and goes on when there is room in time."""
    reader = Fifo(pipe_path).open(Waiter())
    with FifoWriter(pipe_path, patience=0.05) as writer:
        with pytest.raises(PipeFullError, match="stayed full"):
            forever(lambda: writer.write("x" * select.PIPE_BUF))
        reader.read()
        assert writer.write("room again") == 10


def test_a_reader_that_has_gone_is_named(pipe_path):
    """A writer whose server dies while it holds the pipe open gets the error of a missing server."""
    reader = Fifo(pipe_path).open(Waiter())
    with FifoWriter(pipe_path, 1) as writer:
        reader.close()
        with pytest.raises(NoTimerServerError):
            writer.write("hello")


def test_a_wait_ends_on_time():
    """Never early, and without a thing to wait for."""
    waiter = Waiter()
    for timeout in (0.0, 0.0004, 0.0031, 0.02):
        begun = time.monotonic()
        assert waiter.wait(timeout) is False
        assert time.monotonic() - begun >= timeout


def test_a_long_wait_rehearses_its_end_once():
    """Shortly before it; it ends on time all the same. A short one, or one that is woken, has no time for it."""
    waiter, called = Waiter(), []

    def rehearse():
        called.append(time.monotonic())

    def was_rehearsed():
        called.clear()
        end = time.monotonic() + 0.02
        assert waiter.wait(0.02, rehearse) is False
        assert time.monotonic() >= end
        return called and end - 0.01 < called[0] < end  # it is left out where the processor comes late

    until(was_rehearsed)
    assert len(called) == 1
    waiter.wait(0.002, rehearse)
    waiter.wake()
    waiter.wait(60, rehearse)
    assert len(called) == 1


def test_a_wait_is_woken_from_another_thread():
    """`wake` ends a wait that is under way, or the next one."""
    waiter = Waiter()
    waiter.wake()
    assert waiter.wait(30)
    threading.Timer(0.01, waiter.wake).start()
    assert waiter.wait(30)


def test_an_exit_is_called_back_and_the_wait_goes_on(start):
    """A pidfd becomes readable once, calls back once, and does not end the wait."""
    waiter, called = Waiter(), []
    worker = start(workers.idle)
    fd = os.pidfd_open(worker.pid)
    waiter.call_once(fd, lambda: called.append(fd))
    worker.process.kill()
    worker.ended()
    assert waiter.wait(0.01) is False
    assert waiter.wait(0.01) is False
    assert called == [fd]
    waiter.forget(fd)
    os.close(fd)


def test_a_queues_pipe_takes_what_get_would_take(spawn):
    """What the writer sends, the queue's own get() finds, and its count is right."""
    queue = spawn.Queue()
    writer = QueueWriter(queue)
    assert writer.send(frame(pickle.dumps("hello")), 1)
    assert queue.qsize() == 1
    assert queue.get(timeout=30) == "hello"
    assert queue.qsize() == 0


def test_a_queues_pipe_gives_what_put_puts(spawn):
    """What the queue's own put() sends, the reader finds, and the count is right afterwards."""
    queue, waiter = spawn.Queue(), Waiter()
    reader = QueueReader(queue)
    waiter.watch(reader.fd)
    queue.put("hello")
    assert waiter.wait(30)
    assert [pickle.loads(payload) for payload in FrameSplitter().feed(reader.read())] == ["hello"]
    reader.took(1)
    assert queue.qsize() == 0
    reader.took(1)


def test_a_request_too_large_to_be_atomic_is_left_to_the_queue(spawn):
    """The writer writes nothing, and the queue's count stays."""
    queue = spawn.Queue()
    assert not QueueWriter(queue).send(b"x" * (select.PIPE_BUF + 1), 1)
    assert queue.qsize() == 0


def test_a_full_queue_is_waited_for_a_bounded_time(spawn):
    """A pipe that nobody reads does not block its writer for longer than its patience."""
    queue = spawn.Queue()
    writer = QueueWriter(queue)
    while writer.send(b"x" * 4000, 0.05):
        pass


class Overridden(multiprocessing.queues.Queue):
    """A queue with a put() of its own."""

    def put(self, obj, block=True, timeout=None):
        raise NotImplementedError


def test_other_queues_are_not_touched(spawn):
    """Each queue whose pipe we may not use is refused with the reason."""
    with pytest.raises(UnsupportedQueueError, match="bounded"):
        QueueWriter(spawn.Queue(5))
    with pytest.raises(UnsupportedQueueError, match="is not a multiprocessing"):
        QueueWriter(spawn.SimpleQueue())
    with pytest.raises(UnsupportedQueueError, match="of its own"):
        QueueWriter(spawn.JoinableQueue())
    with pytest.raises(UnsupportedQueueError, match="of its own"):
        QueueReader(Overridden(ctx=spawn))
    changed = spawn.Queue()
    del changed._sem
    with pytest.raises(UnsupportedQueueError, match="not the ones known"):
        QueueWriter(changed)


def test_a_lock_that_a_dead_writer_left_is_unlocked(spawn, start):
    """The writers of a queue go on when the one that held their lock was killed."""
    queue = spawn.Queue()
    reader = QueueReader(queue)
    holder = start(workers.hold_lock, queue)
    assert holder.heard() == "locked"
    assert reader.lock_is_stuck(0.05)
    assert not reader.lock_is_stuck(0.05)


def test_descriptors_are_given_back(spawn):
    """Readers and writers of a queue that are dropped leave nothing open."""
    queue = spawn.Queue()
    before = descriptors()
    for _ in range(20):
        QueueWriter(queue)
        QueueReader(queue)
        Waiter()
    assert descriptors() <= before


def test_two_ends_of_one_worker_in_one_round():
    """Its socket and its process end together: whichever callback comes first may forget the other."""
    waiter = Waiter()
    pairs = [os.pipe() for _ in range(2)]
    called = []

    def gone(name):
        called.append(name)
        for reader, _ in pairs:
            waiter.forget(reader)

    waiter.call(pairs[0][0], lambda: gone("socket"))
    waiter.call_once(pairs[1][0], lambda: gone("process"))
    for _, writer in pairs:
        os.close(writer)
    waiter.wait(0)
    waiter.wait(0)
    assert len(called) == 1
    waiter.close()
    for reader, _ in pairs:
        os.close(reader)


def test_a_waiter_that_was_woken_before_its_first_wait_returns_from_it():
    """Though nothing is open yet by which it could be woken."""
    waiter = Waiter()
    waiter.wake()
    assert waiter._selector is None
    assert waiter.wait(30)
    assert waiter.wait(0) is False


def test_a_forked_child_waits_for_what_its_parent_watched():
    """With descriptors of its own, so what it forgets its parent still waits for."""
    waiter = Waiter()
    readable, writable = os.pipe()
    waiter.watch(readable)
    waiter.wait(0)
    child = os.fork()
    if child == 0:
        before = waiter.wait(0)
        os.write(writable, b"!")
        seen = waiter.wait(30)
        waiter.forget(readable)
        os._exit(not (seen and not before and not waiter.wait(0)))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert waiter.wait(30)
    waiter.close()
    os.close(readable)
    os.close(writable)
