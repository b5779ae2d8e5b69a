"""Forks while a thread holds a lock, which nobody will release in the child."""

import os
import threading
import time

import unhang

log_lock = threading.Lock()


def log(ready: threading.Event) -> None:
    """Write to a slow disk."""
    with log_lock:
        ready.set()
        time.sleep(600)


ready = threading.Event()
threading.Thread(target=log, args=[ready], name="logger", daemon=True).start()
ready.wait()
child = os.fork()
if child == 0:
    with unhang.expires(after=1.5, scope="load"), log_lock:  # HANGS HERE
        print("loading")
os.waitpid(child, 0)
raise SystemExit(1)
