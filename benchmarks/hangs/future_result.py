"""Waits for the result of a thread that does not get on."""

import time
from concurrent.futures import ThreadPoolExecutor

import unhang

pool = ThreadPoolExecutor(1)
slow = pool.submit(time.sleep, 600)

with unhang.expires(after=1.5, scope="gather"):
    print(slow.result())  # HANGS HERE
