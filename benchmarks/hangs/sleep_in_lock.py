"""The main thread wants a lock; the thread that has it is asleep."""

import threading
import time

import unhang

cache_lock = threading.Lock()


def refresh(ready: threading.Event) -> None:
    """Fetch the cache anew, slowly."""
    with cache_lock:
        ready.set()
        time.sleep(600)


ready = threading.Event()
threading.Thread(target=refresh, args=[ready], name="refresher", daemon=True).start()
ready.wait()
with unhang.expires(after=1.5, scope="request"), cache_lock:  # HANGS HERE
    print("cached")
