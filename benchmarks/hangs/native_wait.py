"""C code that has given up the GIL and waits for a condition of its own."""

import ctypes

import unhang

library = ctypes.CDLL(None)
condition, mutex = ctypes.create_string_buffer(128), ctypes.create_string_buffer(128)
library.pthread_mutex_lock(mutex)

with unhang.expires(after=1.5, scope="render"):
    library.pthread_cond_wait(condition, mutex)  # HANGS HERE
