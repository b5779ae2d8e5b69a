"""An extension in C that never gives up the GIL."""

import ctypes

import unhang

extension = ctypes.PyDLL(None)
semaphore = ctypes.create_string_buffer(64)
extension.sem_init(semaphore, 0, 0)

with unhang.expires(after=1.5, scope="step"):
    extension.sem_wait(semaphore)  # HANGS HERE
