"""What tests share: workers that say when they have got somewhere."""

import gc
import inspect
import multiprocessing
import os
import signal
import threading
import time
from multiprocessing import connection

from processes import kill_tree, pidfd_open

# Bounds for real processes are one-sided and generous: a bound that is met says nothing, one that is not does.
LONG = 30.0


def handle_signals():
    """Run the signal handlers of this process until it is killed.

    A signal that comes just before ``signal.pause()`` would wait there for the next one.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    while True:
        os.read(reader, 1)


# The same as a program.
HANDLE_SIGNALS = f"import os, signal\n{inspect.getsource(handle_signals)}\nhandle_signals()\n"


class Worker:
    """A process that runs ``function(*args, say)``; ``say`` is the writing end of a pipe to here."""

    def __init__(self, function, *args, method="spawn"):
        context = multiprocessing.get_context(method)
        self._pipe, theirs = context.Pipe()
        self.process = context.Process(target=function, args=(*args, theirs), daemon=True)
        self.process.start()
        self.pid = self.process.pid
        # Its sentinel is a pipe, which the worker may close.
        self._handle = pidfd_open(self.pid)
        theirs.close()

    def heard(self):
        """What the worker says next."""
        if not self._pipe.poll(LONG):
            raise TimeoutError("the worker says nothing")
        return self._pipe.recv()

    def told(self, *what):
        """Tell the worker what to do, and wait until it has done it."""
        self._pipe.send(what)
        return self.heard()

    def ended(self):
        """The exit code, once the process has ended; negative for a signal."""
        if not connection.wait([self._handle], LONG):
            raise TimeoutError("the worker does not end")
        self.process.join()
        return self.process.exitcode

    def runs(self):
        """Whether the process still runs."""
        return not connection.wait([self.process.sentinel], 0)

    def end(self):
        """Kill what is left, and leave no descriptor. May be called twice."""
        if not self._pipe.closed:
            if not connection.wait([self._handle], 0):
                kill_tree(self.pid)
            connection.wait([self._handle], LONG)
            self.process.join(LONG)  # a forkserver writes the status of its child in a moment
            self.process.close()
            self._pipe.close()
            os.close(self._handle)


def descriptors():
    """How many descriptors this process has open, those left out that garbage holds."""
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def until(condition, turn=lambda: None):
    """Turn something until a condition holds; fails when it does not in half a minute."""
    give_up = time.monotonic() + LONG
    while not condition():
        if time.monotonic() > give_up:
            raise TimeoutError("it does not come true")
        turn()
        time.sleep(0.001)


def forever(action):
    """Do something again and again, until it raises."""
    while True:
        action()


def in_time(kinds):
    """Kinds of events, without those that say that the machine was paused or busy."""
    return [kind for kind in kinds if kind != "overslept"]


class Reentrant:
    """Memory whose first slice is made while a finalizer, or a signal handler, wants one too."""

    def __init__(self, words, also):
        self.words = words
        self.also = also

    def __getitem__(self, key):
        if isinstance(key, slice) and self.also is not None:
            also, self.also = self.also, None
            also()
        return self.words[key]

    def __setitem__(self, key, value):
        self.words[key] = value


def in_a_thread(function):
    """What a function returns in a thread of its own."""
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]
