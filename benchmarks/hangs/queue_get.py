"""Waits for a job; the thread that makes them has died."""

import queue
import threading

import unhang

jobs: queue.Queue[str] = queue.Queue()
threading.Thread(target=jobs.put, args=["the only one"], name="producer").start()

for _ in range(2):
    with unhang.expires(after=1.5, scope="job"):
        print(jobs.get())  # HANGS HERE
