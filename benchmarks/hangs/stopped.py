"""Is stopped by another process, and does not know it."""

import os
import subprocess
import time

import unhang

subprocess.Popen(["/bin/sh", "-c", f"sleep 0.5; kill -STOP {os.getpid()}"])

with unhang.expires(after=1.5, scope="poll"):
    time.sleep(600)  # HANGS HERE
