"""Programs that tests start: none outlives its test, and none is waited for without a bound."""

import contextlib
import subprocess

from processes import has_ended, kill_tree
from support import LONG


class Program(subprocess.Popen):
    """A ``subprocess.Popen`` that waits for `LONG` seconds at most.

    A ``with`` block that raises kills the program and all that it has started; so does one that ends while the program
    goes on for longer than that.
    """

    def wait(self, timeout=LONG):
        if self.returncode is None and timeout is not None and not has_ended(self.pid, timeout):
            raise subprocess.TimeoutExpired(self.args, timeout)
        return super().wait(timeout)

    def communicate(self, input=None, timeout=LONG):  # noqa: A002 - Popen's name for it
        return super().communicate(input, timeout)

    def __exit__(self, kind, error, traceback):
        if kind is not None:
            self.end()
            return
        self._close_pipes()
        try:
            self.wait()
        except subprocess.TimeoutExpired:
            self.end()
            raise

    def end(self):
        """Kill the program and its descendants, if it still runs, and close its pipes. May be called twice."""
        try:
            if self.poll() is None:
                kill_tree(self.pid)
                self.wait()
        finally:
            self._close_pipes()

    def _close_pipes(self):
        for pipe in (self.stdout, self.stderr, self.stdin):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
