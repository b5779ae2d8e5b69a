"""Wants a lock between processes; the one that has it has died."""

import multiprocessing
import os
from multiprocessing.synchronize import Lock

import unhang

forking = multiprocessing.get_context("fork")


def crash(lock: Lock) -> None:
    """Die with the lock."""
    lock.acquire()
    os._exit(1)


lock = forking.Lock()
victim = forking.Process(target=crash, args=[lock])
victim.start()
victim.join()

with unhang.expires(after=1.5, scope="critical"), lock:  # HANGS HERE
    print("alone")
