"""Wants the lock of a file that another process holds."""

import fcntl
import subprocess
import tempfile

import unhang

with tempfile.NamedTemporaryFile() as file:
    taken = f"exec 9<{file.name}; flock 9; echo taken; exec sleep 600"
    other = subprocess.Popen(["/bin/sh", "-c", taken], stdout=subprocess.PIPE)
    assert other.stdout is not None  # noqa: S101 - for the type checker
    other.stdout.readline()
    with unhang.expires(after=1.5, scope="index"):
        fcntl.flock(file, fcntl.LOCK_EX)  # HANGS HERE
