"""Feeds a child that does not read."""

import subprocess

import unhang

lazy = subprocess.Popen(["/bin/sleep", "600"], stdin=subprocess.PIPE, text=True)

with unhang.expires(after=1.5, scope="feed"):
    print("x" * 1_000_000, file=lazy.stdin)  # HANGS HERE
