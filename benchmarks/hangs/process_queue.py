"""Waits for a result; the process that was to send it has ended."""

import multiprocessing

import unhang

results: "multiprocessing.Queue[str]" = multiprocessing.get_context("fork").Queue()
maker = multiprocessing.get_context("fork").Process(target=print, args=["nothing to send"])
maker.start()
maker.join()

with unhang.expires(after=1.5, scope="result"):
    print(results.get())  # HANGS HERE
