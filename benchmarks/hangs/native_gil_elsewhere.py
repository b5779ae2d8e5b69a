"""A thread calls an extension in C that never gives up the GIL, while the main thread is in its step."""

import ctypes
import threading
import time

import unhang

extension = ctypes.PyDLL(None)
semaphore = ctypes.create_string_buffer(64)
extension.sem_init(semaphore, 0, 0)


def save() -> None:
    """Write a checkpoint in the background."""
    time.sleep(0.3)
    extension.sem_wait(semaphore)  # HANGS HERE


threading.Thread(target=save, name="saver", daemon=True).start()
with unhang.expires(after=1.5, scope="step"):
    while True:
        time.sleep(0.01)  # WAITS HERE
