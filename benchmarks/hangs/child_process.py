"""Waits for a command that never ends."""

import subprocess

import unhang

with unhang.expires(after=1.5, scope="convert"):
    subprocess.run(["/bin/sleep", "600"], check=True)  # HANGS HERE
