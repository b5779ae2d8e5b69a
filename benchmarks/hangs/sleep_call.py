"""Waits for a file that never comes, a minute at a time."""

import time
from pathlib import Path

import unhang

with unhang.expires(after=1.5, scope="wait for the file"):
    while not Path("no-such-file").exists():
        time.sleep(60)  # HANGS HERE
