"""Two hundred workers that load batches and add up gradients; after some seconds one of them hangs in a lock.

    unhang run -- python examples/crowd.py

Look at them with `unhang top`, in another terminal. Nobody is ended while you look: a block may take a quarter of an
hour. With --together they wait for each other in every step, as the ranks of a training job do: soon all of them stand
still, and one is to blame. Ctrl-C ends them.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import signal
import threading
import time
from typing import Any

import unhang

BUDGET = 900
STUCK = 137

cache = threading.Lock()


def load(*, hangs: bool) -> None:
    """Read a batch."""
    with unhang.expires(after=BUDGET, scope="load"), cache:
        time.sleep(random.uniform(0.1, 0.4))  # noqa: S311 - no secret
        if hangs:
            look_up()


def look_up() -> None:
    """What hangs here: a function that takes a lock, called by one that has it."""
    with cache:
        pass


def reduce(barrier: Any) -> None:
    """Add up gradients, if they work together: of all workers."""
    with unhang.expires(after=BUDGET, scope="all_reduce"):
        time.sleep(random.uniform(0.1, 0.4))  # noqa: S311
        if barrier is not None:
            barrier.wait()


def work(rank: int, stuck_at: int, barrier: Any) -> None:
    """One worker; it hangs in a step, if that is not 0."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.environ["RANK"] = str(rank)
    os.environ["UNHANG_JOB"] = "crowd"
    random.seed(rank)
    step = 0
    while True:
        step += 1
        load(hangs=step == stuck_at)
        reduce(barrier)


def main() -> None:
    """Start them, and wait."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=200, metavar="N")
    parser.add_argument("--together", action="store_true", help="they wait for each other in every step")
    parser.add_argument("--stuck-at", type=int, default=20, metavar="STEP", help="when one hangs")
    arguments = parser.parse_args()
    fork = multiprocessing.get_context("fork")
    barrier = fork.Barrier(arguments.workers) if arguments.together else None
    stuck = min(STUCK, arguments.workers - 1)
    workers = []
    for rank in range(arguments.workers):
        stuck_at = arguments.stuck_at if rank == stuck else 0
        workers.append(fork.Process(target=work, args=(rank, stuck_at, barrier)))
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


if __name__ == "__main__":
    main()
