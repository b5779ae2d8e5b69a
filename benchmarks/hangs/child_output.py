"""Reads what a command prints, which prints nothing and never ends."""

import subprocess

import unhang

with unhang.expires(after=1.5, scope="describe"):
    version = subprocess.check_output(["/bin/sleep", "600"])  # HANGS HERE
